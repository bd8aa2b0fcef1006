"""The seccomp program, run by a small machine of its own kind over every number of a call: it
answers as its rules say, and a rule looks at what the kernel looks at."""

import errno
import itertools
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from funcrt.sandbox import neighbours, syscalls
from funcrt.sandbox.syscalls import (
    ARCHITECTURES,
    ASK,
    NOTHING,
    Rule,
    program,
    rules,
    supervised,
)

ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
HAND_OVER = 0x7FC00000
HIGH = 0xDEADBEEF << 32


def answer(code: bytes, number: int, arch: int, arguments: Sequence[int]) -> int:
    """What seccomp(2) does: classic BPF over `struct seccomp_data`."""
    given = [each & (1 << 64) - 1 for each in [*arguments, 0, 0, 0, 0, 0, 0][:6]]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *given)
    steps = list(struct.iter_unpack("=HBBI", code))
    at, held = 0, 0
    while True:
        what, if_true, if_false, value = steps[at]
        at += 1
        match what:
            case 0x20:
                (held,) = struct.unpack_from("<I", data, value)
            case 0x54:
                held &= value
            case 0x06:
                return int(value)
            case 0x15 | 0x35 | 0x45:
                found = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}
                at += if_true if found[what] else if_false
            case _:
                raise AssertionError(hex(what))


def refused(held: Sequence[Rule], which: int, number: int, arguments: Sequence[int]) -> int:
    """What the first rule that applies answers: written from their meaning."""
    for rule in held:
        if rule.numbers[which] != number:
            continue
        when = rule.when
        if when and arguments[when[0]] & 0xFFFFFFFF != when[1]:
            continue
        value = arguments[rule.at] & 0xFFFFFFFF & rule.mask
        if rule.any_of:
            applies = bool(value & rule.any_of)
        elif rule.among:
            applies = value in rule.among
        else:
            applies = value not in rule.but
        if applies:
            if rule.error == NOTHING:
                return ERROR
            return HAND_OVER if rule.error == ASK else ERROR | rule.error
    return ALLOW


SETS = {
    "plain": list(rules(network=False, unix=False)),
    "all": [
        *rules(network=True, unix=True, signals_to=4711), *neighbours.unwalled(own_user=False)
    ],
    "own user": [*rules(network=False, unix=False), *neighbours.unwalled(own_user=True)],
    "before Linux 6.2": [*rules(network=False, unix=False), *neighbours.uncut()],
    "installs": [
        *rules(network=True, unix=False, programs=True),
        *neighbours.unwalled(own_user=False, quiet=True),
    ],
}  # fmt: skip
VALUES = (0, 1, 2, 3, 5, 9, 10, 16, 17, 4711, 0x5412, 0x541C, 0x80000, 0x80002, 0x10000, 0x10020000,
          0x200, 0x201, 0x80200, 0x7FFFFFFF, 0xFFFFFFFF)  # fmt: skip


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_every_number_is_answered_as_the_rules_say(machine: str, name: str) -> None:
    held, which, arch = SETS[name], list(ARCHITECTURES).index(machine), ARCHITECTURES[machine]
    code = program(machine, held)
    assert len(code) // 8 < 4096  # BPF_MAXINSNS
    named = {rule.numbers[which] for rule in held} - {None}
    for number in range(syscalls.NEWEST + 1):
        values = VALUES if number in named else (0, 0xFFFFFFFF)
        for first, second, high in itertools.product(values, values, (0, HIGH)):
            arguments = [first | high, second | high, first | high, second | high, 0, 0]
            expected = refused(held, which, number, arguments)
            assert answer(code, number, arch, arguments) == expected, (number, arguments)


