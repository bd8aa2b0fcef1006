"""The floor on JetStream: a nats-py loop in each of two processes, no framework, no retries."""

from benchmarks.processes import Run
from benchmarks.systems.jetstream import missing, open_client, start_server

NAME = "bare nats-py"
NOTE = "no framework"
PEER = True

__all__ = ["NAME", "NOTE", "PEER", "missing", "open_client", "start"]

CODE = """
import asyncio, json, os, sys
import nats, uvloop
from nats.js.api import StreamConfig

async def main():
    connection = await nats.connect(os.environ["NATS"])
    js = connection.jetstream()
    for name, subject in (("bin", "bench.in"), ("bout", "bench.out")):
        await js.add_stream(StreamConfig(name=name, subjects=[subject]))
    pull = await js.pull_subscribe("bench.in", durable="w")
    async def one(message):
        data = json.loads(message.data)
        data["added"] = 1
        await js.publish("bench.out", json.dumps(data).encode())
        await message.ack()
    while True:
        try:
            messages = await pull.fetch(200, timeout=5)
        except (TimeoutError, nats.errors.TimeoutError, asyncio.TimeoutError):
            continue
        await asyncio.gather(*map(one, messages))

uvloop.run(main())
"""


def start(run: Run) -> str:
    """The server's URL."""
    url = start_server(run)
    (run.dir / "worker.py").write_text(CODE)
    for _ in range(2):
        run.spawn([run.options.peers_python, run.dir / "worker.py"], NATS=url)
    return url
