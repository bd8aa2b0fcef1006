"""What a function may connect to: the decision, its DNS, and who makes the connections.

`tests/isolation/test_network.py` attacks it, as root; here servers are on loopback."""

import asyncio
import ipaddress
import json
import os
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from funcrt.errors import SandboxError
from funcrt.sandbox import Code
from funcrt.sandbox.destinations import KEEP_S, Destinations, address_of, public
from funcrt.sandbox.dns import IPV4, IPV6, NO_SUCH_NAME, Question, reply
from funcrt.sandbox.levels import NetworkUnenforced, Policy
from funcrt.sandbox.process import ProcessSandbox, ProcessZygote
from funcrt.sandbox.protocol import Call
from funcrt.sandbox.resolver import hosts
from funcrt.sandbox.syscalls import number_of
from mesh import Event

PUBLIC = [
    "8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2001:4860:4860::8888",
    "192.0.1.1", "223.255.255.255", "1.1.1.1", "198.20.0.1",
]  # fmt: skip
NOT_PUBLIC = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1",
    "100.100.100.200", "169.254.169.254", "168.63.129.16", "192.0.0.192", "224.0.0.1",
    "239.1.1.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "203.0.113.1", "::", "::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "fe80::1", "fd00:ec2::254",
    "fc00::1", "ff02::1", "fec0::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
    "2002:a9fe:a9fe::1", "2002:808:808::1", "2001:db8::1",
    "2001:0:808:808:0:0:5601:5601", "64:ff9b:1::1", "192.0.0.9", "192.88.99.1", "192.0.2.1",
    "198.51.100.1", "3fff::1", "2001:2::1", "5f00::1", "100::1",
]  # fmt: skip


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


def at(text: str) -> Any:
    found = address_of(text)
    assert found is not None
    return found


def nobodys(_: object) -> bool:
    return False


def test_what_is_public() -> None:
    assert [text for text in PUBLIC if not public(at(text))] == []
    assert [text for text in NOT_PUBLIC if public(at(text))] == []


def test_outbound_is_what_is_public_and_not_the_hosts_own() -> None:
    reach = Destinations(["outbound", "10.0.0.5:5432"], lambda each: each == at("8.8.4.4"))
    assert reach.allows(at("8.8.8.8"), 443, 0)
    assert not reach.allows(at("8.8.4.4"), 443, 0)
    assert not reach.allows(at("10.0.0.6"), 5432, 0)
    assert not reach.allows(at("10.0.0.5"), 5433, 0)
    assert reach.allows(at("10.0.0.5"), 5432, 0)
    assert reach.allows(ipaddress.ip_address("::ffff:10.0.0.5"), 5432, 0)


def test_a_name_is_what_it_was_seen_to_be_in_the_last_hour() -> None:
    reach = Destinations(["api.test:443"], nobodys)
    assert not reach.allows(at("8.8.8.8"), 443, 0)
    assert reach.pin("api.test", [at("8.8.8.8")], 0) == [at("8.8.8.8")]
    assert reach.allows(at("8.8.8.8"), 443, 1)
    assert not reach.allows(at("8.8.8.8"), 80, 1)
    reach.pin("api.test", [at("9.9.9.9")], KEEP_S - 1)
    assert reach.allows(at("8.8.8.8"), 443, KEEP_S - 1)
    assert not reach.allows(at("8.8.8.8"), 443, KEEP_S + 1)
    assert reach.allows(at("9.9.9.9"), 443, KEEP_S + 1)


@pytest.mark.parametrize(
    "turned", ["127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1",
               "168.63.129.16", "8.8.4.4", "224.0.0.1"],
)  # fmt: skip
def test_a_name_that_is_bound_anew_leads_nowhere_near(turned: str) -> None:
    reach = Destinations(["api.test:80", "*.wild.test:80"], lambda each: each == at("8.8.4.4"))
    for name in ("api.test", "x.wild.test"):
        assert reach.pin(name, [at("8.8.8.8")], 0)
        assert reach.pin(name, [at("8.8.8.8"), at(turned)], 1) == [at("8.8.8.8")]
        assert reach.pin(name, [ipaddress.ip_address(turned)], 2) == []
        assert not reach.allows(ipaddress.ip_address(turned), 80, 3)


