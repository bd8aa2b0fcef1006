"""The levels of isolation, and which of them a function gets."""

import os
import platform
from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

from funcrt.errors import SandboxError

__all__ = [
    "LEVELS",
    "STOPS",
    "DockerUnavailable",
    "IsolationMissing",
    "Level",
    "NetworkUnenforced",
    "NotLinux",
    "Policy",
    "choose",
    "contained",
    "mend",
    "system",
]

Level = Literal["none", "process", "sandbox", "container"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""From the weakest to the strongest; `none` is had by name only."""


STOPS: dict[Level, str] = {
    "process": (
        "stops files but its own, programs, network, other processes, new namespaces; bounds"
        " memory, open files and the size of one file"
    ),
    "sandbox": (
        "as process, and it sees its own files and processes alone; bounds its /tmp and the number"
        " of its processes"
    ),
    "container": "as sandbox, in an image of its own; bounds CPU and memory by a cgroup",
}
"""What each level is for, for people; `docs/isolation.md` has the table."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator says about levels."""

    forced: Level | None = None
    """Every function runs at this one, whatever its manifest asks for."""
    allowed: Level | None = None
    """The lowest that will do where the one asked for cannot be had."""

    @classmethod
    def of(cls, forced: str | None, allowed: str | None) -> "Policy":
        """As a command line says it. Raises SandboxError for what is no level."""
        for given in (forced, allowed):
            if given and given not in LEVELS:
                raise SandboxError(
                    f"expected a level of isolation ({', '.join(LEVELS)}), found {given!r}"
                )
        return cls(forced=forced or None, allowed=allowed or None)  # type: ignore[arg-type]

    @classmethod
    def of_environment(cls) -> "Policy":
        """As FUNCRT_ISOLATION and FUNCRT_ALLOW_ISOLATION say. Raises SandboxError."""
        return cls.of(os.environ.get("FUNCRT_ISOLATION"), os.environ.get("FUNCRT_ALLOW_ISOLATION"))


class IsolationMissing(SandboxError):
    """A level of isolation that this machine does not give."""

    def __init__(self, function: str, level: Level, why: str) -> None:
        self.level = level
        self.why = why
        lower = LEVELS[max(0, LEVELS.index(level) - 1)]
        what = mend(why) or "Ask for another level"
        super().__init__(
            f"{function}: isolation {level!r} cannot be had here: {why}. {what}, or let this host"
            f" do with less by --allow-isolation {lower}; `funcrt doctor` shows what each level"
            " stops"
        )


class NetworkUnenforced(SandboxError):
    """Nothing here would hold a function to the `network` of its manifest."""

    def __init__(self, function: str, level: Level, why: str) -> None:
        else_ = "" if level == "container" else '; network = "none" needs none of it'
        super().__init__(
            f"{function}: its sandbox.network cannot be enforced at isolation {level!r}: {why}."
            f" {mend(why)}{else_}"
        )


class DockerUnavailable(SandboxError):
    """No Docker daemon that containers can be made with."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}. {mend(why)}")


class NotLinux(SandboxError):
    """Functions cannot run on this system."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"functions run on Linux alone, in processes that its kernel holds back, and this is"
            f" {found}. {mend('not Linux')}"
        )


def system() -> str:
    """What this machine runs, as people call it: Linux, macOS, Windows, ..."""
    found = platform.system()
    return {"Darwin": "macOS"}.get(found, found)


def contained() -> bool:
    """Whether this host is in a container itself, as its image says: a file such as /.dockerenv is
    in machines, too, that were made of an image."""
    return bool(os.environ.get("FUNCRT_CONTAINED"))


def choose(function: str, asked: Level, missing: Mapping[Level, str], policy: Policy) -> Level:
    """The level that a function gets. `missing` has those that cannot be had, and why. Raises
    IsolationMissing."""
    level = policy.forced or asked
    if level not in missing:
        return level
    least = LEVELS.index(policy.allowed or level)
    for lower in reversed(LEVELS[least : LEVELS.index(level)]):
        if lower not in missing:
            return lower
    raise IsolationMissing(function, level, missing[level])


_MENDS = {
    "no Docker daemon": "start it, let this user open its socket (group docker), or point"
    " DOCKER_HOST at that",
    "pid namespace of its own": "start it where the Docker daemon runs, not in a container",
    "docker package": 'install it: pip install "funcrt[docker]"',
    "DOCKER_HOST": "set it to a unix:// socket of this machine, or leave it out",
    "user ids of its own": "let root write to /run, or start the host as an ordinary user",
    "user namespace": (
        "allow them (sysctl user.max_user_namespaces; kernel.apparmor_restrict_unprivileged_userns"
        " on Ubuntu; in a container, the profile of docs/image.md; in a chroot there are none)"
    ),
    "supervised connections": (
        "a kernel of at least 5.14 can, where nothing forbids seccomp's listeners, pidfd_getfd and"
        " process_vm_readv, as Docker's default profile does"
    ),
    "in a container": 'ask for isolation = "sandbox", or network = "outbound" or "none"',
    "mount_setattr: Function not implemented": "a kernel of at least 5.13 has all that this needs",
    "namespaces": "start the host with CAP_SYS_ADMIN, or as an ordinary user",
    "mount": "in a container, use the profile of docs/image.md",
    "pivot_root": "in a container, use the profile of docs/image.md",
    "/proc": "in a container, use the profile of docs/image.md",
    "landlock": "a kernel of at least 5.13, with lsm=landlock among its parameters, has it",
    "seccomp": "a kernel with CONFIG_SECCOMP_FILTER has it, on x86_64 or aarch64",
    "not Linux": "run the host on Linux, or in a container, as docs/image.md says",
    "interpreter": "use a Python that everyone may read, or start the host as its owner",
}
_OPTIONS = (
    "--security-opt seccomp=seccomp.json --security-opt systempaths=unconfined --security-opt"
    " apparmor=unconfined (docs/image.md)"
)
_PROFILE = f"start this container with {_OPTIONS}"
_CONTAINED = {
    "no Docker daemon": "start the host where the Docker daemon runs, not in a container",
    "user ids of its own": "start this container with --tmpfs /run, or as an ordinary user",
    "user namespace": _PROFILE,
    "supervised connections": _PROFILE,
    "namespaces": f"start this container as an ordinary user, with {_OPTIONS}",
    "mount": _PROFILE,
    "pivot_root": _PROFILE,
    "/proc": _PROFILE,
    "landlock": f"{_PROFILE}, which lets Landlock be asked for; or the kernel has none, as those"
    " before 5.13 and those without lsm=landlock among their parameters",
}
"""The same, of a host that is in a container itself."""


def mend(why: str) -> str:
    """What to do about a step that failed; nothing where it is told by itself."""
    mends = _MENDS | _CONTAINED if contained() else _MENDS
    for step, text in mends.items():
        if step in why:
            return text[0].upper() + text[1:]
    return ""
