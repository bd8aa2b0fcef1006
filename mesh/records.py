"""Events as they are stored: with their bookkeeping, many together as a chunk."""

from collections.abc import Iterator, Sequence

import msgspec

from mesh.event import Event

__all__ = [
    "CHUNK_BYTES",
    "CHUNK_EVENTS",
    "Chunk",
    "Record",
    "decode_record",
    "decode_records",
    "encode_records",
    "event_bytes",
    "parts",
    "split",
]

CHUNK_EVENTS = 256
CHUNK_BYTES = 512 * 1024


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event and the bookkeeping that travels beside it."""

    event: Event
    hops: int = 0
    reply_to: str = ""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """The events that one commit appended to a topic. `body` is msgpack of `list[Record]`."""

    first: int
    count: int
    at: float
    body: bytes


encode_records = msgspec.msgpack.Encoder().encode
decode_records = msgspec.msgpack.Decoder(list[Record]).decode
decode_record = msgspec.msgpack.Decoder(Record).decode


def event_bytes(event: Event) -> int:
    """About how many bytes an event takes in memory: of its strings the characters."""
    # Several times an event: a line for each attribute takes half the time of a loop over them.
    try:
        size = 300 + len(event.id) + len(event.source) + len(event.type)
        if (data := event.data) is not None:
            size += len(data)
        if (kind := event.datacontenttype) is not None:
            size += len(kind)
        if (subject := event.subject) is not None:
            size += len(subject)
        if (time := event.time) is not None:
            size += len(time)
        if (schema := event.dataschema) is not None:
            size += len(schema)
        if extensions := event.extensions:
            for name, more in extensions.items():
                size += len(name) + (len(more) if more.__class__ is str else 8)
    except TypeError:
        return 300  # of untyped code; it is refused when it is looked at
    return size


def split(chunk: Chunk, most: int) -> list[Chunk]:
    """A chunk as several of about `most` bytes or an event each, where it is larger."""
    if len(chunk.body) <= most or chunk.count == 1:
        return [chunk]
    middle, records = chunk.count // 2, decode_records(chunk.body)
    left = Chunk(chunk.first, middle, chunk.at, encode_records(records[:middle]))
    first, count = chunk.first + middle, chunk.count - middle
    right = Chunk(first, count, chunk.at, encode_records(records[middle:]))
    return [*split(left, most), *split(right, most)]


def parts(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Records as the chunks that they are stored in: CHUNK_EVENTS or CHUNK_BYTES each."""
    start = size = 0
    for end, record in enumerate(records, 1):
        size += event_bytes(record.event)
        if end - start == CHUNK_EVENTS or size >= CHUNK_BYTES:
            yield records[start:end]
            start, size = end, 0
    if start < len(records):
        yield records[start:]
