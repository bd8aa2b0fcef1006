"""The recorder: a process of its own that keeps a ledger, and outlives all that it is told of.

`python -m mesh.ledger.recorder FILE SOCKET`. Prints one line when it listens; SIGTERM ends it.
Started again on the same file and socket it goes on, with a torn last line cut off; those who
report wait meanwhile.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mesh.ledger.file import decode, whole

__all__ = ["LedgerBusy", "Recorder", "recording"]

MOST = 64 << 20
"""The longest report, in bytes."""


class LedgerBusy(Exception):
    """Another recorder has the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: another recorder keeps this ledger; stop it first")


class Recorder:
    """Appends what it is told to its file, all that is waiting at once, then acknowledges it.

    `sync_s` 0 syncs before each acknowledgement: what was acknowledged outlives a power cut. Above
    0, at most once in so many seconds: it outlives any process, the recorder's own included, but a
    power cut may take what was said last, and the judge then suspects what was kept, or asks less.
    """

    def __init__(self, path: Path, sync_s: float = 0.0) -> None:
        self.file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise LedgerBusy(path) from None
        self.file.truncate(whole(self.file))
        os.fsync(self.file.fileno())
        self.sync_s = sync_s
        self.synced = time.monotonic()
        self.waiting: list[tuple[bytes, bytes, asyncio.Transport]] = []
        """Lines to write, and the answers, in the order of each connection's reports."""

    async def serve(self, address: Path) -> asyncio.Server:
        """Listen; a socket that another left behind is replaced."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address)  # noqa: PTH108
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(lambda: _Channel(self), address)

    def take(self, lines: list[bytes], channel: asyncio.Transport) -> None:
        """Reports of one reporter, in order."""
        if not self.waiting:
            asyncio.get_running_loop().call_soon(self._write)
        for line in lines:
            try:
                decode(line)
            except msgspec.DecodeError as error:
                self.waiting.append((b"", f"{error}\n".encode(), channel))
            else:
                self.waiting.append((line + b"\n", b"ok\n", channel))

    def _write(self) -> None:
        waiting, self.waiting = self.waiting, []
        body = memoryview(b"".join(line for line, _, _ in waiting))
        try:
            while body:
                body = body[self.file.write(body) :]
            now = time.monotonic()
            if now - self.synced >= self.sync_s:
                os.fsync(self.file.fileno())
                self.synced = now
        except OSError as error:
            # What was half written, or not synced, can't be told from the rest any more: only the
            # next start can cut it off. Nothing of it was acknowledged.
            raise SystemExit(f"{self.file.name}: {error}; the recorder ends") from error
        for _, answer, channel in waiting:
            if not channel.is_closing():
                channel.write(answer)

    def close(self) -> None:
        """Sync and let go of the file."""
        os.fsync(self.file.fileno())
        self.file.close()


class _Channel(asyncio.Protocol):
    """One reporter's connection."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        if lines:
            self.recorder.take(lines, self.transport)
        if len(self.buffer) > MOST:
            self.transport.abort()


@contextlib.contextmanager
def recording(path: Path, address: Path, sync_s: float = 0.0) -> Iterator[subprocess.Popen[str]]:
    """A recorder in a process of its own, in a session of its own, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mesh.ledger.recorder", str(path), str(address),
         "--sync-s", str(sync_s)],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"the ledger's recorder ended with status {process.wait()}")
        yield process
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def _main(path: Path, address: Path, sync_s: float) -> None:
    recorder = Recorder(path, sync_s)
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    server = await recorder.serve(address)
    print(f"recording {path}", flush=True)
    await over.wait()
    server.close()
    recorder.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="mesh.ledger.recorder", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("socket", type=Path)
    parser.add_argument("--sync-s", type=float, default=0.0, help="seconds between syncs; 0: each")
    arguments = parser.parse_args()
    try:
        asyncio.run(_main(arguments.file, arguments.socket, arguments.sync_s))
    except LedgerBusy as error:
        sys.exit(str(error))
