"""What `funcrt dev` prints: a line an event, why a call failed, what a change led to."""

import asyncio
import logging
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from funcrt.api import Reply
from funcrt.dev.reload import Folder
from funcrt.errors import FunctionsRefused, LoadError
from funcrt.function import Function
from funcrt.logs import OneLine
from funcrt.observer import Sent
from funcrt.sandbox.protocol import Failure, Result
from funcrt.text import installed, safe, several
from mesh.event import Event
from mesh.transport import Dead, Output, Retry, Settled, Settlement

__all__ = ["GREEN", "YELLOW", "FunctionLog", "HostLog", "Screen", "frames", "named"]

LEAST = 20
"""Characters that a terminal shows of a text, however narrow it is."""
LISTED = 2
"""Outputs of a call that its line names."""
LINES_A_SECOND = 50
"""Of calls that ended well; beyond it they are counted."""
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_FRAME = re.compile(r'  File "([^"]+)", line (\d+), in (.+)')
RED, DIM, PLAIN = "\x1b[31m", "\x1b[2m", "\x1b[0m"
GREEN = "\x1b[32m"
YELLOW = "\x1b[33m"


class Screen:
    """Standard output. Lines come as things happen; `status` stays below them on a terminal."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.interactive = self.terminal and sys.stdin.isatty()
        self.coloured = self.terminal and "NO_COLOR" not in os.environ
        self.status = ""
        self._paused: list[str] | None = None
        """Lines that wait while a function has the terminal."""
        self.logs = True
        """Whether what functions print is shown."""
        self.hidden = 0
        """Lines of functions that were not shown."""
        self.dead = 0
        """Dead letters that were seen to be made, and not replayed since."""
        self.changed: Callable[[], None] = lambda: None
        """Called where what the status line tells may be another."""
        self.shown: dict[str, Path] = {}
        """Function -> its folder, as messages name it."""
        self.took: dict[str, float] = {}
        """Function -> how long its first version took to be in service, in milliseconds."""
        self.last: tuple[str, Event] | None = None
        """The function and the event of the call that ended last."""
        self.begun = False
        """Whether the functions that were there at the start have been told."""
        self._second = 0
        self._lines = 0
        self._more: Counter[str] = Counter()
        self._traces: dict[tuple[str, str], str] = {}

    # Lines

    def line(self, text: str) -> None:
        """One line or more, above the status line."""
        if self._paused is not None:
            self._paused.append(text)
            return
        if not self.status:
            sys.stdout.write(f"{text}\n")
        else:
            sys.stdout.write(f"\r\x1b[K{text}\n{self._bottom()}")
        sys.stdout.flush()

    def set_status(self, text: str) -> None:
        """The line that stays at the bottom; empty for none. Only on a terminal."""
        if self._paused is not None:
            self.status = text
        elif self.terminal and text != self.status:
            self.status = text
            sys.stdout.write(f"\r\x1b[K{self._bottom()}")
            sys.stdout.flush()

    def _bottom(self) -> str:
        """The status, as far as there is room: a line that wraps could not be wiped."""
        return self.status[: shutil.get_terminal_size().columns - 1]

    def pause(self) -> None:
        """Leave the terminal to somebody else."""
        sys.stdout.write("\r\x1b[K")
        sys.stdout.flush()
        self._paused = []

    def resume(self) -> None:
        """Say what waited."""
        lines, self._paused = self._paused or [], None
        sys.stdout.write(self._bottom())
        for text in lines:
            self.line(text)
        sys.stdout.flush()

    def cut(self, text: str, beside: int) -> str:
        """As much of it as a terminal's line has room for beside so many characters."""
        room = max(shutil.get_terminal_size().columns - beside, LEAST)
        return f"{text[: room - 1]}…" if self.terminal and len(text) > room else text

    def now(self, text: str) -> None:
        """A line with the time of day."""
        self.line(f"{self.paint(DIM, time.strftime('%H:%M:%S'))}  {text}")

    def installing(self, function: str, packages: Sequence[str], took_s: float | None) -> None:
        """What a function needs is being installed, or was."""
        if took_s is None:
            self.now(f"{function}  deps {several(packages)} …")
        elif self.begun:
            self.now(f"{function}  deps {installed(packages, took_s)}")

    def paint(self, colour: str, text: str) -> str:
        """Coloured, on a terminal that may have colours."""
        return f"{colour}{text}{PLAIN}" if self.coloured else text

    # Calls (funcrt.observer.Observer)

    def settled(
        self, function: Function, result: Result, settlement: Settlement, sent: Sent
    ) -> None:
        """As the observer says."""
        self.last = function.name, settlement.settled[-1].delivery.event
        bad = [s for s in settlement.settled if isinstance(s.outcome, Retry | Dead)]
        good = [s.delivery.event for s in settlement.settled if s not in bad] if bad else [
            s.delivery.event for s in settlement.settled
        ]  # fmt: skip
        if good:
            self._ended_well(function, good, settlement.outputs, result.took_us, sent)
            for event in good:
                self._traces.pop((function.name, event.id), None)
        for index, one in enumerate(settlement.settled):
            if one in bad:
                items = result.items or ()
                why = items[index].failure if index < len(items) else result.failure
                self._failed(function, one, why, sent)

    def deduplicated(self, function: Function, event: Event) -> None:
        """As the observer says."""
        self.last = function.name, event
        if self._room():
            self.now(f"{named(event)} → {function.name} {self.paint(DIM, '=')} deduplicated")
        else:
            self._more[function.name] += 1

    def called(
        self, function: Function, event: Event, reply: Reply, took_us: int, sent: Sent
    ) -> None:
        """As the observer says."""
        self.last = function.name, event
        if reply.status == "ok":
            outputs = [Output("", each) for each in reply.outputs]
            self._ended_well(function, [event], outputs, took_us, sent)
            return
        self.now(f"{named(event)} → {function.name} {self.paint(RED, '✗')} {reply.status}"
                 f"{_after(sent)}, told to its caller")  # fmt: skip
        self._trace(function, event, reply.failure)

    def _ended_well(
        self,
        function: Function,
        events: Sequence[Event],
        outputs: Sequence[Output],
        took_us: int,
        sent: Sent,
    ) -> None:
        if not self._room():
            self._more[function.name] += len(events)
            return
        first = named(events[0])
        many = f"{len(events)} events, the first {first}" if len(events) > 1 else first
        listed = [*sent.first, *outputs][:LISTED]
        made = ", ".join(_output(each) for each in listed) or (str(sent.status or ""))
        if more := sent.count + len(outputs) - len(listed):
            made += f" and {more} more"
        arrow = f" → {made}" if made else ""
        self.now(f"{many} → {function.name} {self.paint(GREEN, '✓')} {_ms(took_us)}{arrow}")

    def _failed(self, function: Function, one: Settled, why: Failure | None, sent: Sent) -> None:
        event, outcome = one.delivery.event, one.outcome
        if isinstance(outcome, Retry):
            then = f"next in {outcome.after_s:.1f} s"
        elif function.manifest.dlq is None:
            then = "dropped: dlq = false"
        else:
            then = "now a dead letter"
        attempt = f"attempt {one.delivery.attempt} of {function.manifest.retry.attempts}"
        mark = self.paint(RED, "✗")
        self.now(f"{named(event)} → {function.name} {mark} {attempt}{_after(sent)}, {then}")
        if why is None and isinstance(outcome, Retry | Dead):
            said = outcome.error if isinstance(outcome, Retry) else outcome.reason
            why = Failure(*said.partition(": ")[::2])
        self._trace(function, event, why)
        if isinstance(outcome, Dead) and function.manifest.dlq is not None:
            self.line(f"  again: funcrt dlq replay {function.name} --all")
            self.dead += 1
            self.changed()

    def _trace(self, function: Function, event: Event, why: Failure | None) -> None:
        if why is None:
            return
        text = why.traceback or f"{why.error}: {why.message}"
        key = function.name, event.id
        if self._traces.get(key) == text:
            self.line(f"  {safe(text.splitlines()[-1])} (as before)")
            return
        self._traces[key] = text
        if len(self._traces) > 1000:
            del self._traces[next(iter(self._traces))]
        for each in frames(text, self.shown.get(function.name, Path(function.name))):
            self.line(each)

    def _room(self) -> bool:
        """Whether this second has room for a line more."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > LINES_A_SECOND and not self._more:
            asyncio.get_running_loop().call_later(1.0, self._tell_more)
        return self._lines <= LINES_A_SECOND

    def _tell_more(self) -> None:
        for name, count in self._more.items():
            self.now(f"… {count} more → {name} {self.paint(GREEN, '✓')}")
        self._more.clear()

    # Changes (funcrt.dev.reload.Reloads)

    def reloaded(self, folder: Folder, files: Sequence[str], ms: float, in_flight: int) -> None:
        """As the reloader says."""
        assert folder.function is not None
        name = folder.function.name
        self.shown[name] = folder.shown
        if folder.number == 1:
            self.took[name] = ms
            if self.begun:
                self.now(f"found {folder.shown} → {name} in service after {ms:.0f} ms")
            return
        told = f"v{folder.number}"
        if in_flight:
            end = "ends" if in_flight == 1 else "end"
            told += f"; {in_flight} in flight {end} on v{folder.number - 1}"
        reloaded = self.paint(GREEN, "reloaded")
        self.now(f"{_changed(folder, files)} → {reloaded} in {ms:.0f} ms ({told})")

    def mended(self, folder: Folder, files: Sequence[str]) -> None:
        """As the reloader says."""
        self.now(f"{_changed(folder, files)} → v{folder.number} as before")

    def broken(self, folder: Folder, files: Sequence[str], error: Exception) -> None:
        """As the reloader says."""
        still = f"still serving v{folder.number}" if folder.number else "not in service"
        what = _changed(folder, files) if self.begun else str(folder.shown)
        self.now(f"{what} → {self.paint(RED, '✗')} {still}")
        errors = error.errors if isinstance(error, FunctionsRefused) else [error]
        for each in errors:
            if isinstance(each, LoadError):
                self.line(f"  {safe(str(each.problem))}")
                for one in each.traceback.splitlines()[:40]:
                    self.line(f"  {safe(_frame(one))}")
            else:
                for one in str(each).splitlines():
                    self.line(f"  {safe(one)}")

    def removed(self, folder: Folder, waiting: int) -> None:
        """As the reloader says."""
        assert folder.function is not None
        self.now(f"removed {folder.shown} → {folder.function.name} is out of service")
        if folder.function.mesh_triggers:
            many = {0: "none waits", 1: "1 waits"}.get(waiting, f"{waiting} wait")
            self.line(f"  its queue takes events until it is back; {many} now")


class FunctionLog(logging.Handler):
    """What functions print and log, on the screen."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.INFO)
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """logging's own."""
        name = record.name.rpartition(".")[2]
        lines = record.getMessage().splitlines()
        if not self.screen.logs:
            self.screen.hidden += len(lines)
            return
        for text in lines:
            self.screen.now(f"  {self.screen.paint(DIM, f'{name}:')} {safe(text)}")


