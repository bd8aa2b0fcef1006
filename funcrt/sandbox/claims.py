"""R's claims on ids of users: no two hosts that root started on one machine have one in common,
whoever of them picks it.

A claim is a lock on the byte of that number, in a file that root alone may open: the kernel lets go
of it when R ends, however it ends. None is given up before, for what a host says of a process that
had the id need not be true.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from funcrt.sandbox.confine import Refused
from funcrt.sandbox.users import BUILDERS, FUNCTIONS, INSTALLERS, MOST_BUILDERS, MOST_FUNCTIONS

__all__ = ["Claims", "Kind"]

Kind = Literal["function", "builder", "installer"]
FILE = "/run/funcrt-users"


class Claims:
    """Those of one host."""

    def __init__(self, file: str = FILE) -> None:
        self._path = file
        self._file = -1
        self._held: dict[int, Kind] = {}
        """In the order in which they were given last."""

    def holds(self, user: int) -> bool:
        """Whether the id is this host's."""
        return user in self._held

    def claim(self, kind: Kind) -> int:
        """An id that no other host has, nor this one for anything else; of builders one that it
        had before, once it has its share. Raises Refused where no claim can be made here, and
        ValueError where there is none left for it."""
        own = [user for user, held in self._held.items() if held == kind]
        most, among = _OF[kind]
        user = self._take(among) if len(own) < most else None
        if user is None and own and kind != "function":
            user = own[0]
        if user is None:
            why = f"this host has the {most} that it may have; run some of it on another machine"
            if len(own) < most:
                why = (
                    "other hosts that root started here have all; end one, or start this one as an"
                )
                why += " ordinary user"
            raise ValueError(f"no {kind}'s user id is left: {why}")
        self._held.pop(user, None)
        self._held[user] = kind
        return user

    def _take(self, among: Sequence[int]) -> int | None:
        if self._file < 0:
            self._file = _opened(self._path)
        # Not from the first on, as what is left of a host that has just ended may be there yet; but
        # for who keeps downloads under its number.
        first = int.from_bytes(os.urandom(4), "big") % len(among) if among != INSTALLERS else 0
        for user in (*among[first:], *among[:first]):
            if user not in self._held:
                try:
                    fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, user)
                except OSError as error:
                    if error.errno not in (errno.EACCES, errno.EAGAIN):
                        raise
                else:
                    return user
        return None


_OF: dict[Kind, tuple[int, Sequence[int]]] = {
    "function": (MOST_FUNCTIONS, FUNCTIONS),
    "builder": (MOST_BUILDERS, BUILDERS),
    "installer": (1, INSTALLERS),
}


def _opened(path: str) -> int:
    """The file that claims are made in. Raises Refused, and ValueError where others than root may
    have made it, could lock it or put another in its place."""
    above, own = Path(path).parent, os.geteuid()
    try:
        info = above.stat()
        if info.st_uid not in (0, own) or (
            info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX
        ):
            raise ValueError(f"{above} is not root's alone to write to, so no user id is claimed")
        how = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(path, how, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise Refused("user ids of its own", error) from None
        raise ValueError(_NOT_OURS.format(path)) from None
    info = os.fstat(file)
    alone = info.st_uid == own and not info.st_mode & 0o077 and info.st_nlink == 1
    if not (alone and stat.S_ISREG(info.st_mode)):
        os.close(file)
        raise ValueError(_NOT_OURS.format(path))
    return file


_NOT_OURS = "{} is not a plain file of root's alone, so no user id is claimed: remove it"
