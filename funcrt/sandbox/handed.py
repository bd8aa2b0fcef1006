"""A function's zygote in another Python: what R has forked for it executes that interpreter.

By then it has no rights: it is in its namespaces, and its user's. What holds it back for good comes
after, in the new program and before a line of the author's code: the seccomp program forbids that
any other is executed.
"""

import os
import site
import socket
from functools import partial

import msgspec

from funcrt.sandbox.confine import Confinement, Refused, enter_first, enter_rest, step
from funcrt.sandbox.forking import child, tell
from funcrt.sandbox.interpreter import Interpreter
from funcrt.sandbox.view import interpreter_paths
from funcrt.sandbox.zygote import asked_for, begin

__all__ = ["Handed", "go_on", "hand_over"]

ENVIRON = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
OPTIONS = ("-I", "-S", "-B")
"""Nothing of the environment, no package that is installed for that Python, and no bytecode."""


class Handed(msgspec.Struct, frozen=True):
    """What the new program is to know, and by which numbers it has its descriptors."""

    confine: Confinement
    root: tuple[str, ...]
    """What of the machine's own it may read."""
    descriptors: tuple[int, int, int]
    """Its control socket, and where its output and errors go."""
    line: int
    """To its supervisor."""
    names: tuple[int, ...]
    """Where it asks for names."""


def hand_over(
    held: Confinement, python: Interpreter, descriptors: list[int], go: int, line: socket.socket
) -> None:
    """Lock this process in as `enter` does, as far as rights are needed, and execute another
    Python. Never returns. Raises Refused."""
    with step("the interpreter's own files"):
        root = tuple(interpreter_paths(python))
    needed = (python.executable, f"{python.library}/funcrt/sandbox/handed.py")
    names = enter_first(held, go, root, needed)
    control, out, err = descriptors
    handed = Handed(
        held, root, (control, out, err), line.fileno(), tuple(each.fileno() for each in names)
    )
    program = (
        f"import sys; sys.path.append({python.library!r});"
        "from funcrt.sandbox.handed import go_on; go_on(%d)"
    )
    with step(f"Python {python.version}"):
        told = os.memfd_create("funcrt", 0)
        os.write(told, msgspec.msgpack.encode(handed))
        os.lseek(told, 0, os.SEEK_SET)
        for each in (*handed.descriptors, handed.line, *handed.names):
            os.set_inheritable(each, True)
        os.dup2(out, 1)
        os.dup2(err, 2)  # what it says if it cannot start
        words = [python.executable, *OPTIONS, "-c", program % told]
        os.execve(python.executable, words, ENVIRON)


def go_on(told: int) -> None:
    """The new program, which never returns. `told` is a descriptor of what it is handed."""
    child(partial(_go_on, told), None)


def _go_on(told: int) -> None:
    with open(told, "rb") as file:
        handed = msgspec.msgpack.decode(file.read(), type=Handed)
    line = socket.socket(fileno=handed.line)
    names = [socket.socket(fileno=each) for each in handed.names]
    for each in (*handed.descriptors, handed.line, *handed.names):
        os.set_inheritable(each, False)
    for add in (site.setquit, site.setcopyright, site.sethelper):
        add()  # `exit` and the like, which go with the packages that it is to be without
    try:
        enter_rest(handed.confine, handed.root, line, names)
    except Refused as refused:
        tell(handed.descriptors[0], {"refused": str(refused)})
        return
    begin(asked_for(handed.descriptors[0], handed.confine), *handed.descriptors)
