"""Places at which a process can be made to end, for tests of what survives.

`FUNCRT_FAILPOINT=commit.before:2`, set when the process starts, ends it (`os._exit`, so that
nothing is finished or flushed) the second time that point is reached. Unset, `point` does nothing;
it stands where it is called once for many events: a transaction, a pull, a frame, a start.
"""

import os
from collections.abc import Callable

from mesh.errors import FailpointUnknown

__all__ = ["EXIT_CODE", "POINTS", "armed", "point"]

EXIT_CODE = 137
"""As of a process that was killed; a signal shows as a negative code instead, so tests can tell."""

POINTS = (
    ("migrate.statement", "one statement of the file's migration ran; nothing of it is committed"),
    ("migrate.before", "the migration is complete; its commit has not begun"),
    ("migrate.after", "the migration is durable"),
    ("epoch.before", "the file is open; the host has not taken its number yet"),
    ("epoch.after", "the host's number is durable; nothing of the file was read"),
    ("host-id.before", "the host has no name yet"),
    ("host-id.written", "its name is in a temporary file"),
    ("host-id.after", "its name is in place, its directory perhaps not synced"),
    ("unpack.before", "a bundle was checked; its temporary directory is empty"),
    ("unpack.written", "all its files are in the temporary directory, synced"),
    ("unpack.renamed", "the directory has its name, which is perhaps not synced"),
    ("unpack.after", "the directory and its name are durable"),
    ("packages.before", "what a function needs is to be installed into a temporary directory"),
    ("packages.installed", "it was, and is durable there"),
    ("packages.renamed", "the directory has its name, which is perhaps not synced"),
    ("packages.after", "the directory and its name are durable"),
    ("deploy.before", "a version was prepared; the mesh has nothing of it"),
    ("deploy.blob", "the mesh has its bundle, and no record of it"),
    ("deploy.after", "the mesh has the record that it is in service"),
    ("file.begun", "a client without a host began its transaction"),
    ("file.before", "it appended its events; its commit has not begun"),
    ("file.after", "its commit is durable; nobody was told"),
    ("transaction.received", "publishes and other work were taken for a transaction"),
    ("transaction.begun", "the transaction has begun, without a statement"),
    ("transaction.refreshed", "what other processes published is in its queues, not committed"),
    ("transaction.published", "the publishes are gathered, with the topics they made"),
    ("transaction.worked", "settlements and all other work are gathered"),
    ("settle.gathered", "the settlements of one commit are gathered: outcomes, outputs, letters"),
    ("write.events", "new events are in the log and in their queues, not committed"),
    ("write.queues", "what was settled is out of its queues, not committed"),
    ("write.dead", "dead letters are in their list, not committed"),
    ("commit.before", "all statements ran; the commit has not begun"),
    ("commit.after", "the commit is durable; memory has not followed, nobody was told"),
    ("transaction.confirmed", "receipts were given; memory has not followed"),
    ("transaction.applied", "memory has followed; results of other work were not given"),
    ("transaction.told", "they were"),
    ("checkpoint.before", "the log is to be copied into the file"),
    ("checkpoint.copied", "most of it was copied, beside the writer"),
    ("checkpoint.after", "all of it was copied; the log begins anew with the next commit"),
    ("pulled", "deliveries are leased; none is with an instance"),
    ("call.before", "a frame of calls is to be sent to an instance"),
    ("call.sent", "the channel has the frame; the instance may have begun"),
    ("result.received", "a frame of results came from an instance"),
    ("result.taken", "its settlements wait to be committed"),
    ("settle.begun", "settlements are on their way to the mesh"),
    ("settle.after", "the mesh has them, durably"),
)
"""Every point, and what has happened when it is reached."""


def _off(name: str) -> None:
    """What a point does in every process that was not told to end at one."""


def armed(setting: str) -> Callable[[str], None]:
    """Points that end the process at the one that `setting`, `NAME` or `NAME:COUNT`, names. They
    raise FailpointUnknown where it names none, and at a place that is not in the table."""
    names = [name for name, _ in POINTS]
    wanted, _, count = setting.partition(":")
    known = wanted in names and (count or "1").isdecimal() and count != "0"
    left = int(count or 1) if known else 0

    def reached(name: str) -> None:
        nonlocal left
        if not known or name not in names:
            raise FailpointUnknown(name if known else setting, names)
        if name == wanted:
            left -= 1
            if left == 0:
                os._exit(EXIT_CODE)

    return reached


_SETTING = os.environ.get("FUNCRT_FAILPOINT", "")

point: Callable[[str], None] = armed(_SETTING) if _SETTING else _off
"""`point("commit.before")`: end here where this process was told to."""
