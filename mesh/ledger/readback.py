"""What a mesh holds when all is over: outputs and dead letters, as entries of a ledger."""

from collections.abc import AsyncIterator, Sequence

import msgspec

from mesh.errors import EventError
from mesh.ledger.entries import Dead, Entry, Output
from mesh.ledger.expectations import Expectations
from mesh.ledger.publisher import AsyncReporter
from mesh.letters import DEAD_LETTER
from mesh.transport import Logged, Transport

__all__ = ["dead", "output", "read_back", "record_back"]

_PAGE = 1000


class _Original(msgspec.Struct):
    id: str
    source: str


class _Letter(msgspec.Struct):
    subscription: str
    attempts: int
    reason: str
    event: _Original


_letter = msgspec.json.Decoder(_Letter).decode


def output(item: Logged, seq: int) -> Output:
    """An output by the extension that ties it to its cause; the cause is "" where it has none."""
    event = item.event
    cause = event.extensions.get("causationid", "")
    return Output(item.topic, event.source, event.id, str(cause), seq=seq)


def dead(item: Logged, seq: int) -> Dead:
    """A dead letter, as `mesh.letters` writes it. Raises EventError for anything else."""
    event = item.event
    try:
        if event.type != DEAD_LETTER:
            raise ValueError(f"its type is {event.type!r}")
        body = _letter(event.data or b"")
    except ValueError as error:  # msgspec's own errors are ValueErrors
        raise EventError(f"{item.topic}@{item.position}: no dead letter: {error}") from None
    original = body.event
    return Dead(
        body.subscription, original.source, original.id, body.attempts, body.reason, event.id, seq
    )


async def read_back(
    transport: Transport, expectations: Expectations, letters: Sequence[str] = ()
) -> AsyncIterator[Entry]:
    """All that the topics of expected outputs, and the topics of dead letters named here, hold.

    Read once the backlog is empty: what comes later is not seen. A topic of both kinds is told
    apart by the events' type.
    """
    topics = {topic for each in expectations.subscriptions for topic in each.outputs}
    for topic in sorted(topics | set(letters)):
        seq = 0
        async for item in _all(transport, topic):
            if item.event.type == DEAD_LETTER or topic not in topics:
                yield dead(item, seq)
            else:
                yield output(item, seq)
            seq += 1


async def record_back(
    transport: Transport,
    expectations: Expectations,
    reporter: AsyncReporter,
    letters: Sequence[str] = (),
) -> int:
    """Read back, and tell the ledger, with the expectations; how many entries."""
    await reporter.report(msgspec.to_builtins(expectations))
    batch: list[Entry] = []
    count = 0
    async for entry in read_back(transport, expectations, letters):
        batch.append(entry)
        count += 1
        if len(batch) == _PAGE:
            await reporter.report(*(msgspec.to_builtins(each) for each in batch))
            batch.clear()
    await reporter.report(*(msgspec.to_builtins(each) for each in batch))
    return count


async def _all(transport: Transport, topic: str) -> AsyncIterator[Logged]:
    start, last = "earliest", ""
    while True:
        page = await transport.read(topic, start, _PAGE)
        # Whether a start includes the position that it names is the transport's own affair.
        fresh = page[1:] if page and page[0].position == last else page
        if not fresh:
            return
        for item in fresh:
            yield item
        last = fresh[-1].position
        start = f"@{last}"
