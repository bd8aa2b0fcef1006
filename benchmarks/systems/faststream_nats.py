"""FastStream on NATS JetStream: pull consumers of 100, two worker processes, uvloop."""

from benchmarks.processes import Run
from benchmarks.systems.jetstream import missing, open_client, start_server

NAME = "FastStream, JetStream"
NOTE = "pull of 100"
PEER = True

__all__ = ["NAME", "NOTE", "PEER", "missing", "open_client", "start"]

CODE = """
import os
from faststream import FastStream
from faststream.nats import JStream, NatsBroker, PullSub

broker = NatsBroker(os.environ["NATS"])
app = FastStream(broker)
source = JStream(name="bin", subjects=["bench.in"])
target = JStream(name="bout", subjects=["bench.out"])


@broker.subscriber(
    "bench.in", stream=source, durable="w", pull_sub=PullSub(batch_size=100, timeout=5.0)
)
@broker.publisher("bench.out", stream=target)
async def add(data: dict) -> dict:
    data["added"] = 1
    return data
"""


def start(run: Run) -> str:
    """The server's URL."""
    url = start_server(run)
    (run.dir / "worker.py").write_text(CODE)
    for _ in range(2):
        run.spawn(
            [
                run.options.peers_python,
                "-m",
                "faststream",
                "run",
                "worker:app",
                "--app-dir",
                run.dir,
                "--loop",
                "uvloop:new_event_loop",
                "--log-level",
                "error",
            ],
            NATS=url,
        )
    return url
