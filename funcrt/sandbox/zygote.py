"""The processes that instances are forked from.

For each version R (`runtime.py`) forks F, which imports the author's code; F forks the instances.
Each has a control socket (datagrams of msgpack, descriptors beside them) to the host, so none is in
another's way. When the process above ends, those below end with it.
"""

import contextlib
import gc
import os
import random
import select
import signal
import socket
import sys
import tempfile
from functools import partial
from pathlib import Path

import msgspec

from funcrt.errors import LoadError
from funcrt.sandbox.confine import Confinement, enter_alone
from funcrt.sandbox.debugging import Debug, attach, name_sources
from funcrt.sandbox.forking import MAX_MESSAGE, Forked, Strays, child, heard, introduce, serve
from funcrt.sandbox.handler import Bound, import_handler, threads
from funcrt.sandbox.hook import chosen, no_terminal
from funcrt.sandbox.interpreter import Interpreter
from funcrt.sandbox.loop import LoopWorker
from funcrt.sandbox.packages import add_packages
from funcrt.sandbox.programs import without_programs
from funcrt.sandbox.said import Printed
from funcrt.sandbox.streaming import StreamWorker
from funcrt.sandbox.worker import Worker
from funcrt.tree import remove

__all__ = [
    "Spawn",
    "Spec",
    "Warm",
    "asked_for",
    "begin",
    "tidy",
]

ASYNC_CALLS = 32
"""At once in one instance of an async handler, where the manifest does not say."""

BASE = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/tmp",
    # A function is scaled by instances. The threads that numerical libraries start as they are
    # imported would contend with those, and forbid forking.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""The environment of every function, below the manifest's own."""


class Warm(msgspec.Struct, frozen=True, tag="warm"):
    """What F0 is to import, for versions to be forked from."""

    modules: tuple[tuple[str, tuple[str, ...]], ...]
    """Modules, and the names taken from each."""
    env: dict[str, str]
    confine: Confinement
    prefixes: list[str]
    """Directories whose files need not be told."""
    packages: str = ""
    python: Interpreter | None = None


class Spec(msgspec.Struct, frozen=True, tag="load"):
    """What F is to load."""

    path: str
    handler: str
    concurrency: int
    """0 for the handler's default."""
    env: dict[str, str]
    confine: Confinement
    max_output_bytes: int
    batch: bool
    stream: bool
    late: bool = False
    """Import in each instance: the code's import starts threads, which no fork survives."""
    packages: str = ""
    """Where what the function needs is installed; empty for nowhere."""
    shared: bool = False
    """Other versions write to the same /tmp."""
    source: str = ""
    """What the directory is a copy of, for its code to name; empty for its own name."""
    python: Interpreter | None = None
    """What it runs in; None for the Python of R."""

    @property
    def named(self) -> Path:
        """The directory that code names."""
        return Path(self.source or self.path)


class Spawn(msgspec.Struct, frozen=True):
    """What F is asked for: an instance."""

    number: int
    debug: Debug | None = None
    terminal: bool = False
    """The fifth descriptor is where to ask for a terminal."""
    secrets: bool = False
    """The first frame of its channel has them."""
    entries: int = 0
    """So many descriptors come before the others: files of control groups to enter by."""


# F0: a function's dependencies


def asked_for(control_fd: int, held: Confinement) -> Spec | Warm:
    """What a process that is confined so is to load. Ends it where the host is gone."""
    message: Spec | Warm = heard(control_fd, Spec | Warm)  # type: ignore[arg-type]
    return msgspec.structs.replace(message, confine=held)


def begin(message: Spec | Warm, control_fd: int, out: int, err: int) -> None:
    """What F0 and F have in common."""
    _standard(out, err)
    os.environ.clear()
    held = message.confine
    own = {"HOME": held.tmp, "TMPDIR": held.tmp} if held.tmp else {}
    if held.level == "process" and held.network:
        own["RES_OPTIONS"] = "use-vc"  # it has no datagrams to ask a nameserver by
    os.environ.update(BASE | own | message.env)
    tempfile.tempdir = None  # R looked for one where it is
    os.umask(0o077)
    sys.dont_write_bytecode = True
    add_packages(message.packages)
    sys.breakpointhook = chosen(no_terminal)
    control = socket.socket(fileno=control_fd)
    if isinstance(message, Warm):
        _warm(message, control)
    else:
        _function(message, control)


def _warm(warm: Warm, control: socket.socket) -> None:
    failed = ""
    for name, taken in warm.modules:
        try:
            __import__(name, fromlist=taken)
        except BaseException as error:
            failed = f"{name}: {error}"[:2000]
            break
    # Those of packages that are being worked on, too: installed by a link to their sources.
    files = [
        file
        for module in list(sys.modules.values())
        if (file := getattr(module, "__file__", None)) and not file.startswith(tuple(warm.prefixes))
    ]
    told = {"failed": failed, "threads": threads(), "files": files[:500]}
    control.send(msgspec.msgpack.encode(told))
    gc.collect()
    gc.freeze()
    serve(control, partial(_fork_from_here, warm.confine), patient=True)


def _fork_from_here(held: Confinement, _: bytes, descriptors: list[int]) -> list[Forked]:
    """What F0 forks is confined as it is."""
    own = os.getpid()
    pid = os.fork()
    if pid == 0:
        child(partial(_fork_of, held, descriptors), descriptors, own)
    introduce(pid, descriptors[0])
    return [Forked(pid)]


def _fork_of(held: Confinement, descriptors: list[int]) -> None:
    os.setsid()
    message = msgspec.structs.replace(asked_for(descriptors[0], held), shared=True)
    begin(message, *descriptors)


