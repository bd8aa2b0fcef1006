"""R, the runtime zygote: a clean process with the worker's modules imported and no author's code.

It forks each function's zygote into what confines it, and takes no other commands than those here.
Where the host is root, or was when it started, this is what keeps the right to confine. A host that
is root no more may have been taken over: nothing that it asks gives it what it has not.
"""

import contextlib
import itertools
import os
import resource
import signal
import socket
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec

from funcrt.sandbox import kernel
from funcrt.sandbox.claims import Claims, Kind
from funcrt.sandbox.confine import Confinement, Refused, bounds_of, enter, fork, has_unix, step
from funcrt.sandbox.forking import Forked, child, heard, introduce, serve, tell
from funcrt.sandbox.groups import KEPT_S, Bounds, Group, Groups
from funcrt.sandbox.handed import hand_over
from funcrt.sandbox.installing import Hand, Install, hand, install
from funcrt.sandbox.interpreter import Interpreter
from funcrt.sandbox.probe import tried
from funcrt.sandbox.supervisor import supervise
from funcrt.sandbox.told import is_below, pid_of
from funcrt.sandbox.users import user_of
from funcrt.sandbox.view import runtime_paths
from funcrt.sandbox.zygote import asked_for, begin
from funcrt.tree import held_anew, remove, unheld

__all__ = ["Ask", "Claim", "Fork", "Gone", "Kill", "Place", "Probe", "runtime"]

TMP = "funcrt-private-"
Name = Annotated[str, msgspec.Meta(pattern=r"^instance-[0-9]{1,12}\Z")]
"""Of a group: a path would lead out of where they are made."""


class Fork(msgspec.Struct, frozen=True, tag="fork"):
    """A function's zygote. What it is to load it is told on its own socket, the first descriptor:
    what R has in its memory, such as somebody's environment, every function has in its own."""

    confine: Confinement
    python: Interpreter | None = None
    """What it runs in; None for the Python of R."""
    installs: bool = False
    """It is to be told of an installation instead."""


class Probe(msgspec.Struct, frozen=True, tag="probe"):
    """Whether a level can be had, by entering it, or each primitive."""

    confine: Confinement
    primitives: bool = False


class Claim(msgspec.Struct, frozen=True, tag="claim"):
    """An id of a user that no other host has. It stays this host's."""

    kind: Kind


class Kill(msgspec.Struct, frozen=True, tag="kill"):
    """End the process whose descriptor comes with it: the host may have no right to. It is one of
    those that this has forked, or one below them."""


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """A group for an instance, under a name of the host's."""

    name: Name
    bounds: Bounds


class Place(msgspec.Struct, frozen=True, tag="place"):
    """Put the process whose descriptor comes with it into a group."""

    name: str


class Gone(msgspec.Struct, frozen=True, tag="gone"):
    """The group's instance has ended: remove it."""

    name: str


def runtime(fd: int, host: int, *, grouped: bool = True) -> None:
    """R's life, on the control socket `fd`, for as long as the process `host` lives; with control
    groups, where this machine gives any, only if `grouped`."""
    os.setsid()
    os.umask(0o022)  # others are to enter what it makes for them
    watch = os.pidfd_open(host)  # and not by a signal: there is something to be done then
    if os.getppid() != host:
        return
    kernel.adopt_orphans()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    own = _Runtime(grouped, host)
    serve(socket.socket(fileno=fd), own.answer, host=watch)
    own.room.close()
    own.groups.close()


