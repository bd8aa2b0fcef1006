"""Code of a package that attacks as it is built, beside `attacks.py`, whose attacks it makes too.

Each returns what it got, or raises. Both are copied into the package."""

import json
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import time

try:
    import attacks
except ModuleNotFoundError:  # in the tests
    from tests.isolation import attacks

connect, opened_for_writing, read = attacks.connect, attacks.opened_for_writing, attacks.read
WAIT_S = 10
PASSED = {
    *attacks.BOMBS, "start a program", "change its own code", "change the mode of its own code",
    "signal its zygote", "read another function's /tmp", "a file's size",
    "cut a file that it may read",
}  # fmt: skip
"""What a build may do, or what there is not to attack."""


def site():
    """Where packages are installed."""
    return pathlib.Path(os.environ["HOME"]).parent / "site"


def changed_mode(path):
    os.chmod(path, 0o640)
    if os.stat(path).st_mode & 0o777 != 0o640:
        raise OSError("not changed")
    return "changed"


def changed_times(path):
    os.utime(path, (1, 1))
    if os.stat(path).st_mtime != 1:
        raise OSError("not changed")
    return "changed"


def opened_to_change(path):
    """The file itself: beneath a /tmp of its own, one of that name could be made."""
    with open(path, "r+b"):
        return path


def setuid_program(asked):
    done = subprocess.run(
        [asked["setuid"], "-c", "id -u"], stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    if done.stdout.strip() != b"0":
        raise OSError("nobody of note")
    return "root"


def process(asked):
    code = "import os, sys, time; os.setsid(); time.sleep(120)"
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 100)  # pip would wait for the end of its output
            os.execv(sys.executable, [sys.executable, "-S", "-c", code, asked["mark"]])
        os._exit(0)
    os.wait()
    return "left"


def setuid_file(asked):
    path = site() / "setuid"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o6755)
    return path.name


def link(asked):
    (site() / "link").symlink_to(asked["secret"])
    return "link"


def pipe_as_metadata(asked):
    info = site() / "evil-1.dist-info"
    info.mkdir(exist_ok=True)
    os.mkfifo(info / "METADATA")
    return info.name


def depths(asked):
    os.chdir(site())
    for _ in range(3000):
        os.mkdir("deep", 0o500 | 0o200)
        os.chdir("deep")
    return "deep"


def closed_directory(asked):
    closed = pathlib.Path(os.environ["HOME"], "closed")
    (closed / "in").mkdir(parents=True)
    closed.chmod(0)
    return "closed"


BUILDS = {
    "read the mesh's file": lambda a: read(a["mesh"]),
    "change the mesh's file": lambda a: opened_to_change(a["mesh"]),
    "read a secret of the host": lambda a: read(a["secret"]),
    "list the data directory": lambda a: os.listdir(a["data"]).index("mesh.db"),
    "write to the data directory": lambda a: opened_for_writing(a["data"] + "/planted"),
    "change another function's code": lambda a: opened_to_change(a["other"]),
    "read another function's packages": lambda a: read(a["packages"] + "/other/site/other.py"),
    "change another function's packages": lambda a: opened_to_change(
        a["packages"] + "/other/site/other.py"
    ),
    "leave something among the downloads of others": lambda a: opened_for_writing(
        a["packages"] + "/.cache/planted"
    ),
    "the admin socket": lambda a: connect(socket.AF_UNIX, socket.SOCK_STREAM, a["admin"]),
    "the host's loopback, by name": lambda a: socket.create_connection(
        ("localhost", a["tcp"][1]), 5
    ),
    "cloud metadata": lambda a: socket.create_connection(("169.254.169.254", 80), 5),
    "a private network": lambda a: socket.create_connection(("10.255.255.1", 80), 5),
    "leave a process behind": process,
    "leave a setuid file": setuid_file,
    "leave a link to a secret": link,
    "leave a pipe that its host is to read": pipe_as_metadata,
    "leave directories too deep to remove": depths,
    "leave a directory that cannot be entered": closed_directory,
}
ATTACKS = {name: made for name, made in attacks.ATTACKS.items() if name not in PASSED} | {
    "change a file's mode": lambda a: changed_mode(a["file"]),
    "change a file's times": lambda a: changed_times(a["file"]),
    "a setuid program": setuid_program,
}


def attempt(attack, asked):
    """What came of it, in a process of its own: `got ...` or the error."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            told = f"got {attack(asked)!r}"
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(write_end, pickle.dumps(told[:300]))
        os._exit(0)
    os.close(write_end)
    until = time.monotonic() + WAIT_S
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            until = float("inf")
        time.sleep(0.002)
    with open(read_end, "rb") as file:
        told = file.read()
    return pickle.loads(told) if told else "it ended"


def run():
    asked = json.loads((pathlib.Path(__file__).parent / "asked.py").read_text())
    return {
        name: attempt(attack, asked)
        for name, attack in (ATTACKS | BUILDS).items()
        if name in asked.get("only", [name])
    }
