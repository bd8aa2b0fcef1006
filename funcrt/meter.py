"""What a function did lately: counts, and how long events waited and calls ran.

A call costs two additions to histograms whose buckets grow by an eighth of a power of two
(HdrHistogram's), so that a percentile is right to 6 %. Counts cost nothing: time is cut into slots
of ten seconds, each of which knows the totals at its beginning.
"""

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from funcrt.sandbox import Usage
from funcrt.sandbox.protocol import LIMITS

__all__ = ["WINDOWS_S", "Meter", "Percentiles", "Window"]

SLOT_S = 10.0
WINDOWS_S = (60.0, 300.0)
SLOTS = int(max(WINDOWS_S) / SLOT_S) + 1


class Percentiles(msgspec.Struct, frozen=True):
    """Of durations, in milliseconds; None where there was none."""

    p50: float | None
    p99: float | None


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in the last `seconds`, up to ten more."""

    seconds: float
    """How long it is: less where the host, or the function in it, is younger."""
    done: int
    failed: int
    """Attempts that failed."""
    dead: int
    outputs: int
    per_s: float
    """Events and attempts that ended, a second."""
    error_pct: float | None
    """Failed attempts of those; None where nothing ended."""
    run_ms: Percentiles
    """Of calls, as their instances measured them."""
    wait_ms: Percentiles
    """From an event's being stored to its call: of first attempts, without replays."""


class _Slot:
    __slots__ = ("runs", "start", "totals", "waits")

    def __init__(self, start: float, totals: tuple[int, int, int, int]) -> None:
        self.start = start
        self.totals = totals
        self.runs: dict[int, int] = {}
        self.waits: dict[int, int] = {}


class Meter:
    """One function's, over all its versions. Moments are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.done = self.failed = self.dead = self.outputs = self.deduplicated = 0
        """Since the host started; `failed` counts attempts."""
        self.limited: dict[str, int] = {}
        """Calls that were over each limit."""
        self.cpu_s = 0.0
        """Of instances that have ended."""
        self.peak_bytes = 0
        self._slots: deque[_Slot] = deque(maxlen=SLOTS)
        self._turn(now)

    def _turn(self, now: float) -> None:
        """Begin a slot."""
        slot = _Slot(now, (self.done, self.failed, self.dead, self.outputs))
        self._slots.append(slot)
        self._runs, self._waits = slot.runs, slot.waits
        self._until = now + SLOT_S

    def over(self, limit: str) -> None:
        """A call was over a limit: one of those there are, for an instance may say anything."""
        if limit in LIMITS:
            self.limited[limit] = self.limited.get(limit, 0) + 1

    def used(self, usage: Usage) -> None:
        """An instance has ended."""
        self.cpu_s += usage.cpu_s or 0.0
        self.peak_bytes = max(self.peak_bytes, usage.peak_bytes or 0)

    def ran(self, now: float, took_us: int) -> None:
        """A call ended after so many microseconds."""
        if now >= self._until:
            self._turn(now)
        if took_us < 16:
            at = took_us if took_us > 0 else 0
        else:
            shift = took_us.bit_length() - 4
            at = (shift << 3) + (took_us >> shift)
        runs = self._runs
        runs[at] = runs.get(at, 0) + 1

    def waited(self, us: int) -> None:
        """The event of the call that `ran` was told of had waited so long."""
        if us < 16:
            at = us if us > 0 else 0
        else:
            shift = us.bit_length() - 4
            at = (shift << 3) + (us >> shift)
        waits = self._waits
        waits[at] = waits.get(at, 0) + 1

    def window(self, now: float, seconds: float) -> Window:
        """The last so many seconds."""
        if now >= self._until:
            self._turn(now)
        slots = [slot for slot in self._slots if slot.start > now - seconds - SLOT_S]
        first = slots[0]
        totals = (self.done, self.failed, self.dead, self.outputs)
        done, failed, dead, outputs = (a - b for a, b in zip(totals, first.totals, strict=True))
        length = max(now - first.start, 1e-3)
        ended = done + failed
        return Window(
            seconds=round(length, 1),
            done=done,
            failed=failed,
            dead=dead,
            outputs=outputs,
            per_s=round(ended / max(length, 1.0), 2),
            error_pct=round(100 * failed / ended, 2) if ended else None,
            run_ms=_percentiles(slot.runs for slot in slots),
            wait_ms=_percentiles(slot.waits for slot in slots),
        )


def _percentiles(several: Iterable[Mapping[int, int]]) -> Percentiles:
    counts: dict[int, int] = {}
    for each in several:
        for at, count in each.items():
            counts[at] = counts.get(at, 0) + count
    return Percentiles(_percentile(counts, 0.5), _percentile(counts, 0.99))


def _percentile(counts: Mapping[int, int], part: float) -> float | None:
    """The middle of the bucket with the value that `part` of all are not above."""
    left = part * sum(counts.values())
    for at in sorted(counts):
        left -= counts[at]
        if left <= 0:
            shift = max((at >> 3) - 1, 0)
            low = (at - (shift << 3)) << shift
            return round((low + ((1 << shift) - 1) / 2) / 1000, 4)
    return None