class _Runtime:
    def __init__(self, grouped: bool, host: int) -> None:
        self.host = host
        root = str(Path(__file__).parents[2])
        self.paths = tuple(runtime_paths(root))
        self.decode = msgspec.msgpack.Decoder(
            Fork | Probe | Claim | Hand | Kill | Ask | Place | Gone
        ).decode
        self.room = _Room()
        self.claims = Claims()
        self.groups = Groups(grouped)
        self.numbers = itertools.count(1)

    def answer(self, body: bytes, descriptors: list[int]) -> Sequence[Forked]:
        """What fails is told on the first descriptor, if one came: R goes on, for all others."""
        try:
            return self._answer(self.decode(body), descriptors)
        except Refused as refused:
            told = str(refused)
        except (OSError, IndexError, ValueError) as error:  # a full table of descriptors, say
            told = f"the runtime zygote: {error}"
        if descriptors:
            tell(descriptors[0], {"refused": told})
        return ()

    def _answer(
        self,
        message: Fork | Probe | Claim | Hand | Kill | Ask | Place | Gone,
        descriptors: list[int],
    ) -> Sequence[Forked]:
        if isinstance(message, Kill):
            self.end(descriptors[0])
            return ()
        if isinstance(message, Ask):
            self.give(message, descriptors[0])
            return ()
        if isinstance(message, Place):
            if is_below(pid := pid_of(descriptors[0]), os.getpid()):
                self.groups.place(message.name, pid)
            return ()
        if isinstance(message, Gone):
            self.groups.remove(message.name)
            return ()
        if isinstance(message, Claim):
            tell(descriptors[0], {"user": self.claims.claim(message.kind)})
            return ()
        if isinstance(message, Hand):
            if not self.claims.holds(message.user):
                raise ValueError(f"user {message.user} installs nothing for this host")
            return (_hand(message, user_of(self.host), descriptors[0], descriptors[1]),)
        if isinstance(message, Probe) and message.primitives:
            return (_probe_primitives(descriptors[0], self.groups.lacks),)
        return self.fork(message, descriptors)

    def end(self, watch: int) -> None:
        """One of those below this."""
        if is_below(pid_of(watch), os.getpid()):
            _end(watch)

    def give(self, asked: Ask, control: int) -> None:
        """Make a group, and hand over what a process enters it by."""
        entries = []
        try:
            group = self.groups.make(asked.name, asked.bounds)
            if group is not None and group.version == 1:
                entries = [os.open(each, os.O_WRONLY | os.O_CLOEXEC) for each in group.entries()]
            tell(control, {"group": group}, *entries)
        except OSError as error:
            tell(control, {"refused": f"a control group: {error}"})
        for entry in entries:
            os.close(entry)

    def may_have(self, user: int) -> bool:
        """Whether a process of that user may be made for the host: root's only where the host is,
        and else nobody's who is somebody, nor another host's."""
        return user_of(self.host) in (0, user) or self.claims.holds(user)

    def group_of(self, held: Confinement) -> Group | None:
        """A zygote's own group. Its import may use a CPU for itself. Raises Refused."""
        bounds = bounds_of(held)
        if bounds.cpu:
            bounds = msgspec.structs.replace(bounds, cpu=max(bounds.cpu, 1.0))
        try:
            return self.groups.make(f"zygote-{next(self.numbers)}", bounds)
        except OSError as error:
            raise Refused("a control group", error) from None

    def fork(self, message: Fork | Probe, descriptors: list[int]) -> Sequence[Forked]:
        """Raises Refused, OSError, ValueError, and leaves nothing of it then."""
        held, tmp = message.confine, ""
        if os.geteuid() == 0 and not self.may_have(held.user):
            raise ValueError(f"no process of user {held.user} is made for this host")
        with contextlib.ExitStack() as undo:
            group = None if isinstance(message, Probe) else self.group_of(held)
            name = group.name if group is not None else ""
            undo.callback(self.groups.remove, name)
            if group is not None:
                held = msgspec.structs.replace(held, grouped=tuple(group.directories))
            if held.level == "process":
                tmp = self.room.make(held.user)
                undo.callback(remove, Path(tmp))
                held = msgspec.structs.replace(held, tmp=tmp)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours, theirs:
                supervisor = _supervisor(held, ours) if held.supervised else 0
                pid, go = fork(held)
                if pid == 0:
                    message = msgspec.structs.replace(message, confine=held)
                    keep = [*descriptors, go, theirs.fileno()]
                    child(partial(self.begin, message, descriptors, go, group, theirs), keep)
            undo.callback(os.waitpid, pid, 0)
            undo.callback(os.close, go)  # at which it ends, and its supervisor with it
            watch = -1
            if supervisor:
                watch = os.pidfd_open(pid)
                undo.callback(os.close, watch)
            introduce(pid, descriptors[0], group)
            control = -1
            if isinstance(message, Fork) and message.installs:
                control = os.dup(descriptors[0])
                undo.callback(os.close, control)
            os.write(go, b"g")
            undo.pop_all()
        forked = [Forked(pid, go, tmp, partial(self.groups.remove, name, kept_s=KEPT_S))]
        if control >= 0:
            forked[0].after = partial(self.installed, forked[0], name, control)
        if supervisor:
            forked.append(Forked(supervisor, after=partial(_end_and_close, watch)))
        return forked

    def installed(self, one: Forked, group: str, control: int) -> None:
        """What installs has ended, and with it all that it started."""
        self.groups.remove(group, kept_s=KEPT_S)
        with contextlib.suppress(OSError):  # no descriptor is left: the host finds it closed
            tell(control, {"exit": os.waitstatus_to_exitcode(one.status)})
        os.close(control)

    def begin(
        self,
        message: Fork | Probe,
        descriptors: list[int],
        go: int,
        group: Group | None,
        line: socket.socket,
    ) -> None:
        """In the child."""
        os.setsid()
        held = message.confine
        try:
            if group is not None:
                with step("a control group"):
                    group.join()
            if isinstance(message, Fork) and message.python is not None:
                hand_over(held, message.python, descriptors, go, line)
            enter(held, go, self.paths, line)
        except Refused as refused:
            tell(descriptors[0], {"refused": str(refused)})
            return
        if isinstance(message, Probe):
            tell(descriptors[0], {"had": held.level})
        elif message.installs:
            job = msgspec.structs.replace(heard(descriptors[0], Install), confine=held)
            install(job, descriptors[0], descriptors[1])
        else:
            begin(asked_for(descriptors[0], held), *descriptors)


