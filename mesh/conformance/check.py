"""What a check is, and how checks are chosen by a transport's features."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

import msgspec

from mesh.conformance.stage import Maker, Stage, Unmet
from mesh.transport import Features

__all__ = ["ABILITIES", "REFUSABLE", "Check", "ConformanceError", "check", "chosen"]

Body = Callable[[Stage], Awaitable[None]]

ABILITIES = {
    "crash": "the maker cannot end a transport as a kill would",
    "connect": "the maker cannot open a second connection beside an open one",
    "full": "the maker cannot make the store full",
    "step_wall": "the maker cannot move the wall clock alone",
    "retention_s": "the maker does not take the option retention_s",
}
"""What a maker may be able to do beside opening -> why a check is left out where it is not."""


REFUSABLE = ("broadcast", "idempotency", "order_key", "queue_cap", "replay", "request", "state")
"""Features that a transport without them must refuse by name, never ignore."""


class ConformanceError(AssertionError):
    """A transport does not keep the contract: what was promised, and what was seen."""

    def __init__(self, check: "Check", seen: str) -> None:
        self.check = check
        self.seen = seen
        super().__init__(f"{check.name}\n  promised: {check.promise}\n  seen: {seen}")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One promise of the contract, and how it is tried."""

    name: str
    promise: str
    """What must hold, with its G-number where it has one."""
    body: Body
    features: Features
    left_out: str = ""
    """Why it is not run on a transport of these features; empty where it is."""

    async def run(self, maker: Maker) -> None:
        """Try it on a fresh store. Raises ConformanceError where the promise is not kept."""
        if self.left_out:
            raise ValueError(f"{self.name} is left out: {self.left_out}")
        stage = Stage(maker, self.features)
        try:
            async with asyncio.timeout(maker.limit_s) as limit:
                await self.body(stage)
        except Unmet as error:
            raise ConformanceError(self, str(error)) from None
        except TimeoutError as error:
            late = f"no end within {maker.limit_s} s"
            if not limit.expired():
                late = f"nothing within {maker.patience_s} s, where something must come"
            raise ConformanceError(self, late) from error
        except Exception as error:
            raise ConformanceError(self, f"{type(error).__name__}: {error}") from error
        finally:
            await stage.close()


class _Known(msgspec.Struct, frozen=True):
    body: Body
    needs: tuple[str, ...]
    can: tuple[str, ...]


_KNOWN: list[_Known] = []


def check(*needs: str, can: Collection[str] = ()) -> Callable[[Body], Body]:
    """Register a check that needs these features, and a maker that can do these things. The need
    `lacks` is met by a transport that lacks any of REFUSABLE."""
    unknown = [need for need in needs if need not in (*Features.__struct_fields__, "lacks")]
    unknown += [ability for ability in can if ability not in ABILITIES]
    if unknown:
        raise TypeError(f"no feature or ability is named {unknown[0]!r}")

    def register(body: Body) -> Body:
        _KNOWN.append(_Known(body, needs, tuple(can)))
        return body

    return register


def chosen(features: Features, can: Collection[str]) -> list[Check]:
    """Every check, each with the reason why it is left out, if it is."""
    found = []
    for known in _KNOWN:
        name = getattr(known.body, "__name__", "")
        found.append(
            Check(
                name=name,
                promise=" ".join((known.body.__doc__ or "").split()),
                body=known.body,
                features=features,
                left_out=_left_out(known, features, can),
            )
        )
    return found


def _left_out(known: _Known, features: Features, can: Collection[str]) -> str:
    for need in known.needs:
        if need == "lacks":
            if all(getattr(features, name) for name in REFUSABLE):
                return f"{features.name} lacks nothing that could be refused"
        elif not _has(features, need):
            return f"{features.name} does not have {need} (features.{need})"
    for ability in known.can:
        if ability == "crash" and not features.survives_restart:
            return f"{features.name} does not survive a restart (features.survives_restart)"
        if ability not in can:
            return ABILITIES[ability]
    return ""


def _has(features: Features, need: str) -> bool:
    value = getattr(features, need)
    return value != "unknown" if isinstance(value, str) else bool(value)
