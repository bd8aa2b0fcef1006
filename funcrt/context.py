"""What a handler receives beside its event, and what it may raise."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from mesh.event import Event

__all__ = ["Context", "Failed", "FunctionLog", "Reject", "Retry"]


class Retry(Exception):
    """Raise to be called again with the same event, after `after` seconds where given; it uses up
    an attempt like any failure."""

    def __init__(self, reason: str = "", *, after: float | None = None) -> None:
        self.after = after
        super().__init__(reason or "the handler asked to be tried again")


class Reject(Exception):
    """Raise for an event that no attempt will mend: it becomes a dead letter now."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class Failed:
    """In the list that a batch handler returns: this item failed."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class FunctionLog:
    """`ctx.log`: lines that carry the call's id. Arguments are formatted as `logging` does."""

    __slots__ = ("_write",)

    def __init__(self, write: Callable[[str, str], None]) -> None:
        self._write = write

    def _say(self, level: str, message: object, arguments: tuple[Any, ...]) -> None:
        text = str(message)
        if arguments:
            try:
                text = text % arguments
            except (TypeError, ValueError):
                text = f"{text} {arguments!r}"
        self._write(level, text)

    def debug(self, message: object, *arguments: Any) -> None:
        """A line at level debug."""
        self._say("debug", message, arguments)

    def info(self, message: object, *arguments: Any) -> None:
        """A line at level info."""
        self._say("info", message, arguments)

    def warning(self, message: object, *arguments: Any) -> None:
        """A line at level warning."""
        self._say("warning", message, arguments)

    def error(self, message: object, *arguments: Any) -> None:
        """A line at level error."""
        self._say("error", message, arguments)


class Context:
    """One call. `id` is the call's number in its instance; `idempotency_key` is the same in every
    attempt at the same event (of a batch: of its first)."""

    __slots__ = (
        "_deadline", "_emitted", "attempt", "env", "id", "idempotency_key", "idempotency_keys",
        "log", "max_attempts", "trigger",
    )  # fmt: skip

    def __init__(
        self,
        *,
        id: int,
        trigger: str,
        attempt: int,
        max_attempts: int,
        timeout_s: float,
        idempotency_keys: list[str],
        env: Mapping[str, str],
        write: Callable[[str, str], None],
    ) -> None:
        self.id = id
        self.trigger = trigger
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.idempotency_keys = idempotency_keys
        self.idempotency_key = idempotency_keys[0] if idempotency_keys else ""
        self.env = env
        self.log = FunctionLog(write)
        self._deadline = time.monotonic() + timeout_s if timeout_s else None
        self._emitted: list[tuple[Event, str]] = []

    def remaining(self) -> float | None:
        """Seconds until the call's time is over; None where it has no timeout."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def emit(self, event: Event, *, topic: str = "") -> None:
        """Publish one more event when the call succeeds: to the manifest's output topic, or to
        one of its `topics`. Its empty id and source are filled in."""
        self._emitted.append((event, topic))