OF_SOCKETS = (0, 1, 2, 3, 4, 5, 6, 10, 13, 16, 17, 25, 30, 41, 57, 0x80001, 0x80802, 0x20000000)


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(
    "given",
    [
        {"unix": True, "datagrams": True},
        {"unix": False, "datagrams": False},
        {"unix": False, "datagrams": False, "ask": False, "signals_to": 4711},
    ],
)
def test_a_supervised_functions_sockets_are_asked_for(machine: str, given: dict[str, Any]) -> None:
    held, which = list(supervised(**given)), list(ARCHITECTURES).index(machine)
    arch = ARCHITECTURES[machine]
    code = program(machine, held)
    calls = [
        syscalls.SOCKET, syscalls.CONNECT, syscalls.LISTEN, syscalls.BIND, syscalls.SENDTO,
        syscalls.SENDMSG, syscalls.SENDMMSG, syscalls.SETSOCKOPT, syscalls.SOCKETPAIR,
    ]  # fmt: skip
    asked = set()
    for call, first, second, high in itertools.product(calls, OF_SOCKETS, OF_SOCKETS, (0, HIGH)):
        arguments = [first | high, second | high, first | high, second | high, 0, 0]
        found = answer(code, call[which], arch, arguments)
        assert found == refused(held, which, call[which], arguments), (call, arguments)
        if found == HAND_OVER:
            asked.add(call)
        elif call == syscalls.SOCKET and found == ALLOW and given.get("ask", True):
            assert first == 1 or second & 0xF != 1  # no TCP socket is made unseen
    assert (asked != set()) == given.get("ask", True)


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_installs_starts_programs_and_is_told_that_modes_are_set(machine: str) -> None:
    which, arch = list(ARCHITECTURES).index(machine), ARCHITECTURES[machine]
    code = program(machine, SETS["installs"])
    given = program(machine, list(supervised(unix=True, datagrams=True, programs=True)))
    for call in syscalls.PROGRAMS.values():
        assert answer(code, call[which], arch, []) == ALLOW
        assert answer(given, call[which], arch, []) == ALLOW
        assert answer(program(machine, SETS["plain"]), call[which], arch, []) == ERROR | errno.EPERM
    for name, call in {**neighbours.MODES, **neighbours.FILES}.items():
        if (number := call[which]) is not None:
            told = 0 if name in neighbours.MODES else errno.EPERM
            assert answer(code, number, arch, []) == ERROR | told, name


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_is_no_call_of_this_machine_is_none(machine: str) -> None:
    code, arch = program(machine, SETS["all"]), ARCHITECTURES[machine]
    for number in (syscalls.NEWEST + 1, 500, syscalls.X32 | 59, syscalls.X32, -1, 1 << 31):
        assert answer(code, number, arch, []) == ERROR | errno.ENOSYS
    for other in {0x40000003, 0x40000028, *ARCHITECTURES.values()} - {arch}:
        for number in (0, 11, 59, 221, syscalls.X32 | 59):
            assert answer(code, number, other, []) == KILL


def test_a_call_is_named_once_by_each_number() -> None:
    """A mistaken number would refuse one call and let another through."""
    groups: list[dict[str, Any]] = [
        syscalls.KERNEL,
        syscalls.PROGRAMS,
        neighbours.FILES,
        neighbours.MODES,
        neighbours.OF_ITSELF,
    ]
    for which in (0, 1):
        numbers = [call[which] for group in groups for call in group.values()]
        found = [number for number in numbers if number is not None]
        assert len(found) == len(set(found))


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_a_program_that_is_alone_starts_threads_and_no_process(machine: str) -> None:
    which, arch = list(ARCHITECTURES).index(machine), ARCHITECTURES[machine]
    code = program(machine, list(syscalls.childless()))
    clone, clone3 = syscalls.CLONE[which], syscalls.CLONE3[which]
    vfork, thread = 0x4111, 0x3D0F00  # of posix_spawn, and of pthread_create
    for flags in (0, 17, vfork, HIGH):
        assert answer(code, clone, arch, [flags]) == ERROR | errno.EPERM
    for flags in (thread, thread | HIGH):
        assert answer(code, clone, arch, [flags]) == ALLOW
    assert answer(code, clone3, arch, []) == ERROR | errno.ENOSYS
    for numbers in syscalls.FORKS.values():
        if (number := numbers[which]) is not None:
            assert answer(code, number, arch, []) == ERROR | errno.EPERM
    assert answer(code, syscalls.PROGRAMS["execve"][which], arch, []) == ALLOW
