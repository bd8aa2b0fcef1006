"""What R, who is root, does for a host that is root no more and was taken over: nothing that gives
it what it has not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from funcrt.privileges import HOST_USER
from funcrt.sandbox.told import is_below
from funcrt.sandbox.users import BUILDERS, FUNCTIONS, INSTALLERS
from tests.users import others

ROOT = Path(__file__).parents[2]
HOST = """
import asyncio, json, os, signal, socket, sys
import msgspec
from funcrt.privileges import HOST_USER
from funcrt.sandbox import kernel
from funcrt.sandbox.asking import claimed, readable, socketpair
from funcrt.sandbox.confine import Confinement
from funcrt.sandbox.groups import Bounds
from funcrt.sandbox.installing import Install
from funcrt.sandbox.process import ProcessSandbox
from funcrt.sandbox.runtime import Ask, Fork, Kill, Place
from funcrt.sandbox.users import BUILDERS, FUNCTIONS, INSTALLERS

made, pid = sys.argv[1], int(sys.argv[2])
victim = os.pidfd_open(pid)

async def heard(sandbox, message, *descriptors, then=None):
    ours, theirs = socketpair(socket.SOCK_SEQPACKET)
    read, write = os.pipe()
    with theirs:
        if then is not None:
            ours.send(msgspec.msgpack.encode(then))
        sandbox._send(msgspec.msgpack.encode(message), [theirs.fileno(), write])
    os.close(write)
    while True:
        await readable(ours.fileno())
        try:
            body = ours.recv(65536)
        except ConnectionResetError:  # what it was told went unread; what it says comes next
            continue
        told = msgspec.msgpack.decode(body) if body else {}
        if "zygote" not in told:
            return told

async def ran(sandbox, into=made, **held):
    run = f"echo {held.get('level')} > {into}/$(id -u)"
    confine = Confinement(programs=True, readable=("/bin", "/usr"), writable=(into,), **held)
    then = Install(["/bin/sh", "-c", run], {}, "/", confine)
    told = await heard(sandbox, Fork(confine, installs=True), then=then)
    return told.get("refused") or f"exit {told.get('exit')}"

def groups():
    with open(f"/proc/{pid}/cgroup") as file:
        return file.read().count("instance-7")

async def main():
    sandbox = ProcessSandbox()
    await sandbox.start()
    await sandbox.probed()
    os.setgroups([])
    function, builder = [await claimed(sandbox._send, kind) for kind in ("function", "builder")]
    os.chown(f"{made}/its", function, function)
    kernel.become(HOST_USER, HOST_USER)
    found = {
        "root": await ran(sandbox),
        "root, held": await ran(sandbox, level="process"),
        "root, walled": await ran(sandbox, level="sandbox"),
        "an account": await ran(sandbox, user=1000),
        "itself": await ran(sandbox, user=HOST_USER),
        "a function": await ran(sandbox, user=function, level="process"),
        "a builder": await ran(sandbox, user=builder, level="process"),
        "another host's": await ran(sandbox, user=FUNCTIONS[FUNCTIONS.index(function) - 1]),
        "another host's builder": await ran(sandbox, user=BUILDERS[BUILDERS.index(builder) - 1]),
        "an installer": await ran(sandbox, user=INSTALLERS[0]),
        "users": [function, builder],
    }
    walled = {"user": function, "level": "sandbox"}
    found["what is root's"] = await ran(sandbox, f"{made}/closed/open", **walled)
    found["its own"] = await ran(sandbox, f"{made}/its", **walled)
    sandbox._send(msgspec.msgpack.encode(Kill()), [victim])
    told = await heard(sandbox, Ask("instance-7", Bounds(1 << 20, 1, 0.0)))
    found["a group"] = told.get("refused", "made")
    sandbox._send(msgspec.msgpack.encode(Place("instance-7")), [victim])
    told = await heard(sandbox, Ask("../funcrt-test", Bounds(0, 0, 0.0)))
    found["a group elsewhere"] = told.get("refused", "made")
    found["moved"] = groups()
    print(json.dumps(found))
    await sandbox.close()

asyncio.run(main())
"""


@others
def test_a_host_that_was_taken_over_gets_nothing_more(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "closed" / "open").mkdir(parents=True)
    (tmp_path / "closed" / "open").chmod(0o777)
    (tmp_path / "closed").chmod(0o700)
    (tmp_path / "its").mkdir()
    victim = subprocess.Popen(["sleep", "60"])
    try:
        done = subprocess.run(
            [sys.executable, "-c", HOST, str(tmp_path), str(victim.pid)],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert victim.poll() is None, "it was ended for the host"
    finally:
        victim.kill()
        victim.wait()
    nobody = "the runtime zygote: no process of user {} is made for this host"
    function, builder = found.pop("users")
    refused = {name: found.pop(name) for name in ("root", "root, held", "root, walled")}
    assert set(refused.values()) == {nobody.format(0)}
    assert found.pop("an account") == nobody.format(1000)
    assert found.pop("an installer") == nobody.format(INSTALLERS[0]), "which it has not claimed"
    near = {
        "another host's": FUNCTIONS[FUNCTIONS.index(function) - 1],
        "another host's builder": BUILDERS[BUILDERS.index(builder) - 1],
    }
    assert {name: found.pop(name) for name in near} == {
        name: nobody.format(user) for name, user in near.items()
    }
    assert found.pop("what is root's").startswith("bind mounts: ")
    assert list((tmp_path / "closed" / "open").iterdir()) == []
    assert found.pop("its own") == "exit 0"
    assert [each.name for each in (tmp_path / "its").iterdir()] == [str(function)]
    assert "Expected `str` matching regex" in found.pop("a group elsewhere")
    assert found == {
        "itself": "exit 0", "a function": "exit 0", "a builder": "exit 0",
        "a group": "made", "moved": 0,
    }  # fmt: skip
    users = {str(user) for user in (HOST_USER, function, builder)}
    assert {each.name for each in tmp_path.iterdir()} == {*users, "closed", "its"}


def test_what_is_below_a_process_is_told_from_what_is_not() -> None:
    below = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE)
    try:
        assert below.stdout is not None
        pid = int(below.stdout.readline())
        assert is_below(pid, below.pid)
        assert is_below(pid, os.getpid())
        assert not is_below(pid, pid)
        assert not is_below(os.getpid(), pid)
        assert not is_below(1, os.getpid())
        assert not is_below(0, os.getpid())
        os.kill(pid, signal.SIGKILL)
    finally:
        below.kill()
        below.communicate()
    assert not is_below(below.pid, os.getpid())