# F: one version of a function


def _function(spec: Spec, control: socket.socket) -> None:
    _streams()
    try:
        os.chdir(spec.path)
    except PermissionError:
        user = os.getuid()
        why = f"user {user} may not enter {spec.path}, or a directory above it; make it readable"
        control.send(msgspec.msgpack.encode({"refused": why}))
        return
    if spec.confine.level != "none":
        without_programs()
    sys.path.insert(0, spec.path)
    if spec.source:
        name_sources(spec.path, spec.source)
    bound: Bound | None = None
    if not spec.late:
        bound = _load(spec, control)
        if bound is None:
            return
    else:
        control.send(msgspec.msgpack.encode({"ready": {}}))
    gc.collect()
    gc.freeze()
    _fork_on_demand(spec, control, bound)


def _standard(out: int, err: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)


def _streams() -> None:
    """Python's end of what `_standard` laid. Loggers keep the stream that they were made with, so
    an instance goes on with its version's."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        file = open(fd, "w", buffering=1, closefd=False, errors="replace")  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, Printed):
            stream.file = file
        else:
            setattr(sys, name, Printed(file, name))


def _load(spec: Spec, control: socket.socket) -> Bound | None:
    """Import and bind the handler; tell the host what was found or what is wrong."""
    import time

    started = time.perf_counter()
    try:
        bound = import_handler(spec.named, spec.handler, spec.confine)
    except LoadError as error:
        told = {"problem": msgspec.to_builtins(error.problem), "traceback": error.traceback[:30000]}
        control.send(msgspec.msgpack.encode({"error": told}))
        return None
    default = ASYNC_CALLS if bound.kind.startswith("async") else 1
    info = {
        "handler": bound.name,
        "kind": bound.kind,
        "batch": bound.batch,
        "request": bound.request,
        "lifespan": bound.lifespan is not None,
        "signature": bound.signature[:2000],
        "concurrency": spec.concurrency or default,
        "import_ms": (time.perf_counter() - started) * 1000,
        "threads": threads(),
        "python": sys.version.split()[0],
    }
    control.send(msgspec.msgpack.encode({"ready": info}))
    return bound


def _fork_on_demand(spec: Spec, control: socket.socket, bound: Bound | None) -> None:
    own = os.getpid()
    room = spec.confine.tmp or "/tmp"
    alone = spec.confine.level != "none" and not spec.shared
    kept = {each.name for each in Path(room).iterdir()} if alone else None
    children: dict[int, tuple[int, int]] = {}  # descriptor: pid, number
    strays = Strays()
    poll = select.poll()
    poll.register(control, select.POLLIN)

    def say(told: dict[str, object], *sent: int) -> None:
        socket.send_fds(control, [msgspec.msgpack.encode(told)], sent)

    while True:
        found = poll.poll(strays.wait_ms(None))
        if not found:
            strays.end({pid for pid, _ in children.values()})
        for ready, _ in found:
            if ready in children:
                poll.unregister(ready)
                pid, number = children.pop(ready)
                _, status = os.waitpid(pid, 0)
                os.close(ready)
                say({"exit": [number, status]})
                strays.end({pid for pid, _ in children.values()})
                if kept is not None and not children:
                    tidy(room, kept)
                continue
            body, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE, 10)
            if not body:
                return
            asked = msgspec.msgpack.decode(body, type=Spawn)
            try:
                pid = os.fork()
            except OSError as error:
                say({"unforked": [asked.number, error.errno]})
                pid = -1
            if pid == 0:
                # Those of F's own; what the import opened is the author's, and goes on.
                for own_fd in (*children, control.detach()):
                    os.close(own_fd)
                child(partial(_instance, spec, bound, asked, descriptors), None, own)
            for descriptor in descriptors:
                os.close(descriptor)
            if pid > 0:
                watch = os.pidfd_open(pid)
                children[watch] = pid, asked.number
                poll.register(watch, select.POLLIN)
                say({"spawned": [asked.number, pid]}, watch)


def tidy(room: str, kept: set[str]) -> None:
    """Remove what instances have left, now that there is none: all but what its import made, and
    what is mounted there. No link is followed."""
    for path in Path(room).iterdir():
        if path.name in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            remove(path)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


# I: an instance


def _instance(spec: Spec, bound: Bound | None, asked: Spawn, descriptors: list[int]) -> None:
    for entry in descriptors[: asked.entries]:
        os.write(entry, b"0")
        os.close(entry)
    descriptors = descriptors[asked.entries :]
    channel_fd, out, err, begun = descriptors[:4]
    os.setsid()
    enter_alone(spec.confine)
    _standard(out, err)
    _streams()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # Python's own: an error, and not the end
    random.seed()
    bound = bound or import_handler(spec.named, spec.handler, spec.confine)
    default = ASYNC_CALLS if bound.kind.startswith("async") else 1
    channel = socket.socket(fileno=channel_fd)
    concurrency = spec.concurrency or default
    most = spec.max_output_bytes
    if asked.debug is not None:
        attach(asked.debug)
    kind = LoopWorker if bound.kind.startswith("async") else Worker
    if bound.request or spec.stream:
        kind = StreamWorker
    worker = kind(channel, bound, spec.named, concurrency, most, begun=begun)
    worker.held = spec.confine
    worker.listen()
    if asked.secrets and not worker.receive():
        return
    if asked.terminal:
        from funcrt.sandbox.breakpoints import Terminal

        worker.borrow(Terminal(socket.socket(fileno=descriptors[4]), spec.named))
    worker.run()
