"""What of the standard library works at each level of isolation, what does not, and how that is
said."""

import asyncio
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop

from funcrt.errors import LoadError
from funcrt.sandbox import Code
from funcrt.sandbox.levels import Level, Policy
from funcrt.sandbox.process import ProcessSandbox
from funcrt.sandbox.protocol import Call, Log, Result
from mesh import Event
from tests.levels import needs

SOURCE = """
import asyncio
import socket
import ssl  # before the fork, as an author would
import subprocess


def square(n):
    return n * n


def fill(lock, at, total):
    with lock:
        total.value += at


def pool(method):
    import multiprocessing
    with multiprocessing.get_context(method).Pool(2) as made:
        return made.map(square, range(5))


def a_reader_that_left():
    ours, theirs = socket.socketpair()
    theirs.close()
    try:
        ours.send(b"x")
    except BrokenPipeError:
        return "told"


def processes():
    import multiprocessing
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=theirs.send, args=["hello"])
    child.start()
    found = ours.recv()
    child.join(5)
    sleeper = context.Process(target=__import__("time").sleep, args=[60])
    sleeper.start()
    sleeper.terminate()
    sleeper.join(5)
    return [found, child.exitcode, sleeper.exitcode]


def locks():
    import multiprocessing
    context = multiprocessing.get_context("fork")
    lock, total = context.Lock(), context.Value("i", 0)
    children = [context.Process(target=fill, args=[lock, at, total]) for at in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(5)
    return total.value


def other_way(way):
    import multiprocessing
    child = multiprocessing.get_context(way).Process(target=square, args=[1])
    child.start()
    child.join(5)
    return child.exitcode


def spawning_executor():
    import concurrent.futures, multiprocessing
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as made:
        return list(made.map(square, range(5)))


def spawning_manager():
    import multiprocessing
    return multiprocessing.get_context("forkserver").Manager().list([1])


def started_beneath():
    import os
    return os.posix_spawn("/bin/true", ["true"], {})


def replaced():
    import os
    os.execv("/bin/true", ["true"])


def shared_memory():
    from multiprocessing.shared_memory import SharedMemory
    made = SharedMemory(create=True, size=1 << 16)
    made.buf[:5] = b"hello"
    again = SharedMemory(made.name)
    found = bytes(again.buf[:5]).decode()
    again.close()
    made.close()
    made.unlink()
    return found


def executor(kind):
    import concurrent.futures
    with getattr(concurrent.futures, kind)(2) as made:
        return list(made.map(square, range(5)))


def threads():
    import queue, threading
    told = queue.Queue()
    made = [threading.Thread(target=told.put, args=[at]) for at in range(20)]
    for each in made:
        each.start()
    for each in made:
        each.join()
    return sorted(told.queue) == list(range(20))


async def tasks():
    async with asyncio.TaskGroup() as group:
        made = [group.create_task(asyncio.sleep(0.01, at)) for at in range(3)]
    found = await asyncio.to_thread(square, 3)
    lines = []
    one = await asyncio.open_connection(sock=pair[0])
    two = await asyncio.open_connection(sock=pair[1])
    one[1].write(b"hello\\n")
    return [each.result() for each in made], found, (await two[0].readline()).decode()


def loop(run):
    import socket
    global pair
    pair = socket.socketpair()
    return run(tasks())


def on_uvloop():
    import uvloop
    return loop(uvloop.run)


def database():
    import os, sqlite3, tempfile
    path = os.path.join(tempfile.mkdtemp(), "own.db")
    one, two = sqlite3.connect(path), sqlite3.connect(path)
    mode = one.execute("pragma journal_mode = wal").fetchone()[0]
    one.execute("create table t (n)")
    one.executemany("insert into t values (?)", [(n,) for n in range(1000)])
    one.commit()
    return [mode, two.execute("select sum(n) from t").fetchone()[0]]


def files():
    import mmap, os, shutil, tempfile
    with tempfile.TemporaryDirectory() as made, tempfile.NamedTemporaryFile() as named:
        named.write(b"hello")
        named.flush()
        shutil.copyfile(named.name, os.path.join(made, "copy"))
        os.rename(os.path.join(made, "copy"), os.path.join(made, "renamed"))
        with open(os.path.join(made, "renamed"), "r+b") as file:
            with mmap.mmap(file.fileno(), 5) as held:
                held[:1] = b"j"
        found = open(os.path.join(made, "renamed")).read()
    with tempfile.SpooledTemporaryFile(10) as spooled, tempfile.TemporaryFile() as unnamed:
        spooled.write(b"x" * 100)
        unnamed.write(b"y")
    return [found, tempfile.gettempdir() == os.environ.get("TMPDIR", "/tmp")]


def copy():
    import shutil, tempfile
    with tempfile.NamedTemporaryFile() as named:
        shutil.copy(named.name, named.name + "-copy")
    return "copied"


def tls():
    import socket
    context = ssl.create_default_context()
    client, server = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = context.wrap_bio(client, server, server_hostname="example.com")
    try:
        half.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return [bool(context.get_ca_certs()), server.pending > 100, len(ssl.RAND_bytes(8))]


def places():
    import datetime, locale, zoneinfo
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    there = zoneinfo.ZoneInfo("Europe/Berlin")
    summer = datetime.datetime(2024, 7, 1, tzinfo=there)
    zones = len(zoneinfo.available_timezones())
    return [locale.getlocale()[1], str(summer.utcoffset()), zones > 100]


def system():
    import getpass, os, pathlib, platform, signal, socket, uuid
    old = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)
    return [str(pathlib.Path.home()) == os.environ["HOME"], bool(platform.platform()),
            len(str(uuid.uuid1())), bool(socket.gethostname()), os.cpu_count() > 0,
            len(os.sched_getaffinity(0)) > 0]


def program():
    return subprocess.run(["true"], check=True)


def program_of_asyncio():
    async def run():
        return await asyncio.create_subprocess_exec("true")
    return asyncio.run(run())


def shell():
    import os
    return os.system("true")


def name():
    import socket
    return socket.getaddrinfo("example.com", 443)


def connection():
    import urllib.request
    return urllib.request.urlopen("http://127.0.0.1:1/")


DO = {
    "a pool, forked": lambda: pool("fork"),
    "processes": processes,
    "locks of processes": locks,
    "a spawned process": lambda: other_way("spawn"),
    "a process of a fork server": lambda: other_way("forkserver"),
    "a pool, spawned": lambda: pool("spawn"),
    "an executor, spawning": spawning_executor,
    "a manager": spawning_manager,
    "a program, by posix_spawn": started_beneath,
    "a program in its place": replaced,
    "shared memory": shared_memory,
    "an executor of threads": lambda: executor("ThreadPoolExecutor"),
    "an executor of processes": lambda: executor("ProcessPoolExecutor"),
    "threads": threads,
    "a reader that left": a_reader_that_left,
    "asyncio": lambda: loop(asyncio.run),
    "uvloop": on_uvloop,
    "a database": database,
    "files": files,
    "copies with modes": copy,
    "TLS": tls,
    "places": places,
    "the system": system,
    "a program": program,
    "a program of asyncio": program_of_asyncio,
    "a shell": shell,
    "a name": name,
    "a connection": connection,
}


def handler(event):
    return {"got": DO[event.json()]()}
"""
SQUARES = [0, 1, 4, 9, 16]
TASKS = [[0, 1, 2], 9, "hello\n"]
WORKS: dict[str, Any] = {
    "processes": ["hello", 0, -15],
    "an executor of threads": SQUARES,
    "threads": True,
    "a reader that left": "told",
    "asyncio": TASKS,
    "uvloop": TASKS,
    "a database": ["wal", 499500],
    "files": ["jello", True],
    "TLS": [True, True, 8],
    "places": ["UTF-8", "2:00:00", True],
    "the system": [True, True, 36, True, True, True],
}
SHARED = {
    "a pool, forked": SQUARES,
    "an executor of processes": SQUARES,
    "locks of processes": 6,
    "shared memory": "hello",
}
"""What needs memory under a name."""
SPAWNING = ("a pool, spawned", "an executor, spawning", "a manager")
REFUSED = {
    **dict.fromkeys(
        (
            "a program",
            "a program of asyncio",
            "a program, by posix_spawn",
            "a program in its place",
        ),
        r"PermissionError: .* \(programs cannot be started at isolation '\w+', nor at another but "
        r"'none': do it in Python, or in a service that it calls\)$",
    ),
    **{
        f"a {what}": rf"PermissionError: \[Errno 1\] multiprocessing starts a program for its way "
        rf'"{way}", and none for "fork" \(programs cannot be started at isolation \'\w+\', nor at '
        r'another but \'none\'; use threads, .*multiprocessing.get_context\("fork"\), or an event '
        r"for each piece of work\)$"
        for what, way in (("spawned process", "spawn"), ("process of a fork server", "forkserver"))
    },
    "a name": r'gaierror: .*\(sandbox.network is "none"\)',
    "a connection": r'URLError: .*\(sandbox.network is "none"\)',
}


