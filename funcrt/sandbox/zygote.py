"""The processes that instances are forked from.

R, the runtime zygote, is a clean process with the worker's modules imported and no author's code.
For each version it forks F, which imports the author's code; F forks the instances. Each has a
control socket (datagrams of msgpack, descriptors beside them) to the host, so none is in another's
way. When the process above ends, those below end with it.
"""

import ctypes
import gc
import os
import random
import resource
import select
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from funcrt.errors import LoadError
from funcrt.sandbox.debugging import Debug, attach, name_sources
from funcrt.sandbox.handler import Bound, import_handler, threads
from funcrt.sandbox.hook import chosen, no_terminal
from funcrt.sandbox.loop import LoopWorker
from funcrt.sandbox.said import Printed
from funcrt.sandbox.streaming import StreamWorker
from funcrt.sandbox.worker import Worker

__all__ = [
    "MAX_MESSAGE",
    "Spawn",
    "Spec",
    "Warm",
    "runtime",
]

MAX_MESSAGE = 64 << 10
ASYNC_CALLS = 32
"""At once in one instance of an async handler, where the manifest does not say."""
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_libc = ctypes.CDLL(None, use_errno=True)


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
    """What R is asked to import, for versions to be forked from."""

    modules: tuple[tuple[str, tuple[str, ...]], ...]
    """Modules, and the names taken from each."""
    env: dict[str, str]
    memory_bytes: int
    prefixes: list[str]
    """Directories whose files need not be told."""


class Spec(msgspec.Struct, frozen=True, tag="load"):
    """What R, or F0, is asked to load."""

    path: str
    handler: str
    concurrency: int
    """0 for the handler's default."""
    env: dict[str, str]
    memory_bytes: int
    max_output_bytes: int
    batch: bool
    stream: bool
    late: bool = False
    """Import in each instance: the code's import starts threads, which no fork survives."""
    source: str = ""
    """What the directory is a copy of, for its code to name; empty for its own name."""

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


def runtime(fd: int, host: int) -> None:
    """R's life, on the control socket `fd`, for as long as the process `host` lives."""
    os.setsid()
    _tie_to(host)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _fork_as_asked(socket.socket(fileno=fd))


def _fork_as_asked(control: socket.socket, *, patient: bool = False) -> None:
    """Fork for each message, until the host closes the socket; where `patient`, until the last of
    what was forked has ended, too."""
    own, fd = os.getpid(), control.fileno()
    children: dict[int, int] = {}
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    asked = True
    while asked or children:
        for ready, _ in poll.poll():
            if ready != fd:
                poll.unregister(ready)
                os.waitpid(children.pop(ready), 0)
                os.close(ready)
                continue
            body, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE, 3)
            if not body:
                if not patient:
                    return
                poll.unregister(fd)
                asked = False
                continue
            message = msgspec.msgpack.decode(body, type=Spec | Warm)
            pid = os.fork()
            if pid == 0:
                _child(own, partial(_begin, message, *descriptors), descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            watch = os.pidfd_open(pid)
            children[watch] = pid
            poll.register(watch, select.POLLIN)


def _child(parent: int, run: Any, keep: list[int]) -> None:
    """Run in a forked child and never return."""
    code = 1
    try:
        _tie_to(parent)
        _close_all_but(keep)
        run()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            pass
        os._exit(code)


def _tie_to(parent: int) -> None:
    """End with the parent; at once, where it ended before this could be said."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _close_all_but(keep: list[int]) -> None:
    start = 3
    for fd in sorted(keep):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


# F0: a function's dependencies


def _begin(message: Spec | Warm, control_fd: int, out: int, err: int) -> None:
    """What F0 and F have in common."""
    os.setsid()
    _standard(out, err)
    os.environ.clear()
    os.environ.update(BASE | message.env)
    _lock_down(message.memory_bytes)
    sys.dont_write_bytecode = True
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
    _fork_as_asked(control, patient=True)


# F: one version of a function


def _function(spec: Spec, control: socket.socket) -> None:
    _streams()
    os.chdir(spec.path)
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


def _lock_down(most: int) -> None:
    """The steps of level `process` so far, in order; namespaces, landlock and seccomp go here."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if most:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    os.umask(0o077)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _load(spec: Spec, control: socket.socket) -> Bound | None:
    """Import and bind the handler; tell the host what was found or what is wrong."""
    import time

    started = time.perf_counter()
    try:
        bound = import_handler(spec.named, spec.handler)
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
    }
    control.send(msgspec.msgpack.encode({"ready": info}))
    return bound


def _fork_on_demand(spec: Spec, control: socket.socket, bound: Bound | None) -> None:
    own = os.getpid()
    children: dict[int, int] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready in children:
                poll.unregister(ready)
                pid, status = os.waitpid(children.pop(ready), 0)
                os.close(ready)
                control.send(msgspec.msgpack.encode({"exit": [pid, status]}))
                continue
            body, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE, 5)
            if not body:
                return
            asked = msgspec.msgpack.decode(body, type=Spawn)
            pid = os.fork()
            if pid == 0:
                for watch in children:
                    os.close(watch)
                _child(own, partial(_instance, spec, bound, asked, descriptors), descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            watch = os.pidfd_open(pid)
            children[watch] = pid
            poll.register(watch, select.POLLIN)
            control.send(msgspec.msgpack.encode({"spawned": [asked.number, pid]}))


# I: an instance


def _instance(spec: Spec, bound: Bound | None, asked: Spawn, descriptors: list[int]) -> None:
    channel_fd, out, err, begun = descriptors[:4]
    os.setsid()
    _standard(out, err)
    _streams()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    random.seed()
    bound = bound or import_handler(spec.named, spec.handler)
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
    worker.listen()
    if asked.secrets and not worker.receive():
        return
    if asked.terminal:
        from funcrt.sandbox.breakpoints import Terminal

        worker.borrow(Terminal(socket.socket(fileno=descriptors[4]), spec.named))
    worker.run()
