"""A host that was started as root becomes an ordinary user, once the runtime zygote is there, which
keeps the right to confine functions. What parses HTTP and events is then nobody of note."""

import os
import pwd
import stat
from pathlib import Path

from funcrt.config import DataDir
from funcrt.errors import FuncrtError
from funcrt.sandbox import kernel
from funcrt.tree import DEEPEST, DIRECTORY, entries

__all__ = ["HOST_USER", "UserInvalid", "drop", "unreadable", "wanted_user"]

HOST_USER = 61183
"""Whom a host becomes that was started as root, where nobody else is named: an id that no account
has, below those of functions."""
BELOW_DATA = 2
"""Directories from the data directory to that of a set of packages."""
OWN = ("mesh.db", "host-id", "admin.sock", "code", "dev-code", "packages")
"""What a data directory of a host's holds at least one of."""


class UserInvalid(FuncrtError):
    """Whom the host is to become is nobody, or cannot work there."""


def wanted_user(given: str, data: DataDir) -> int:
    """The user id that a host becomes: `given`, a name or number; else the owner of the data
    directory, where that is not root, or HOST_USER; 0 to stay. Raises UserInvalid."""
    if os.geteuid() != 0:
        if given and given != "root":
            raise UserInvalid(
                f"--user {given}: only a host that was started as root can become another user;"
                " leave it out, or start the host as root"
            )
        return 0
    if given.isascii() and given.isdigit():
        return int(given)
    if given:
        try:
            return pwd.getpwnam(given).pw_uid
        except KeyError:
            raise UserInvalid(
                f"--user {given}: no such user; expected a name of /etc/passwd, or a number"
            ) from None
    try:
        owner = data.root.stat().st_uid
    except FileNotFoundError:
        return HOST_USER
    return owner or HOST_USER


def unreadable(user: int, paths: list[Path]) -> str:
    """The first of these, or of the directories above, that the user may not read or enter; ""
    for none. Judged by permissions for everyone: it owns nothing but its data."""
    for path in map(Path.absolute, paths):
        for each in (path, *path.parents):
            try:
                info = each.stat()
            except FileNotFoundError:  # it is yet to be made
                continue
            needed = stat.S_IXOTH if each != path else stat.S_IROTH
            if info.st_uid != user and not info.st_mode & needed:
                return str(each)
    return ""


def drop(user: int, data: DataDir, *, low_port: bool) -> None:
    """Become the user, in its account's groups, for good, and own the data directory as such; with
    the right to ports below 1024 where asked, and no other. Raises UserInvalid."""
    group, groups, home = user, [], str(data.root)
    try:
        account = pwd.getpwuid(user)
        group = account.pw_gid
        groups = os.getgrouplist(account.pw_name, group)
        home = account.pw_dir
    except KeyError:
        pass
    _own(data.root, user, group)
    os.environ["HOME"] = home  # root's, with its configuration, is closed to this user
    os.environ.pop("XDG_CONFIG_HOME", None)
    os.setgroups(groups)  # of an account: one may have it use Docker, say
    kernel.become(user, group, keep=[kernel.NET_BIND_SERVICE] if low_port else [])
    kernel.no_new_privileges()


def _own(root: Path, user: int, group: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    info = root.stat()
    names = [each.name for each in root.iterdir()]
    if info.st_uid not in (0, user) or (names and not any(name in OWN for name in names)):
        raise UserInvalid(
            f"{root} is to be the data directory of user {user}, and holds other things;"
            f" name another by --data, chown it to that user, or start with --user root"
        )
    top = os.open(root.resolve(), DIRECTORY)
    try:
        os.fchown(top, user, group)
        # What is deeper than any package's own files was left by a build that was killed.
        for parent, name, one in entries(top, DEEPEST + BELOW_DATA):
            if (one.st_uid, one.st_gid) != (user, group):
                os.chown(name, user, group, dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(top)