def _supervisor(held: Confinement, line: socket.socket) -> int:
    own = os.getpid()
    pid = os.fork()
    if pid == 0:
        told = {"near": held.near, "unix": has_unix(held)}
        run = partial(supervise, line, held.network, held.user, **told)
        child(run, [line.fileno()], own)
    return pid


def _hand(message: Hand, host: int, control: int, directory: int) -> Forked:
    """In a process of its own: R does not wait for a disk."""
    pid = os.fork()
    if pid == 0:
        child(partial(_handed, message, host, control, directory), [control, directory])
    return Forked(pid)


def _handed(message: Hand, host: int, control: int, directory: int) -> None:
    giver, taker = (message.user, host) if message.back else (host, message.user)
    try:
        hand(directory, giver, taker)
    except OSError as error:
        tell(control, {"refused": f"handing over: {error.strerror}"})
    else:
        tell(control, {"handed": True})


def _probe_primitives(control: int, lacks: Mapping[str, OSError]) -> Forked:
    pid = os.fork()
    if pid == 0:
        groups = [(f"cgroup {name}", why.errno or 0, _said(why)) for name, why in lacks.items()]
        child(lambda: tell(control, {"primitives": [*tried(), *groups]}), [control])
    return Forked(pid)


def _said(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def _end(*descriptors: int) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)


def _end_and_close(watch: int) -> None:
    _end(watch)
    os.close(watch)


class _Room:
    """Where the directories of level `process` are: one directory of this runtime's. Those of
    runtimes that were killed, also while they removed theirs, are removed."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._held = -1
        with contextlib.suppress(OSError):
            for left in unheld(Path(tempfile.gettempdir()), TMP):
                if left.lstat().st_uid == os.geteuid():  # and nobody else's to swap or to trap
                    remove(left)

    def make(self, user: int) -> str:
        """A directory that is the user's. Raises Refused."""
        try:
            if self.path is None:
                self.path, self._held = held_anew(partial(tempfile.mkdtemp, prefix=TMP))
                self.path.chmod(0o711)
            made = tempfile.mkdtemp(dir=self.path)
            if user:
                os.chown(made, user, user)
        except OSError as error:
            raise Refused("a private directory", error) from None
        return made

    def close(self) -> None:
        """The runtime ends, and with it all that used it."""
        if self.path is not None:
            remove(self.path)
