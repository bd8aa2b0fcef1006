"""Publishing with the ledger told: before each publish, and what became of it."""

import asyncio
import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mesh.event import Event
from mesh.ledger.report import LedgerGone, LedgerRefused, record
from mesh.transport import Receipt, Transport

__all__ = ["AsyncReporter", "Publisher"]

_OUTCOMES = {"stored": "ok", "refused": "refused", "ambiguous": "unknown"}


class AsyncReporter:
    """As Reporter, for a loop: many reports may be on their way at once, and keep their order."""

    def __init__(self, path: str | Path, timeout_s: float = 30.0) -> None:
        self.path = str(path)
        self.timeout_s = timeout_s
        self.name = f"{os.getpid()}-{os.urandom(4).hex()}"
        self.number = 0
        self.waiting: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self.channel: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        self.heard = 0.0

    async def report(self, *records: dict[str, Any]) -> None:
        """Say these, all or none of them. Returns when they are recorded."""
        self.number += 1
        report = {"by": self.name, "n": self.number, "records": records}
        line = json.dumps(report, separators=(",", ":")).encode() + b"\n"
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((line, done))
        if self.channel is not None:
            self.channel.write(line)
        elif self.task is None:
            self.task = asyncio.create_task(self._run())
        await done

    async def _run(self) -> None:
        """Send what waits, again after each break of the connection, and take the answers."""
        loop = asyncio.get_running_loop()
        self.heard = time.monotonic()
        while time.monotonic() - self.heard < self.timeout_s:
            with contextlib.suppress(OSError):
                self.channel, answers = await loop.create_unix_connection(
                    lambda: _Answers(self.answered), self.path
                )
                self.channel.writelines([line for line, _ in self.waiting])
                await answers.over
            self._hang_up()
            await asyncio.sleep(0.02)
        self.task = None
        while self.waiting:
            _, done = self.waiting.popleft()
            if not done.done():
                done.set_exception(LedgerGone(self.path, self.timeout_s))

    def answered(self, answer: bytes) -> None:
        """The recorder's answer to the first report that waits."""
        self.heard = time.monotonic()
        _, done = self.waiting.popleft()
        if done.done():
            return
        if answer == b"ok":
            done.set_result(None)
        else:
            done.set_exception(LedgerRefused(self.path, answer.decode()))

    def _hang_up(self) -> None:
        if self.channel is not None:
            self.channel.close()
        self.channel = None

    async def close(self) -> None:
        """Hang up. Twice is harmless."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
            self.task = None
        self._hang_up()


class _Answers(asyncio.Protocol):
    """What the recorder says, a line each, until it hangs up."""

    def __init__(self, answered: Callable[[bytes], None]) -> None:
        self.answered = answered
        self.buffer = b""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        *answers, self.buffer = (self.buffer + data).split(b"\n")
        for answer in answers:
            self.answered(answer)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Publisher:
    """Publishes through `transport`, and tells `reporter` of each event before and after."""

    def __init__(self, transport: Transport, reporter: AsyncReporter) -> None:
        self.transport = transport
        self.reporter = reporter

    async def publish(self, topic: str, events: Sequence[Event], *, key: str = "") -> list[Receipt]:
        """As the transport says; a publish that raises or is cancelled stays unknown."""
        told = [{"topic": topic, "source": e.source, "id": e.id, "key": key} for e in events]
        await self.reporter.report(*(record("published", **each, outcome="sent") for each in told))
        receipts = await self.transport.publish(topic, events)
        await self.reporter.report(
            *(
                record("published", **each, outcome=_OUTCOMES[receipt.status])
                for each, receipt in zip(told, receipts, strict=True)
            )
        )
        return receipts
