"""The keys of `funcrt dev` on a terminal."""

import asyncio
import os
import sys
import termios
import tty
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from funcrt.dev.reload import Reloader
from funcrt.dev.seen import Seen
from funcrt.dev.show import Screen
from funcrt.errors import FuncrtError
from funcrt.manifest import MeshTrigger
from funcrt.tasks import Tasks
from funcrt.text import safe
from mesh.errors import MeshError
from mesh.event import Event

__all__ = ["Keys"]

CHOICES = "123456789abceghijkmnotuvwxyz"
"""Keys that choose a sample: none that means something else."""
MOST_LETTERS = 5
HELP = (
    "s  send a sample of events/; the key before it chooses where there are several",
    "r  call the last function once more on its last event",
    "d  show dead letters; D replays all of them",
    "l  hide or show what functions print",
    "p  pause all functions, or let them go on",
    "f  which functions take the last event published, and why others do not",
    "q  quit, as Ctrl-C does",
)


class Keys:
    """What each key does; `stop` ends the run."""

    def __init__(
        self, reloader: Reloader, screen: Screen, seen: Seen, stop: Callable[[], None]
    ) -> None:
        self.reloader = reloader
        self.host = host = reloader.host
        self.screen = screen
        self.seen = seen
        self.stop = stop
        self._choice: list[tuple[str, list[Event]]] = []
        """Samples that the next digit chooses from."""
        self._before: Any = None
        """How the terminal was found, while keys are taken."""
        self._tasks = Tasks(host.failed)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Take keys while this lasts, and leave the terminal as it was. Nothing where standard
        input or output is no terminal."""
        if not self.screen.interactive:
            yield
            return
        self._before = termios.tcgetattr(sys.stdin.fileno())
        self.resume()
        self.screen.changed = self.tell
        self.tell()
        try:
            yield
        finally:
            self.screen.changed = lambda: None
            self.pause()
            self._before = None
            self.screen.set_status("")

    def pause(self) -> None:
        """Take no keys, and leave the terminal as it was found."""
        if self._before is not None:
            fd = sys.stdin.fileno()
            asyncio.get_running_loop().remove_reader(fd)
            termios.tcsetattr(fd, termios.TCSADRAIN, self._before)

    def resume(self) -> None:
        """Take keys again."""
        if self._before is not None:
            fd = sys.stdin.fileno()
            tty.setcbreak(fd)
            asyncio.get_running_loop().add_reader(fd, self._readable)

    def tell(self) -> None:
        """The line at the bottom."""
        count = f" {self.screen.dead}" if self.screen.dead else ""
        logs = "[l]ogs" if self.screen.logs else "[l]ogs off"
        pause = "[p]aused" if self.reloader.paused else "[p]ause"
        self.screen.set_status(
            f"[s]end  [r]eplay  [d]lq{count}  {logs}  {pause}  [f]ilter why  [?]  [q]uit "
        )

    def _readable(self) -> None:
        keys = os.read(sys.stdin.fileno(), 64)
        if not keys:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        for key in keys.decode(errors="replace"):
            self.press(key)

    def press(self, key: str) -> None:
        """Do what a key is for; others do nothing."""
        choice, self._choice = self._choice, []
        if key == "q":
            self.stop()
        elif key == "s":
            self._offer()
        elif key in CHOICES[: len(choice)]:
            self._tasks.start(self._send(*choice[CHOICES.index(key)]), "send a sample")
        elif key == "r":
            self._tasks.start(self._again(), "replay")
        elif key == "d":
            self._tasks.start(self._letters(), "dead letters")
        elif key == "D":
            self._tasks.start(self._redrive(), "redrive")
        elif key == "l":
            self._toggle_logs()
        elif key == "p":
            self._tasks.start(self._toggle_pause(), "pause")
        elif key == "f":
            self._tasks.start(self._why(), "filter why")
        elif key == "?":
            for text in HELP:
                self.screen.line(f"  {text}")

    async def close(self) -> None:
        """What keys have begun is over."""
        await self._tasks.cancel()

    def _toggle_logs(self) -> None:
        screen = self.screen
        screen.logs = not screen.logs
        if screen.logs:
            screen.now(f"functions' lines are shown; {screen.hidden} were not")
        else:
            screen.now("functions' lines are not shown; funcrt logs NAME has them")
        screen.hidden = 0
        self.tell()

    async def _toggle_pause(self) -> None:
        if self.reloader.paused:
            await self.reloader.resume()
            self.screen.now("going on")
        else:
            await self.reloader.pause()
            self.screen.now("paused: what runs finishes, events wait, calls over HTTP get 503")
        self.tell()

    def _offer(self) -> None:
        from funcrt.testing.samples import SampleInvalid, read_samples, sample_files

        found = []
        for name in sorted(self.host.deployed):
            for file in sample_files(self.screen.shown[name]):
                try:
                    found += [(name, sample) for sample in read_samples(file)]
                except SampleInvalid as error:
                    self.screen.line(f"  {safe(str(error))}")
        if not found:
            self.screen.line("  no sample yet; save an event as events/NAME.json of a function")
        elif len(found) == 1:
            self._tasks.start(self._send(found[0][0], found[0][1].events), "send a sample")
        else:
            for key, (name, sample) in zip(CHOICES, found, strict=False):
                self._choice.append((name, sample.events))
                self.screen.line(f"  {key}  {name}: {safe(sample.name)}")
            if len(found) > len(CHOICES):
                more = f"and {len(found) - len(CHOICES)} more: funcrt invoke NAME --sample SAMPLE"
                self.screen.line(f"  {more} --remote")

    async def _send(self, name: str, given: list[Event]) -> None:
        """To the topic of the function's first mesh trigger; else call it. Under new ids: the
        second time they would pass for duplicates."""
        events = [msgspec.structs.replace(event, id=str(uuid.uuid4())) for event in given]
        try:
            function = self.host.deployed[name]
            mesh = [t for t in function.manifest.triggers if isinstance(t, MeshTrigger)]
            if not mesh:
                for event in events:
                    await self._call(name, event)
                return
            for receipt in await self.host.publish(mesh[0].topic, events):
                if receipt.status != "stored":
                    self.screen.line(f"  {receipt.status}: {safe(receipt.reason)}")
        except (FuncrtError, MeshError) as error:
            self.screen.line(f"  {safe(str(error))}")

    async def _call(self, name: str, event: Event) -> None:
        """What comes of it is shown as of any call. Raises FuncrtError."""
        answer = None if self.host.kind(name) == "event" else Unread()
        await self.host.call(name, event, answer=answer)

    async def _again(self) -> None:
        """Call the last function on the last event, once: no retry, no dead letter, and outputs
        that are there already stay as they are."""
        if self.screen.last is None:
            self.screen.line("  no event yet")
            return
        name, event = self.screen.last
        try:
            await self._call(name, event)
        except FuncrtError as error:
            self.screen.line(f"  {safe(str(error))}")

    async def _why(self) -> None:
        try:
            told = await self.seen.why()
        except MeshError as error:
            told = [safe(str(error))]
        for text in told:
            self.screen.line(f"  {text}")

    async def _letters(self) -> None:
        count = 0
        for name in sorted(self.host.deployed):
            for letter in await self.host.dead_letters(name, limit=MOST_LETTERS):
                count += 1
                text = f"{name} {letter.id}: {letter.event.type} {letter.event.id}: {letter.reason}"
                self.screen.line(f"  {safe(text)}")
        self.screen.line("  [D] replays all of them" if count else "  no dead letter")
        self.screen.dead = max(self.screen.dead, count)
        self.tell()

    async def _redrive(self) -> None:
        for name in sorted(self.host.deployed):
            if count := await self.host.redrive(name, None):
                self.screen.line(f"  {name}: {count} replayed")
        self.screen.dead = 0
        self.tell()


class Unread:
    """An Answer that nobody reads: what the call publishes is durable, and its line tells of it."""

    async def head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """As Answer says."""

    async def chunk(self, body: bytes, more: bool) -> None:
        """As Answer says."""

    async def items(self, events: Sequence[Event]) -> None:
        """As Answer says."""