def test_a_name_of_the_hosts_own_choice_may_lead_to_the_host_and_no_further() -> None:
    """Where packages come from, as the operator says it."""
    listed = ["index.test:80", "*.wild.test:80", "outbound"]
    reach = Destinations(listed, lambda each: each == at("8.8.4.4"), near=True)
    for text in ("127.0.0.1", "::1", "8.8.4.4", "10.0.0.5"):
        assert not reach.allows(at(text), 80, 0)
        assert reach.pin("index.test", [at(text)], 0) == [at(text)]
        assert reach.allows(at(text), 80, 1)
        assert not reach.allows(at(text), 81, 1)
        assert reach.pin("x.wild.test", [at(text)], 0) == []
    for text in ("169.254.169.254", "fe80::1", "168.63.129.16", "0.0.0.0"):
        assert reach.pin("index.test", [at(text)], 2) == []


def test_a_machines_own_names(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(
        "# of this machine\n127.0.0.1 localhost Index.test # here\nodd x\n\n::1 index.test\n"
    )
    found = list(hosts(str(tmp_path / "hosts")))
    assert found == [
        ("localhost", at("127.0.0.1")), ("index.test", at("127.0.0.1")), ("index.test", at("::1"))
    ]  # fmt: skip
    assert list(hosts(str(tmp_path / "none"))) == []


def test_a_private_address_is_a_names_and_no_wildcards() -> None:
    reach = Destinations(["db.test:5432", "*.wild.test:5432"], nobodys)
    for text in ("10.0.0.5", "fd00::5"):
        assert reach.pin("db.test", [at(text)], 0) == [at(text)]
        assert reach.pin("x.wild.test", [at(text)], 0) == []
    assert reach.ports("x.y.wild.test") == {5432}
    assert reach.ports("wild.test") == reach.ports("xwild.test") == set()


def test_a_question_and_its_answer() -> None:
    name = b"\x03Api\x04test\x00"
    packet = struct.pack(">6H", 77, 0x0100, 1, 0, 0, 0) + name + struct.pack(">HH", IPV4, 1)
    question = Question.of(packet)
    assert question is not None
    assert (question.id, question.name, question.kind) == (77, "api.test", IPV4)
    made = reply(question, [at("8.8.8.8"), at("2606:4700::1")])
    assert made[:12] == struct.pack(">6H", 77, 0x8180, 1, 1, 0, 0)
    assert (
        made[12:]
        == packet[12:] + b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\x08\x08\x08\x08"
    )
    assert reply(question, error=NO_SUCH_NAME)[3] & 0xF == NO_SUCH_NAME
    six = Question.of(packet[:-4] + struct.pack(">HH", IPV6, 1))
    assert six is not None
    assert reply(six, [at("8.8.8.8")])[6:8] == b"\0\0"
    for cut in range(len(packet)):
        assert Question.of(packet[:cut]) is None
    assert Question.of(reply(question)) is None
    for odd in (b"\x03A\0i\x04test\x00", b"\x03A.i\x04test\x00", b"\x03A i\x04test\x00"):
        assert Question.of(packet.replace(name, odd)) is None


def test_calls_have_numbers_on_both_machines() -> None:
    assert number_of("x86_64", (41, 198)) == 41
    assert number_of("aarch64", (41, 198)) == 198


# Functions


CODE = """
import socket

def handler(event):
    host, port = event.json()
    sock = socket.socket()
    found = sock.connect_ex((host, port))
    return {"found": found, "got": sock.recv(10).decode() if not found else ""}
"""


@asynccontextmanager
async def loaded(
    tmp_path: Path, *network: str, level: str = "process"
) -> AsyncIterator[ProcessZygote]:
    tmp_path.chmod(0o755)
    for above in tmp_path.parents[:2]:
        above.chmod(0o755)
    (tmp_path / "main.py").write_text(CODE)
    sandbox = ProcessSandbox(policy=Policy(forced=level))  # type: ignore[arg-type]
    await sandbox.start()
    try:
        if level in await sandbox.probed():
            pytest.skip(f"no level {level} here")
        code = Code(name="f", version="1", path=tmp_path, network=network)
        try:
            zygote = await sandbox.load(code)
        except NetworkUnenforced as error:
            pytest.skip(str(error))
        yield zygote
    finally:
        await sandbox.close()


class Calls:
    def __init__(self, zygote: ProcessZygote) -> None:
        self.zygote = zygote
        self.said: asyncio.Queue[Any] = asyncio.Queue()

    async def start(self) -> None:
        self.instance = await self.zygote.spawn(
            lambda _, messages: [self.said.put_nowait(each) for each in messages] and None,
            lambda _, ended: self.said.put_nowait(ended.reason),
        )

    def send(self, host: str, port: int) -> None:
        event = Event("1", "/s", "t", data=json.dumps([host, port]).encode())
        self.instance.send([Call(1, "t", [event], 1, 30, 0, "scope")])

    async def ask(self, host: str, port: int) -> Any:
        self.send(host, port)
        async with asyncio.timeout(10):
            found = await self.said.get()
        return found if isinstance(found, str) else json.loads(found.outputs[0].event.data)


def server() -> tuple[socket.socket, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, listener.getsockname()[1]


def supervisor_of(zygote: ProcessZygote) -> int:
    runtime = zygote.sandbox.keeper.process
    assert runtime is not None
    path = Path(f"/proc/{runtime.pid}/task/{runtime.pid}/children")
    return next(pid for pid in map(int, path.read_text().split()) if pid != zygote.pid)


@pytest.mark.parametrize("level", ["process", "sandbox"])
@in_a_loop
async def test_what_is_listed_is_reached_and_nothing_else(tmp_path: Path, level: str) -> None:
    listener, port = server()
    other, closed = server()
    with listener, other:
        async with loaded(tmp_path, f"127.0.0.1:{port}", level=level) as zygote:
            calls = Calls(zygote)
            await calls.start()
            assert (await calls.ask("127.0.0.1", closed))["found"] == 13
            calls.send("127.0.0.1", port)
            sock, _ = await asyncio.to_thread(listener.accept)
            with sock:
                sock.send(b"hello")
            found = await calls.said.get()
            assert json.loads(found.outputs[0].event.data) == {"found": 0, "got": "hello"}


@in_a_loop
async def test_a_function_whose_supervisor_is_killed_ends(tmp_path: Path) -> None:
    async with loaded(tmp_path, "127.0.0.1:9") as zygote:
        calls = Calls(zygote)
        await calls.start()
        assert (await calls.ask("127.0.0.1", 9))["found"] == 111
        os.kill(supervisor_of(zygote), signal.SIGKILL)
        async with asyncio.timeout(5):
            assert isinstance(await calls.said.get(), str)
        assert not zygote.alive


@in_a_loop
async def test_a_call_that_waits_for_a_supervisor_can_be_ended(tmp_path: Path) -> None:
    async with loaded(tmp_path, "127.0.0.1:9") as zygote:
        calls = Calls(zygote)
        await calls.start()
        supervisor = supervisor_of(zygote)
        os.kill(supervisor, signal.SIGSTOP)
        calls.send("127.0.0.1", 9)
        await asyncio.sleep(0.2)
        assert calls.said.empty()
        started = time.monotonic()
        calls.instance.kill("over its timeout")
        assert await calls.said.get() == "over its timeout"
        assert time.monotonic() - started < 2
        os.kill(supervisor, signal.SIGCONT)
        await calls.start()
        assert (await calls.ask("127.0.0.1", 9))["found"] == 111


@in_a_loop
async def test_a_supervisor_ends_with_its_function(tmp_path: Path) -> None:
    async with loaded(tmp_path, "127.0.0.1:9") as zygote:
        supervisor = supervisor_of(zygote)
        await zygote.stop()
        async with asyncio.timeout(5):
            while Path(f"/proc/{supervisor}").exists():
                await asyncio.sleep(0.02)


@in_a_loop
async def test_a_list_is_refused_where_nothing_would_hold_it(tmp_path: Path) -> None:
    sandbox = ProcessSandbox(policy=Policy())
    await sandbox.start()
    sandbox.missing = {}
    sandbox._probed = asyncio.get_running_loop().create_future()
    sandbox._probed.set_result(None)
    code = Code(
        name="f", version="1", path=tmp_path, isolation="container", network=("a.test:443",)
    )
    with pytest.raises(
        NetworkUnenforced, match=r"f: its sandbox.network .* Ask for isolation"
    ) as e:
        await sandbox.load(code)
    assert isinstance(e.value, SandboxError)
    await sandbox.close()