class HostLog(logging.Handler):
    """The host's own log, on the screen."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self.screen = screen
        self.setFormatter(OneLine("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """logging's own."""
        self.screen.now(self.format(record))


def frames(traceback: str, folder: Path) -> list[str]:
    """A traceback's lines, each frame as `folder/main.py:14 in handler`."""
    return [f"  {safe(_frame(line, folder))}" for line in traceback.splitlines()[:40]]


def _frame(line: str, folder: Path | None = None) -> str:
    found = _FRAME.fullmatch(line)
    if found is None:
        return line
    file = found[1] if folder is None else folder / found[1]
    return f"{file}:{found[2]} in {found[3]}"


def _changed(folder: Folder, files: Sequence[str]) -> str:
    if not files:  # it is something beside it, which the message names
        return safe(str(folder.shown))
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return safe(f"changed {folder.shown / files[0]}{more}")


def named(event: Event) -> str:
    """An event in a line: its type, and its id where that is short."""
    return safe(f"{event.type} {_short(event.id)}")


def _after(sent: Sent) -> str:
    if not sent.count:
        return ""
    return f" after {sent.count} output{'s' if sent.count > 1 else ''}"


def _output(output: Output) -> str:
    topic = f" ({output.topic})" if output.topic else ""
    return safe(f"{output.event.type} {_short(output.event.id)}") + topic


def _short(id_: str) -> str:
    if _UUID.fullmatch(id_):
        return id_[:8]
    return id_ if len(id_) <= 32 else f"{id_[:31]}…"


def _ms(took_us: int) -> str:
    if took_us < 10_000:
        return f"{took_us / 1000:.1f} ms"
    return f"{took_us / 1000:.0f} ms" if took_us < 1_000_000 else f"{took_us / 1e6:.1f} s"
