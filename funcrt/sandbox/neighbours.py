"""What is refused besides to a function that has no namespaces of its own: calls that Landlock does
not look at, and that reach what a mount or pid namespace would hide."""

import errno
import os
from collections.abc import Iterator

from funcrt.sandbox.syscalls import NOTHING, SOCKETPAIR, Rule

__all__ = ["uncut", "unwalled"]

WATCH = (254, 27)
"""inotify_add_watch: what happens in a directory that it may not even list."""
STREAM, SEQUENCED = 1, 5
MODES = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
}  # fmt: skip
"""And times."""
TRUNCATE = (76, 45)
FILES = {
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "truncate": TRUNCATE,
}  # fmt: skip
OF_ITSELF = {
    # 0 is who asks
    "prlimit64": (302, 261), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
}  # fmt: skip
OPENS = (((2, None), 1), ((257, 56), 2))
"""open and openat, with where their flags are."""
OPENAT2 = (437, 437)
PRIORITIES = {"setpriority": ((141, 140), 0), "ioprio_set": ((251, 30), 1)}
"""With what stands for one process, and not for all of a user's."""


def unwalled(*, own_user: bool, quiet: bool = False) -> Iterator[Rule]:
    """The rules. One that has no user of its own would pass for the host's: it changes nothing of a
    file but what is in it, and of processes itself alone. Where `quiet`, setting a mode or a time
    is said to have worked: installers set those of all that they write."""
    yield Rule(WATCH, errno.EPERM)
    # A pair of datagrams can be connected anew, and sends to any name.
    yield Rule(SOCKETPAIR, errno.EACCES, at=1, mask=0xF, but=(STREAM, SEQUENCED))
    if own_user:
        return
    for numbers in FILES.values():
        yield Rule(numbers, errno.EPERM)
    for numbers in MODES.values():
        yield Rule(numbers, NOTHING if quiet else errno.EPERM)
    for numbers in OF_ITSELF.values():
        yield Rule(numbers, errno.EPERM, but=(0,))
    for numbers, process in PRIORITIES.values():
        yield Rule(numbers, errno.EPERM, but=(process,))
        yield Rule(numbers, errno.EPERM, at=1, but=(0,))


def uncut() -> Iterator[Rule]:
    """More of them, where Landlock does not look at what is cut: before its ABI 3. A file that may
    only be read could be opened so, and emptied by that."""
    yield Rule(TRUNCATE, errno.EPERM)
    for numbers, flags in OPENS:
        cuts = {"mask": os.O_ACCMODE | os.O_TRUNC, "among": (os.O_RDONLY | os.O_TRUNC,)}
        yield Rule(numbers, errno.EACCES, at=flags, **cuts)  # type: ignore[arg-type]
    yield Rule(OPENAT2, errno.ENOSYS)  # whose flags cannot be looked at
