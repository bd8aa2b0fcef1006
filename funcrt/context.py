"""What a handler receives beside its event, and what it may raise."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from funcrt.errors import SecretUnknown
from funcrt.ids import cause, derived_id
from funcrt.paths import converted
from funcrt.sandbox.protocol import Call
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

    __slots__ = ("_id", "_write")

    def __init__(self, call: int, write: Callable[[int, str, str], None]) -> None:
        self._id = call
        self._write = write

    def _say(self, level: str, message: object, arguments: tuple[Any, ...]) -> None:
        text = str(message)
        if arguments:
            try:
                text = text % arguments
            except (TypeError, ValueError):
                text = f"{text} {arguments!r}"
        self._write(self._id, level, text)

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
    """One call. `id` is its number in the host."""

    __slots__ = (
        "_call", "_deadline", "_emitted", "_http", "_now", "_secrets", "attempt", "env", "id",
        "log", "max_attempts", "resources", "trigger",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        env: Mapping[str, str],
        write: Callable[[int, str, str], None],
        now: Callable[[], float] = time.monotonic,
        resources: Any = None,
        *,
        secrets: Mapping[str, str] = {},
    ) -> None:
        self._call = call
        self._http: tuple[Any, Any] = ({}, None)
        self._secrets = secrets
        self.resources = resources
        self._now = now
        self.id = call.id
        self.trigger = call.trigger
        self.attempt = call.attempt
        self.max_attempts = call.max_attempts
        self.env = env
        self.log = FunctionLog(call.id, write)
        self._deadline = now() + call.timeout_s if call.timeout_s else None
        self._emitted: list[tuple[Event, str]] = []

    @property
    def idempotency_keys(self) -> list[str]:
        """One an event: the same in every attempt at it, another for a replay."""
        call = self._call
        replays = call.replays or [""] * len(call.events)
        return [
            derived_id(cause(call.scope, event.source, event.id, replay))
            for event, replay in zip(call.events, replays, strict=True)
        ]

    @property
    def idempotency_key(self) -> str:
        """The key of the event; of a batch, of its first."""
        return self.idempotency_keys[0]

    def secret(self, name: str) -> str:
        """The value of a secret that `[secrets]` of the manifest declares, for this instance. It is
        in no environment variable, and is taken out of lines and failures. Raises SecretUnknown."""
        try:
            return self._secrets[name]
        except KeyError:
            raise SecretUnknown(name, list(self._secrets)) from None

    @property
    def path_params(self) -> dict[str, Any]:
        """The parameters in the path of the HTTP trigger, e.g. `{"id": 17}` of `/orders/{id:int}`;
        empty for what came by any other way."""
        http = self._call.http
        return converted(http.params) if http is not None else {}

    def remaining(self) -> float | None:
        """Seconds until the call's time is over; None where it has no timeout."""
        return None if self._deadline is None else max(self._deadline - self._now(), 0.0)

    def emit(self, event: Event, *, topic: str = "") -> None:
        """Publish one more event when the call succeeds: to the manifest's output topic, or to
        one of its `topics`. Its empty id and source are filled in."""
        self._emitted.append((event, topic))
