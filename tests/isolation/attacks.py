"""A function that attacks what holds it. Each attack returns what it got, or raises.

It is copied into a function's directory, so it imports nothing of the tests."""

import ctypes
import os
import re
import resource
import socket
import struct
import sys
import tempfile
import time

libc = ctypes.CDLL(None, use_errno=True)
ARM = os.uname().machine == "aarch64"


def handler(event):
    asked = event.json()
    got = ATTACKS[asked["attack"]](asked)
    return got if asked["attack"] == "a large output" else {"got": repr(got)[:200]}


def call(number, *arguments):
    """A system call by its number on x86_64 and aarch64."""
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    found = libc.syscall(ctypes.c_long(number[1] if ARM else number[0]), *given)
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def read(path):
    with open(path, "rb") as file:
        return file.read(100)


def opened_for_writing(path):
    """Nothing is written: where it works, this is the machine that the tests run on."""
    with open(path, "ab"):
        return path


def cut(path):
    """Opened for reading: Landlock asks for no more before Linux 6.2."""
    os.close(os.open(path, os.O_RDONLY | os.O_TRUNC))
    if os.path.getsize(path):
        raise OSError("it is whole")
    return "cut"


def temporary(name):
    return os.path.join(tempfile.mkdtemp(), name)


def link_to(path):
    link = temporary("link")
    os.symlink(path, link)
    return read(link)


def hard_link(path):
    link = temporary("hard")
    os.link(path, link)
    return read(link)


def dots(path):
    return read(os.path.join(os.getcwd(), "../" * 40, path.lstrip("/")))


def through_descriptors(asked):
    """What it inherited besides its streams and its channel, which is a socket of its own."""
    found = []
    for fd in range(3, 1000):
        try:
            info = os.fstat(fd)
        except OSError:
            continue
        if info.st_mode & 0o170000 == 0o140000:  # a socket: somebody else's, if it listens
            sock = socket.socket(fileno=os.dup(fd))
            if sock.family != socket.AF_UNIX or sock.getsockopt(socket.SOL_SOCKET, 30):
                found.append(fd)
        elif info.st_mode & 0o170000 in (0o100000, 0o040000):
            name = os.readlink(f"/proc/self/fd/{fd}") if os.path.exists("/proc/self") else "?"
            if "begun" not in name and info.st_nlink:
                found.append((fd, name))
    if not found:
        raise OSError("nothing")
    return found


def other_pids(asked):
    seen = [int(pid) for pid in os.listdir("/proc") if pid.isdigit()]
    if asked["host"] not in seen:
        raise OSError(f"{len(seen)} seen")
    return seen


def probe_pids(asked):
    """Signals tell which processes there are."""
    os.kill(asked["host"], 0)
    return asked["host"]


def in_environ(asked):
    return next(value for value in os.environ.values() if "host-secret" in value)


def connect(family, kind, address):
    sock = socket.socket(family, kind)
    sock.settimeout(2)
    sock.connect(address)
    if kind == socket.SOCK_DGRAM:
        sock.send(b"x")
        time.sleep(0.05)
        sock.send(b"x")  # refused where the first has found nobody
    return sock


def datagram(path):
    """A socket of a pair is one like any other, which has been connected already."""
    ours, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return ours.sendto(b"x", path)


def watcher():
    return call((294, 26), 0)  # inotify_init1


def shared_memory(number):
    libc.shmat.restype = ctypes.c_void_p
    found = libc.shmat(number, None, 0)
    if found in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return ctypes.string_at(found, 4)


def ptrace(pid):
    return call((101, 117), 16, pid, None, None)  # PTRACE_ATTACH


def read_memory(pid):
    there = ctypes.create_string_buffer(8)
    local = struct.pack("=QQ", ctypes.addressof(there), 8)
    return call((310, 270), pid, local, 1, struct.pack("=QQ", 0x400000, 8), 1, 0)


def take_descriptor(pid):
    return call((438, 438), os.pidfd_open(pid), 0, 0)


