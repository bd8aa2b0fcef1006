"""How functions and publishers tell the ledger what they do. Nothing but the standard library.

A report is one line of JSON on the recorder's Unix socket, answered when the recorder has it in
its file, so what is said before an effect is there whatever dies after it. While the recorder is
away (it may be restarted) a report waits; when it does not come back, LedgerGone is raised, and
the effect that was to follow must not be made. A report that was sent twice is read once.
"""

import contextlib
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

__all__ = ["LedgerGone", "LedgerRefused", "Reporter", "record"]


class LedgerGone(Exception):
    """The recorder did not answer in time: what was to be reported must not be done."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__(f"{path}: the ledger's recorder did not answer for {seconds:g} s")


class LedgerRefused(Exception):
    """The recorder could not read a report."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: the ledger's recorder refused a report: {reason}")


class Named(Protocol):
    """An event, as far as it matters here."""

    @property
    def id(self) -> str: ...
    @property
    def source(self) -> str: ...


def record(entry: str, **fields: Any) -> dict[str, Any]:
    """One entry (`mesh.ledger.entries`) by its tag, as of now."""
    return {"entry": entry, "at": time.monotonic(), **fields}


class Reporter:
    """A connection to the recorder, made at the first report; for any thread, after any fork."""

    def __init__(self, path: str | Path, timeout_s: float = 30.0) -> None:
        self.path = str(path)
        self.timeout_s = timeout_s
        self.lock = threading.Lock()
        self._fresh()

    def _fresh(self) -> None:
        self.pid = os.getpid()
        self.name = f"{self.pid}-{os.urandom(4).hex()}"
        """Tells this process from all others: the `instance` of its calls."""
        self.numbers = itertools.count(1)
        self.channel: socket.socket | None = None
        self.input: Any = None

    def report(self, *records: dict[str, Any]) -> None:
        """Say these, all or none of them. Returns when they are recorded."""
        self._check_fork()
        with self.lock:
            report = {"by": self.name, "n": next(self.numbers), "records": records}
            line = json.dumps(report, separators=(",", ":")).encode() + b"\n"
            answer = self._ask(line)
        if answer != b"ok\n":
            raise LedgerRefused(self.path, answer.decode().strip())

    def _check_fork(self) -> None:
        if os.getpid() != self.pid:  # the connection, the name and the lock are the parent's
            self.lock = threading.Lock()
            self._fresh()

    def _ask(self, line: bytes) -> bytes:
        until = time.monotonic() + self.timeout_s
        while True:
            try:
                if self.channel is None:
                    self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                    self.channel.settimeout(self.timeout_s)
                    self.channel.connect(self.path)
                    self.input = self.channel.makefile("rb")
                self.channel.sendall(line)
                if answer := self.input.readline():
                    return bytes(answer)
            except OSError:
                pass
            self.close()
            if time.monotonic() > until:
                raise LedgerGone(self.path, self.timeout_s)
            time.sleep(0.02)

    def close(self) -> None:
        """Hang up; the next report connects again."""
        if self.channel is not None:
            if self.input is not None:
                self.input.close()
            self.channel.close()
        self.channel = self.input = None

    @contextlib.contextmanager
    def call(
        self, subscription: str, *events: Named, attempt: int = 0, key: str = ""
    ) -> Iterator[None]:
        """Around the whole of a handler: Called before, Returned after. For several events, one
        batch."""
        self._check_fork()
        told = {"subscription": subscription, "instance": self.name}
        batch = f"{self.name}-{time.monotonic_ns()}" if len(events) > 1 else ""
        each = [{**told, "source": event.source, "id": event.id} for event in events]
        begun = {"attempt": attempt, "key": key, "batch": batch}
        self.report(*(record("called", **one, **begun) for one in each))
        outcome = "fail"
        try:
            yield
            outcome = "ok"
        finally:
            self.report(*(record("returned", **one, outcome=outcome) for one in each))
