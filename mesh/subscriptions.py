"""The embedded mesh's subscriptions: made, changed, filled from the past, removed.

Each happens inside one transaction, beside whatever else it holds, and is undone with it.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from mesh.batch import Batch
from mesh.errors import MeshError, SubscriptionBacklog
from mesh.queue import Queue
from mesh.topics import Topic
from mesh.transport import KeyOf, Subscription, check_name

if TYPE_CHECKING:
    from mesh.embedded import Embedded
    from mesh.engine import Engine

__all__ = ["backfill", "check", "remove", "take_up"]


def check(subscription: Subscription) -> None:
    """Raises NameInvalid for a name that is none, MeshError for a broadcast without a host."""
    check_name("function", subscription.function)
    check_name("trigger", subscription.trigger)
    check_name("topic", subscription.topic)
    if subscription.mode == "broadcast":
        if not subscription.host:
            raise MeshError(f"{subscription.name}: a broadcast needs the id of its host")
        check_name("host", subscription.host)


def take_up(
    mesh: "Embedded", subscription: Subscription, key_of: KeyOf | None, batch: Batch
) -> Queue:
    """The queue of a subscription: as it is, changed, or new."""
    engine = mesh.engine_or_raise()
    queue = engine.queues.get(subscription.name)
    if queue is None or queue.spec.topic != subscription.topic:
        start = subscription.start
        offset = None if start == "new" else mesh.resolve(subscription.topic, start)
    if queue is not None and queue.spec.topic != subscription.topic:
        remove(engine, subscription.name, False, batch)
        queue = None
    if queue is None:
        return _add(engine, subscription, offset, batch)
    if queue.spec != subscription:
        _change(queue, subscription, key_of, batch)
    return queue


def _add(engine: "Engine", subscription: Subscription, offset: int | None, batch: Batch) -> Queue:
    topic = engine.topic(subscription.topic)
    # What this transaction publishes was routed before the subscription was there.
    filled = None if offset is None or offset >= batch.next(topic) else offset
    name = engine.prefix + subscription.name
    row = batch.store.add_sub(name, topic.row.id, msgspec.msgpack.encode(subscription), filled)
    queue = Queue(row, subscription, subscription.topic, engine.reader, engine.clock)
    _attach(engine, topic, queue)
    batch.undo.append(partial(_detach, engine, topic, queue))
    return queue


def _attach(engine: "Engine", topic: Topic, queue: Queue) -> None:
    engine.queues[queue.name] = queue
    topic.queues.append(queue)
    queue.gone = False


def _detach(engine: "Engine", topic: Topic, queue: Queue) -> None:
    del engine.queues[queue.name]
    topic.queues.remove(queue)
    queue.gone = True
    queue.wake()


def _change(queue: Queue, subscription: Subscription, key_of: KeyOf | None, batch: Batch) -> None:
    before, packed = queue.spec, queue.row.spec

    def undo() -> None:
        queue.spec, queue.row.spec = before, packed

    batch.undo.append(undo)
    queue.spec, queue.row.spec = subscription, msgspec.msgpack.encode(subscription)
    batch.store.run("UPDATE sub SET spec = ? WHERE id = ?", queue.row.spec, queue.row.id)
    if before.order == subscription.order:
        return
    if subscription.order == "none":
        batch.store.forget_keys(queue.row.id, batch.now)

    def reorder() -> None:
        queue.key_of = key_of
        queue.reorder()

    batch.after.append(reorder)


def remove(engine: "Engine", name: str, purge: bool, batch: Batch) -> None:
    """Remove a subscription. Raises SubscriptionUnknown; SubscriptionBacklog unless `purge`."""
    queue = engine.queue(name)
    waiting, parked, _ = batch.count(queue)
    total = queue.total + waiting + parked
    if total and not purge:
        raise SubscriptionBacklog(name, total)
    topic = engine.topics[queue.spec.topic]
    batch.store.remove_sub(queue.row.id)
    _detach(engine, topic, queue)
    batch.undo.append(partial(_attach, engine, topic, queue))


async def backfill(engine: "Engine", queue: Queue) -> None:
    """Queue what the topic held before the subscription, some chunks a transaction."""
    topic = engine.topics[queue.spec.topic]
    stop = topic.row.next
    while queue.row.filled is not None and not queue.gone:
        await engine.write(partial(_fill_some, engine, queue, topic, stop))
        queue.caught_up = False
        queue.wake()


def _fill_some(engine: "Engine", queue: Queue, topic: Topic, stop: int, batch: Batch) -> None:
    start, end = queue.row.filled or 0, 0
    if queue.row.filled is None or queue.gone:
        return
    for chunk in batch.store.chunks(topic.row.id, start, 32):
        end = chunk.first + chunk.count
        rows = batch.store.backlog(queue.row.id, chunk.first, 1)
        if rows and rows[0][0] == chunk.first:
            continue  # routed since it was published
        masks: dict[Any, int] = engine.masks(topic, chunk, engine.records(chunk), start)
        mask = masks.get(queue, 0)
        if mask:
            batch.store.queue(queue.row.id, chunk.first, chunk.at, mask)
            batch.count(queue)[0] += mask.bit_count()
    filled = None if end == 0 or end >= stop else end
    batch.store.run("UPDATE sub SET filled = ? WHERE id = ?", filled, queue.row.id)
    batch.after.append(lambda: setattr(queue.row, "filled", filled))
