"""What functions may not ask the kernel for, and the program that refuses it.

A call that is not named here goes through; one that is newer than those this file knows is
answered as an older kernel would. The program is that of seccomp(2): classic BPF over
`struct seccomp_data`.
"""

import errno
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = [
    "ARCHITECTURES",
    "ASK",
    "CONNECT",
    "LISTEN",
    "NAMELESS",
    "NOTHING",
    "SOCKET",
    "SOCKETPAIR",
    "Rule",
    "childless",
    "number_of",
    "program",
    "rules",
    "supervised",
]

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH of the machines that this file has numbers for."""
ASK = 0
"""Not an error: whoever holds the listener answers."""
NOTHING = -1
"""Not an error: it is said to be done, and nothing is."""
NEWEST = 462
"""mseal, of Linux 6.10."""
X32 = 0x40000000
"""Of the x86_64 calls with 32-bit pointers, which have numbers of their own."""

KERNEL = {
    # its state: clocks, modules, memory, accounting, power
    "acct": (163, 89), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "clock_settime": (227, 112), "delete_module": (176, 106), "finit_module": (313, 273),
    "init_module": (175, 105), "ioperm": (173, None), "iopl": (172, None),
    "kexec_file_load": (320, 294), "kexec_load": (246, 104), "lookup_dcookie": (212, 18),
    "modify_ldt": (154, None), "nfsservctl": (180, 42), "personality": (135, 92),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "reboot": (169, 142),
    "setdomainname": (171, 162), "sethostname": (170, 161), "settimeofday": (164, 170),
    "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116), "sysfs": (139, None),
    "_sysctl": (156, None), "uselib": (134, None), "ustat": (136, None), "vhangup": (153, 58),
    # its youngest and widest doors
    "bpf": (321, 280), "fanotify_init": (300, 262), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_uring_setup": (425, 425),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    # keyrings, which belong to users and not to namespaces
    "add_key": (248, 217), "keyctl": (250, 219), "request_key": (249, 218),
    # System V's memory, semaphores and messages, and queues: of the user, and nobody's to end
    "mq_open": (240, 180), "mq_unlink": (241, 181), "msgget": (68, 186), "msgctl": (71, 187),
    "msgrcv": (70, 188), "msgsnd": (69, 189), "semctl": (66, 191), "semget": (64, 190),
    "semop": (65, 193), "semtimedop": (220, 192), "shmat": (30, 196), "shmctl": (31, 195),
    "shmget": (29, 194),
    # file systems
    "chroot": (161, 51), "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430),
    "fspick": (433, 433), "mount": (165, 40), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "pivot_root": (155, 41), "umount2": (166, 39),
    # namespaces and users
    "setns": (308, 268), "capset": (126, 91), "setfsgid": (123, 152),
    "setfsuid": (122, 151), "setgid": (106, 144), "setgroups": (116, 159),
    "setregid": (114, 143), "setresgid": (119, 149), "setresuid": (117, 147),
    "setreuid": (113, 145), "setuid": (105, 146),
    # other processes
    "kcmp": (312, 272), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117),
}  # fmt: skip
PROGRAMS = {"execve": (59, 221), "execveat": (322, 281)}
FORKS = {"fork": (57, None), "vfork": (58, None)}
UNSHARE, CLONE, CLONE3 = (272, 97), (56, 220), (435, 435)
IOCTL = (16, 29)
SOCKETPAIR = (53, 199)
SETSOCKOPT = (54, 208)
SOCKET = (41, 198)
CONNECT = (42, 203)
LISTEN = (50, 201)
BIND = (49, 200)
SENDTO, SENDMSG, SENDMMSG = (44, 206), (46, 211), (307, 269)
NAMELESS = (319, 279)
"""memfd_create."""
PRCTL = (157, 167)
SIGNALS = {"kill": (62, 129), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
           "rt_tgsigqueueinfo": (297, 240)}  # fmt: skip
SIGNALS_AT_ANY = {"tkill": (200, 130), "pidfd_send_signal": (424, 424)}

CLONE_THREAD = 0x00010000
NAMESPACES = 0x7E020000
"""CLONE_NEW*, but for time, which clone(2) cannot make."""
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
SOL_SOCKET = 1
STREAM, RAW, PACKET = 1, 3, 10
SO_LINGER = 13
PDEATHSIG, SIGKILL = 1, 9
"""The end of a process with its parent, which nothing of ours asks to be gentler."""
FAST_OPEN = 0x20000000
"""MSG_FASTOPEN: connects, without connect(2)."""
OPTIONS = {
    # TCP_FASTOPEN_CONNECT, TCP_ULP: they change what connects, or what is connected
    6: (30, 31),
    # SO_BINDTODEVICE, SO_BINDTOIFINDEX: by which device it goes
    1: (25, 62),
    # IP_OPTIONS, which name hops; IP_UNICAST_IF
    0: (4, 50),
    # IPV6_2292RTHDR, IPV6_2292PKTOPTIONS, IPV6_RTHDRDSTOPTS, IPV6_RTHDR, IPV6_UNICAST_IF
    41: (5, 6, 55, 57, 76),
}
"""By level, of a TCP socket, those that send it elsewhere than to where it is connected."""
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
"""Type into a terminal that others read from."""


@dataclass(frozen=True)
class Rule:
    """A call, by its numbers on both machines, that fails with `error` (or, with ASK, is answered
    by whoever holds the listener, or, with NOTHING, by success): always, or where the low 32 bits
    of the argument `at`, under `mask`, are (`among`) or are not (`but`) one of these."""

    numbers: tuple[int | None, int] | tuple[int, int | None]
    error: int
    at: int = 0
    mask: int = 0xFFFFFFFF
    among: tuple[int, ...] = ()
    but: tuple[int, ...] = ()
    any_of: int = 0
    """Where any of these bits is set."""
    when: tuple[int, int] | None = None
    """Only where this argument has this value."""


def rules(
    *, unix: bool, network: bool = False, signals_to: int | None = None, programs: bool = False
) -> Iterator[Rule]:
    """The rules of one function: whether it has the internet's sockets and Unix ones (a connected
    pair of those it always has), the one process it may send signals to (None for any that the
    rest lets it), and whether it may start programs."""
    yield from _of_all(signals_to, programs)
    families = (*((UNIX,) if unix else ()), *((INET, INET6, NETLINK) if network else ()))
    yield Rule(SOCKET, errno.EACCES, but=families)
    yield Rule(SOCKET, errno.EPERM, at=1, mask=0xF, among=(RAW, PACKET))
    yield Rule(SOCKETPAIR, errno.EACCES, but=(UNIX,))
    yield _LINGER


def supervised(
    *,
    unix: bool,
    datagrams: bool,
    ask: bool = True,
    signals_to: int | None = None,
    programs: bool = False,
) -> Iterator[Rule]:
    """The rules of a function that somebody makes TCP connections for (`supervisor.py`); with
    `datagrams`, where it has a network of its own. Without `ask`, of one that another filter
    asks for."""
    yield from _of_all(signals_to, programs)
    yield Rule(SOCKET, errno.EACCES, but=(*((UNIX,) if unix else ()), INET, INET6))
    yield Rule(SOCKET, errno.EPERM, at=1, mask=0xF, among=(RAW, PACKET))
    if not datagrams:
        yield Rule(SOCKET, errno.EACCES, at=1, mask=0xF, but=(STREAM,))
    if ask:
        for family in (INET, INET6):
            yield Rule(SOCKET, ASK, at=1, mask=0xF, among=(STREAM,), when=(0, family))
        yield Rule(CONNECT, ASK)
    if not unix:
        yield Rule(LISTEN, errno.EACCES)
        yield Rule(BIND, errno.EACCES)
    elif ask:
        yield Rule(LISTEN, ASK)
    yield Rule(SENDTO, errno.EACCES, at=3, any_of=FAST_OPEN)
    yield Rule(SENDMSG, errno.EACCES, at=2, any_of=FAST_OPEN)
    yield Rule(SENDMMSG, errno.EACCES, at=3, any_of=FAST_OPEN)
    for level, options in OPTIONS.items():
        yield Rule(SETSOCKOPT, errno.EPERM, at=2, among=options, when=(1, level))
    yield Rule(SOCKETPAIR, errno.EACCES, but=(UNIX,))
    yield _LINGER


# Who closes a socket last waits until its peer has taken all. Sent over its channel, and closed by
# itself, that is the host.
_LINGER = Rule(SETSOCKOPT, errno.EPERM, at=2, among=(SO_LINGER,), when=(1, SOL_SOCKET))


def _of_all(signals_to: int | None, programs: bool) -> Iterator[Rule]:
    for numbers in (*KERNEL.values(), *(() if programs else PROGRAMS.values())):
        yield Rule(numbers, errno.EPERM)
    # As on a kernel without it: the C library then takes clone, whose flags can be looked at.
    yield Rule(CLONE3, errno.ENOSYS)
    yield Rule(CLONE, errno.EPERM, any_of=NAMESPACES)
    # Of itself it fails where a process has threads, which `handler.threads` asks by it.
    yield Rule(UNSHARE, errno.EPERM, any_of=0xFFFFFFFF ^ CLONE_THREAD)
    yield Rule(IOCTL, errno.EPERM, at=1, among=(TIOCSTI, TIOCLINUX))
    yield Rule(PRCTL, errno.EPERM, at=1, but=(SIGKILL,), when=(0, PDEATHSIG))
    if signals_to is not None:
        for numbers in SIGNALS.values():
            yield Rule(numbers, errno.EPERM, but=(signals_to,))
        for numbers in SIGNALS_AT_ANY.values():
            yield Rule(numbers, errno.EPERM)


def childless() -> Iterator[Rule]:
    """The rules of a program that starts threads, and no process."""
    yield Rule(CLONE3, errno.ENOSYS)
    yield Rule(CLONE, errno.EPERM, mask=CLONE_THREAD, but=(CLONE_THREAD,))
    for numbers in FORKS.values():
        yield Rule(numbers, errno.EPERM)


# The program. Codes of instructions: linux/bpf_common.h.

_LOAD, _RETURN, _AND = 0x20, 0x06, 0x54
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_HAND_OVER = 0x7FC00000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value & 0xFFFFFFFF)


def number_of(machine: str, call: tuple[int, int]) -> int:
    """Of a call on this machine. Raises KeyError for another machine."""
    return call[{"x86_64": 0, "aarch64": 1}[machine]]


def program(machine: str, held: Sequence[Rule]) -> bytes:
    """The rules as a program, 8 bytes an instruction. Raises KeyError for another machine."""
    which = {"x86_64": 0, "aarch64": 1}[machine]
    body = [
        _instruction(_LOAD, _ARCH),
        _instruction(_EQUAL, ARCHITECTURES[machine], 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        _instruction(_AT_LEAST, NEWEST + 1, 0, 1),
        _instruction(_RETURN, _ERROR | errno.ENOSYS),  # X32 calls, too
    ]
    for rule in held:
        number = rule.numbers[which]
        if number is None:
            continue
        test = _test(rule)
        action = _HAND_OVER if rule.error == ASK else _ERROR | max(rule.error, 0)
        block = [*test, _instruction(_RETURN, action)]
        if rule.when:
            at, value = rule.when
            given = _instruction(_LOAD, _ARGUMENTS + 8 * at)
            block = [given, _instruction(_EQUAL, value, 0, len(block)), *block]
        if test or rule.when:  # what was looked at is not the number any more
            block.append(_instruction(_LOAD, _NUMBER))
        body += [_instruction(_EQUAL, number, 0, len(block)), *block]
    body.append(_instruction(_RETURN, _ALLOW))
    return b"".join(body)


def _test(rule: Rule) -> list[bytes]:
    """Goes on at its end where the call is refused, and one further where it is not."""
    values = rule.among or rule.but
    if not (values or rule.any_of or rule.mask != 0xFFFFFFFF):
        return []
    found = [_instruction(_LOAD, _ARGUMENTS + 8 * rule.at)]
    if rule.any_of:
        return [*found, _instruction(_ANY_BIT, rule.any_of, 0, 1)]
    if rule.mask != 0xFFFFFFFF:
        found.append(_instruction(_AND, rule.mask))
    for left, value in zip(range(len(values) - 1, -1, -1), values, strict=True):
        if rule.among:  # the last that fails to match goes past the refusal
            found.append(_instruction(_EQUAL, value, left, 0 if left else 1))
        else:
            found.append(_instruction(_EQUAL, value, left + 1, 0))
    return found