@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_what_works_and_what_is_refused_with_why(tmp_path: Path, level: Level) -> None:
    said: list[str] = []
    found = told(level, tmp_path, said)
    assert {name: found.pop(name) for name in WORKS} == WORKS
    for name, expected in REFUSED.items():
        assert re.match(expected, found[name]), found[name]
        del found[name]
    shared = {name: found.pop(name) for name in SHARED}
    spawning = [found.pop(name) for name in SPAWNING]
    if level == "sandbox":
        assert shared == SHARED
        assert [text for text in spawning if "multiprocessing starts a program" not in text] == []
    else:
        why = (
            "(at isolation 'process' processes share no locks and no memory by name; use threads,"
            ' isolation = "sandbox" and multiprocessing.get_context("fork"), or an event for each'
            " piece of work)"
        )
        locks = [*shared.values(), *spawning[:2]]
        assert [text for text in locks if not str(text).endswith(why)] == []
        assert "multiprocessing starts a program" in spawning[2]
    copied = found.pop("copies with modes")
    own_user = level == "sandbox" or os.geteuid() == 0
    assert copied == "copied" if own_user else copied.startswith("PermissionError")
    assert found == {"a shell": 127 << 8}
    assert said == ["os.system: programs cannot be started by a function, so it returns 127 << 8"]