def outlive():
    """Its parent's end is told to it no more."""
    if libc.prctl(1, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    return "untied"


def memory_near(start, pipe, most=4096):
    """What can be read around an address, page by page: write(2) fails where there is nothing."""
    held = {}
    for step in (1, -1):
        page, missed = start // 4096 if step > 0 else start // 4096 - 1, 0
        while missed < most and page > 0:
            if libc.write(pipe[1], ctypes.c_void_p(page * 4096), ctypes.c_size_t(4096)) == 4096:
                held[page] = os.read(pipe[0], 4096)
                missed = 0
            else:
                missed += 1
            page += step
    return b"".join(held[page] for page in sorted(held))


def neighbours_environment(asked):
    """In its own memory: what it was forked from may have had it."""
    pipe = os.pipe()
    mine = f"own-env-{os.urandom(16).hex()}"  # to be found, too
    libc.sbrk.restype = libc.getauxval.restype = ctypes.c_void_p
    big = bytearray(8 << 20)
    # Its heap, its stack by what the kernel laid there, and what was mapped.
    starts = [libc.sbrk(0), libc.getauxval(25), id(object()), id(os), id(None), id(asked)]
    starts += [ctypes.addressof(ctypes.c_char.from_buffer(big))]
    starts += [ctypes.cast(libc.write, ctypes.c_void_p).value]
    found = set()
    for start in starts:
        found |= set(re.findall(rb"(own|other)-env-[0-9a-f]{32}", memory_near(start, pipe)))
    if found == {b"own"}:
        raise OSError("nothing but its own")
    return found, mine


def become_root(asked):
    os.setresuid(0, 0, 0)
    if os.geteuid() == 0 and not asked["root"]:
        return "root"
    return read("/etc/shadow")


def terminal(asked):
    """Types into the terminal that it was lent, if any; a pair of its own shows the same."""
    _, theirs = os.openpty()
    import fcntl

    return fcntl.ioctl(theirs, 0x5412, b"x")


def programs(asked):
    pid = os.posix_spawn("/bin/true", ["true"], {})
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError("it could not be started")
    return pid


def setuid_file(asked):
    os.execv(asked["setuid"], ["su"])


def namespaces(flags):
    found = libc.unshare(flags)
    if found < 0:
        raise OSError(ctypes.get_errno(), "")
    return found


def clone3(asked):
    pid = call((435, 435), struct.pack("=11Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0), 88)
    if pid == 0:
        os._exit(0)
    return pid


# Bombs: they return how far they came


def forks(asked):
    children = []
    try:
        while len(children) < 20_000:
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            children.append(pid)
    except OSError:
        pass
    for pid in children:
        os.kill(pid, 9)
    for pid in children:
        os.waitpid(pid, 0)
    return len(children)


def memory(asked):
    held = []
    try:
        while len(held) < 200:
            held.append(bytearray(os.urandom(1) * (16 << 20)))
    except MemoryError:
        pass
    return len(held) * 16


def disk(asked):
    written = 0
    path = temporary("big")
    try:
        with open(path, "wb", buffering=0) as file:
            while written < 100 << 20:
                written += file.write(bytes(1 << 20))
    except OSError:
        pass
    os.path.exists(path) and os.unlink(path)
    return written >> 20


def many_files(asked):
    written, paths = 0, []
    try:
        for _ in range(8):
            paths.append(temporary("large"))
            with open(paths[-1], "wb", buffering=0) as file:
                for _ in range(15):
                    written += file.write(bytes(1 << 20))
    except OSError:
        pass
    for path in paths:
        os.path.exists(path) and os.unlink(path)
    return written >> 20


def mount():
    if libc.mount(b"x", b"/tmp", b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return call((166, 39), b"/tmp", 2)


def descriptors(asked):
    held = []
    try:
        while len(held) < 100_000:
            held.append(os.dup(0))
    except OSError:
        pass
    for fd in held:
        os.close(fd)
    return len(held)


def flood(asked):
    for _ in range(200_000):
        print("x" * 100)
    return "written"


def output(asked):
    return "x" * (64 << 20)


def stops_itself(asked):
    os.kill(os.getpid(), 19)
    time.sleep(60)


def spins(asked):
    while True:
        pass


def closes_channel(asked):
    os.closerange(3, 1000)
    time.sleep(60)


def forges(asked):
    """Says that another's call ended: the length, then a list with one result, as msgpack."""
    import msgspec

    for fd in range(3, 1000):
        try:
            sock = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        body = msgspec.msgpack.encode([["result", 999_999, "ok", [], None, 1, None, None]])
        sock.sendall(struct.pack(">I", len(body)) + body)
        sock.sendall(struct.pack("<I", len(body)) + body)
    return "sent"


ATTACKS = {
    # files
    "read a file of the host": lambda a: read(a["file"]),
    "... through a link": lambda a: link_to(a["file"]),
    "... through a hard link": lambda a: hard_link(a["file"]),
    "... through ..": lambda a: dots(a["file"]),
    "... through /proc/PID/root": lambda a: read(f"/proc/{a['host']}/root{a['file']}"),
    "read another function's code": lambda a: read(a["other"]),
    "read another function's /tmp": lambda a: read(a["other_tmp"]),
    "read /etc/shadow": lambda a: read("/etc/shadow"),
    "change its own code": lambda a: opened_for_writing(__file__),
    "change the interpreter": lambda a: opened_for_writing(os.__file__),
    "write elsewhere": lambda a: opened_for_writing(a["directory"] + "/x"),
    "list a directory of the host": lambda a: os.listdir(a["directory"]),
    "read a device": lambda a: read(a["device"]),
    "make a device": lambda a: os.mknod(tempfile.gettempdir() + "/null", 0o20600, os.makedev(1, 3)),
    "open a file by its handle": lambda a: call((304, 265), -100, b"x" * 16, 0),
    "a setuid program": setuid_file,
    "change a file's mode": lambda a: os.chmod(a["file"], 0o666) or "changed",
    "change the mode of its own code": lambda a: os.chmod(__file__, 0o755) or "changed",
    "change a file's times": lambda a: os.utime(a["file"]) or "changed",
    "set a file's attribute": lambda a: os.setxattr(a["file"], "user.x", b"1") or "set",
    "cut a file": lambda a: os.truncate(a["file"], 11) or "cut",
    "cut a file that it may read": lambda a: cut(a["own"]),
    "watch a directory": lambda a: call((254, 27), watcher(), a["directory"].encode(), 0x100),
    "a file's size": lambda a: os.stat(a["file"]).st_size,
    # mounts
    "mount": lambda a: mount(),
    "unmount": lambda a: call((166, 39), b"/tmp", 2),
    "chroot": lambda a: os.chroot("/tmp"),
    "pivot_root": lambda a: call((155, 41), b"/tmp", b"/tmp"),
    "open_tree": lambda a: call((428, 428), -100, b"/", 1),
    # processes
    "see the host's processes": other_pids,
    "signal the host": lambda a: os.kill(a["host"], 18) or "sent",
    "signal another function": lambda a: os.kill(a["neighbour"], 18) or "sent",
    "signal its zygote": lambda a: os.kill(os.getppid(), 9) or os.kill(os.getppid(), 0) or "sent",
    "trace another function": lambda a: ptrace(a["neighbour"]),
    "read a process's memory": lambda a: read_memory(a["neighbour"]),
    "take a process's descriptor": lambda a: take_descriptor(a["neighbour"]),
    "read the host's environment": lambda a: read(f"/proc/{a['host']}/environ"),
    "read process 1's environment": lambda a: b"host-secret" in read("/proc/1/environ") or 1 / 0,
    "find the host's secrets in its own": in_environ,
    "find another function's environment": neighbours_environment,
    "outlive its host": lambda a: outlive(),
    "use an inherited descriptor": through_descriptors,
    "start a program": programs,
    "slow others down by priority": lambda a: os.setpriority(os.PRIO_PROCESS, 0, -5),
    "slow the host down": lambda a: os.setpriority(os.PRIO_PROCESS, a["host"], 1) or "slowed",
    "bind the host to a processor": lambda a: os.sched_setaffinity(a["host"], a["cpus"]) or "bound",
    "limit the host": lambda a: resource.prlimit(a["host"], resource.RLIMIT_CORE, (0, 0)),
    "memory of System V": lambda a: shared_memory(a["shm"]),
    "a message queue": lambda a: call((240, 180), a["abstract"].encode(), 2, 0, None),
    "become root": become_root,
    "raise its limits": lambda a: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40)),
    "type into a terminal": terminal,
    # the kernel
    "a user namespace": lambda a: namespaces(0x10000000),
    "a user namespace by clone3": clone3,
    "enter the host's namespaces": lambda a: call((308, 268), 0, 0),
    "io_uring": lambda a: call((425, 425), 4, bytes(120)),
    "bpf": lambda a: call((321, 280), 0, bytes(48), 48),
    "perf": lambda a: call((298, 241), struct.pack("=II112x", 1, 112), 0, -1, -1, 0),
    "userfaultfd": lambda a: call((323, 282), 1),
    "keyrings": lambda a: call((248, 217), b"user", b"k", b"v", 1, -2),
    "the kernel's log": lambda a: call((103, 116), 3, bytes(100), 100),
    "a kernel module": lambda a: call((175, 105), b"x", 1, b""),
    "set the clock": lambda a: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "a 32-bit call": lambda a: call((0x40000000 | 39, 10**6)),
    # the network
    "loopback, TCP": lambda a: connect(socket.AF_INET, socket.SOCK_STREAM, tuple(a["tcp"])),
    "loopback, UDP": lambda a: connect(socket.AF_INET, socket.SOCK_DGRAM, tuple(a["tcp"])),
    "listen": lambda a: socket.create_server(("127.0.0.1", 0)),
    "an abstract Unix socket": lambda a: connect(
        socket.AF_UNIX, socket.SOCK_STREAM, "\0" + a["abstract"]
    ),
    "a datagram to a Unix socket's path": lambda a: datagram(a["datagrams"]),
    "a Unix socket's path": lambda a: connect(socket.AF_UNIX, socket.SOCK_STREAM, a["unix"]),
    "raw sockets": lambda a: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "packet sockets": lambda a: socket.socket(17, socket.SOCK_RAW, 0),
    "netlink": lambda a: socket.socket(16, socket.SOCK_RAW, 0),
    "sockets of virtual machines": lambda a: socket.socket(40, socket.SOCK_STREAM),
    "the kernel's ciphers": lambda a: socket.socket(38, socket.SOCK_SEQPACKET),
}
BOMBS = {
    "forks": forks,
    "memory": memory,
    "one large file": disk,
    "many large files": many_files,
    "descriptors": descriptors,
    "lines": flood,
    "a large output": output,
    "stops itself": stops_itself,
    "spins": spins,
    "closes its channel": closes_channel,
    "forges another's result": forges,
}
ATTACKS |= BOMBS
HARMLESS = [
    "read a file of the host", "... through a link", "... through a hard link", "... through ..",
    "... through /proc/PID/root", "read another function's code", "change its own code",
    "write elsewhere", "list a directory of the host", "see the host's processes",
    "signal the host", "signal another function", "read the host's environment",
    "change a file's mode", "change the mode of its own code", "change a file's times",
    "set a file's attribute", "cut a file", "watch a directory", "a file's size",
    "outlive its host", "cut a file that it may read", "slow the host down",
    "bind the host to a processor", "limit the host",
    "memory of System V", "a message queue", "a datagram to a Unix socket's path",
    "start a program", "a user namespace", "loopback, TCP",
    "loopback, UDP", "listen", "an abstract Unix socket", "a Unix socket's path", "netlink",
]  # fmt: skip
"""Those that leave nothing behind where they work."""
assert sys.version_info >= (3, 11)
