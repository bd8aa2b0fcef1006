"""Events from a file or a pipe: as they come, in bounded memory, each mistake with its place."""

import asyncio
import os
from collections.abc import AsyncIterator

import msgspec

from funcrt.cli.errors import FAILED, CliError
from mesh.errors import EventError
from mesh.event import Event

__all__ = ["batches"]

BATCH = 256
"""Events published at once; the next are read when these are durable."""
LINE_MAX = 16 << 20
DOCUMENT_MAX = 256 << 20
_CHUNK = 1 << 16
_BOM = b"\xef\xbb\xbf"


async def batches(fd: int, name: str, *, jsonl: bool) -> AsyncIterator[list[Event]]:
    """The events of a file descriptor, some at a time, in order.

    With `jsonl`, or where the first line is a whole JSON object, every line is an event; else the
    whole input is one JSON document: an event, or an array of them. A byte order mark and Windows
    line ends are skipped. Raises CliError that names the line; what came before it was yielded.
    """
    head: list[bytes] = []
    size = 0
    number = 0
    async for lines in _lines(fd, name):
        if not jsonl and size == 0:
            opening = next((text for text in lines if text.strip()), b"")
            jsonl = not opening.lstrip().startswith(b"[") and _is_json(opening)
        if not jsonl:
            number += len(lines)
            head += lines
            size += sum(len(text.strip()) for text in lines)
            if size > DOCUMENT_MAX:
                raise CliError(
                    f"{name}: one JSON document over {DOCUMENT_MAX} bytes",
                    "one event a line, with --jsonl",
                )
            continue
        found: list[Event] = []
        for text in lines:
            number += 1
            if text.strip():
                try:
                    found.append(_event(text, f"{name}:{number}"))
                except CliError:
                    if found:
                        yield found
                    raise
            if len(found) == BATCH:
                yield found
                found = []
        if found:
            yield found
    if not jsonl:
        yield _document(b"\n".join(head), name)


def _document(text: bytes, name: str) -> list[Event]:
    """One event, or an array of them."""
    if not text.strip():
        raise CliError(f"{name}: is empty, expected an event as JSON")
    if not text.lstrip().startswith(b"["):
        return [_event(text, name)]
    try:
        items = msgspec.json.decode(text, type=list[msgspec.Raw])
    except msgspec.DecodeError as error:
        raise CliError(f"{name}: not JSON: {error}") from None
    return [_event(bytes(item), f"{name}[{index}]") for index, item in enumerate(items)]


def _event(text: bytes, place: str) -> Event:
    try:
        return Event.from_json(text)
    except EventError as error:
        raise CliError(f"{place}: {error}", code=FAILED) from None


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return bool(text.strip())


async def _lines(fd: int, name: str) -> AsyncIterator[list[bytes]]:
    """The lines that each read brings. Only an unfinished one is kept.

    A carriage return at the end of one stays: to JSON it is white space.
    """
    rest: list[bytes] = []
    kept = 0
    first = True
    while chunk := await _read(fd):
        if first:
            if chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise CliError(f"{name}: is UTF-16", "iconv -f UTF-16 -t UTF-8 FILE")
            chunk, first = chunk.removeprefix(_BOM), False
        *whole, last = chunk.split(b"\n")
        if whole:
            whole[0] = b"".join([*rest, whole[0]])
            rest, kept = [], 0
            yield whole
        rest.append(last)
        kept += len(last)
        if kept > LINE_MAX:
            raise CliError(f"{name}: a line of over {LINE_MAX} bytes")
    if kept:
        yield [b"".join(rest)]


async def _read(fd: int) -> bytes:
    """What there is to read, or b"" at the end; waits without blocking the loop."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:
        return os.read(fd, _CHUNK)  # a regular file, which never waits
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
    return os.read(fd, _CHUNK)