@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_an_import_that_starts_a_program_is_told_why_it_cannot(
    tmp_path: Path, level: Level
) -> None:
    (tmp_path / "main.py").write_text(
        "try:\n    import subprocess\n    subprocess.run(['git'])\n"
        "except OSError as error:\n    raise ImportError('no git') from error\n"
    )

    async def main() -> None:
        sandbox = ProcessSandbox(policy=Policy(forced=level))
        await sandbox.start()
        try:
            needs(level)
            with pytest.raises(LoadError) as refused:
                await sandbox.load(Code(name="f", version="1", path=tmp_path))
            assert refused.value.problem.line == 5
            assert refused.value.problem.message == (
                "fails to import: ImportError: no git (programs cannot be started at isolation"
                f" {level!r}, nor at another but 'none': do it in Python, or in a service that it"
                " calls)"
            )
        finally:
            await sandbox.close()

    asyncio.run(main())


def took(came: "asyncio.Queue[Any]", lines: list[str]) -> Callable[[Any, Sequence[Any]], None]:
    """Sorts what an instance says."""

    def heard(_: Any, said: Sequence[Any]) -> None:
        for one in said:
            if isinstance(one, Log):
                lines.append(one.text)
            else:
                came.put_nowait(one)

    return heard


def told(level: Level, path: Path, lines: list[str]) -> dict[str, Any]:
    """What came of each; and what was printed."""
    (path / "main.py").write_text(SOURCE)
    found: dict[str, Any] = {}
    table = SOURCE.split("DO = {")[1].split("def handler", maxsplit=1)[0]
    names = re.findall(r'^    "(.+)": ', table, re.M)

    async def main() -> None:
        sandbox = ProcessSandbox(policy=Policy(forced=level))
        await sandbox.start()
        try:
            needs(level)
            zygote = await sandbox.load(Code(name="f", version="1", path=path))
            came: asyncio.Queue[Any] = asyncio.Queue()
            for number, name in enumerate(names, 1):
                instance = await zygote.spawn(
                    took(came, lines), lambda _, ended: came.put_nowait(ended)
                )
                event = Event("1", "/s", "t", data=json.dumps(name).encode())
                instance.send([Call(number, "t", [event], 1, 5, 0, "scope")])
                async with asyncio.timeout(20):
                    said = await came.get()
                if isinstance(said, Result) and said.status == "ok":
                    found[name] = json.loads(said.outputs[0].event.data or b"")["got"]
                elif isinstance(said, Result) and said.failure is not None:
                    found[name] = f"{said.failure.error}: {said.failure.message}"
                else:  # it has ended
                    found[name] = said
                    continue
                instance.kill("done")
                async with asyncio.timeout(20):
                    await came.get()
        finally:
            await sandbox.close()

    uvloop.run(main())
    return found
