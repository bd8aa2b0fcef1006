"""Runs a function that connects, beside a world of its own, and prints what came of it.

`python -m tests.isolation.world LEVEL[@ABI] USER DIRECTORY NETWORK...`, as root in mount and
network namespaces of its own: it changes addresses, and /etc/resolv.conf."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from funcrt.sandbox import Code
from funcrt.sandbox.levels import Policy
from funcrt.sandbox.process import ProcessSandbox
from funcrt.sandbox.protocol import Result
from tests.isolation.connections import ATTACKS, LISTED_ONLY, OURS, OWN_NETWORK, WORKS
from tests.isolation.run import Calls, landlock

LINKS = """
ip link set lo up
ip link add near type veth peer name far netns FAR
ip addr add 11.1.1.1/24 dev near
ip addr add 10.9.9.1/24 dev near
ip addr add 169.254.1.1/16 dev near
ip link set near up
nsenter --net --target FAR ip link set lo up
nsenter --net --target FAR ip link set far up
nsenter --net --target FAR ip addr add 11.1.1.2/24 dev far
nsenter --net --target FAR ip addr add 11.1.1.3/24 dev far
nsenter --net --target FAR ip addr add 10.9.9.2/24 dev far
nsenter --net --target FAR ip addr add 10.9.9.3/24 dev far
nsenter --net --target FAR ip addr add 169.254.169.254/16 dev far
"""
CERTIFICATE = [
    "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "cert",
    "-days", "2", "-subj", "/CN=api.test", "-addext", "subjectAltName=DNS:api.test",
]  # fmt: skip


def world(root: Path) -> "subprocess.Popen[str]":
    """The servers; what they print is what reached them."""
    (root / "resolv.conf").write_text("nameserver 11.1.1.2\n")
    (root / "resolv.conf").chmod(0o644)
    resolv = os.path.realpath("/etc/resolv.conf")
    subprocess.run(["mount", "--bind", root / "resolv.conf", resolv], check=True)
    subprocess.run(CERTIFICATE, cwd=root, check=True, capture_output=True)
    far = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-m", "tests.isolation.far", root / "cert",
         root / "key"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert far.stdin is not None
    assert far.stdout is not None
    assert far.stdout.readline() == "there\n"
    for line in LINKS.strip().replace("FAR", str(far.pid)).splitlines():
        subprocess.run(line.split(), check=True)
    far.stdin.write("go\n")
    far.stdin.flush()
    assert far.stdout.readline() == "ready\n"
    return far


def victims(root: Path) -> list[socket.socket]:
    """What listens on the host."""
    tcp = socket.create_server(("::", OURS), family=socket.AF_INET6, dualstack_ipv6=True)
    threading.Thread(target=accept, args=[tcp], daemon=True).start()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("0.0.0.0", OURS))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0funcrt-victim")
    abstract.listen()
    path = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path.bind(str(root / "unix"))
    (root / "unix").chmod(0o777)
    return [tcp, abstract, udp, path]


def accept(listener: socket.socket) -> None:
    while True:
        sock, _ = listener.accept()
        sock.sendall(b"from the host")
        sock.close()


def names(level: str, network: list[str], abi: str) -> list[str]:
    found = WORKS | ATTACKS
    if network == ["outbound"]:
        found = {name: run for name, run in found.items() if name not in LISTED_ONLY}
        found["a private address, listed"] = LISTED_ONLY["a private address, listed"]
    unix = level == "sandbox" and abi not in ("1", "2", "3")
    return [name for name in found if unix or name not in OWN_NETWORK]


async def main(level: str, user: int, root: Path, network: list[str], abi: str = "") -> None:
    far = world(root)
    kept = victims(root)
    certificate = (root / "cert").read_text()
    path = root / "attacker"
    path.mkdir()
    path.chmod(0o755)
    source = Path(__file__).with_name("connections.py").read_bytes()
    (path / "main.py").write_bytes(source)
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    sandbox = ProcessSandbox(policy=Policy(forced=level))  # type: ignore[arg-type]
    await sandbox.start()
    code = Code(name="attacker", version="1", path=path, network=tuple(network))
    calls = Calls(await sandbox.load(code))
    for number, name in enumerate(names(level, network, abi), 10):
        asked = {"attack": name, "certificate": certificate, "unix": str(root / "unix")}
        found = await calls.call(number, asked)
        told: object = str(found)
        if isinstance(found, Result):
            told = str(found.failure)
            if found.status == "ok":
                told = json.loads(found.outputs[0].event.data or b"")
        print(json.dumps([name, told]), flush=True)
    await sandbox.close()
    datagrams = []
    for sock in kept[2:]:
        sock.setblocking(False)
        try:
            datagrams.append(repr(sock.recv(100)))
        except BlockingIOError:
            pass
    lines = far.communicate()[0].splitlines()
    print(json.dumps(["reached", sorted({*datagrams, *lines})]))


if __name__ == "__main__":
    asked, _, older = sys.argv[1].partition("@")
    with landlock(older):
        asyncio.run(main(asked, int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:], older))
