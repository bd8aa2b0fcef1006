"""The core's errors: what is wrong, where, found, expected. The CLI adds what to type next."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

__all__ = [
    "DataUnwritable",
    "DeployError",
    "FuncrtError",
    "FunctionPaused",
    "FunctionUnknown",
    "FunctionsRefused",
    "ImageUnusable",
    "LoadError",
    "ManifestError",
    "Overloaded",
    "Problem",
    "ReplayRefused",
    "SandboxError",
    "SecretUnknown",
    "TriggerUnknown",
    "mistakes",
    "nearest",
]


MOST_NAMED = 5
LONGEST = 200
COMPARED = 20
"""Names that are compared with care, which costs the square of their length."""


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """The known names most like `name`, at most five, the nearest first."""
    if len(name) > LONGEST:
        return []
    if len(known) > COMPARED:
        pairs = _pairs(name)
        known = sorted(known, key=lambda other: -_shared(pairs, _pairs(other)))[:COMPARED]
    import difflib  # slow to import, and seldom needed

    return difflib.get_close_matches(name, known, MOST_NAMED)


def _pairs(name: str) -> set[str]:
    return {name[at : at + 2] for at in range(len(name) - 1)}


def _shared(these: set[str], those: set[str]) -> float:
    """Dice's coefficient."""
    return len(these & those) / (len(these) + len(those) or 1)


class FuncrtError(Exception):
    """Base of everything that a user or a function can cause."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake: where it is, and what is wrong, in one message."""

    file: str
    line: int | None = None
    path: str = ""
    """The key, e.g. `trigger[0].filters`."""
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ManifestError(FuncrtError):
    """A manifest with mistakes: all of them at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class LoadError(FuncrtError):
    """A function's code that cannot be loaded.

    `problem` says where and what; `traceback` is cut to the author's frames ("" where none).
    """

    def __init__(self, problem: Problem, traceback: str = "") -> None:
        self.problem = problem
        self.traceback = traceback
        super().__init__(f"{problem}\n{traceback}" if traceback else str(problem))


class SandboxError(FuncrtError):
    """The sandbox itself failed: a process could not be made, or is gone."""


class ImageUnusable(SandboxError):
    """An image that functions cannot run in, or that is not there; the message says what to do."""


class DeployError(FuncrtError):
    """A deployment that was refused; what was in service still is."""


class DataUnwritable(DeployError):
    """What cannot be kept, as the host cannot write there: its disk is full, for one."""

    def __init__(self, what: str, where: Path, error: OSError) -> None:
        why = os.strerror(error.errno or 0).lower()
        super().__init__(
            f"{what} cannot be kept below {where}: {why}; see to that, and deploy it again"
        )


class FunctionsRefused(DeployError):
    """Functions with mistakes: every mistake of each at once. None was put into service."""

    def __init__(self, errors: Sequence[FuncrtError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))


def mistakes(errors: Sequence[BaseException]) -> list[str]:
    """Every mistake that these errors tell of, each as its author reads it."""
    found: list[str] = []
    for error in errors:
        problems = getattr(error, "problems", None)
        found += [str(error)] if problems is None else map(str, problems)
    return found


class FunctionUnknown(FuncrtError):
    """No function of that name is deployed."""

    def __init__(self, name: str, known: Sequence[str] = ()) -> None:
        self.name = name
        self.known = tuple(known)
        self.nearest = nearest(name, known)
        if self.nearest:
            there = f"did you mean {' or '.join(self.nearest)}?"
        else:
            names = sorted(known)
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            there = f"deployed: {', '.join(names[:MOST_NAMED]) or 'none'}{more}"
        super().__init__(f"no function is named {name[:LONGEST]!r}; {there}")


class FunctionPaused(FuncrtError):
    """A call of a function that is paused."""

    def __init__(self, function: str) -> None:
        self.function = function
        super().__init__(
            f"{function} is paused: it answers no calls until `funcrt resume {function}`;"
            " events and queued calls wait"
        )


class TriggerUnknown(FuncrtError):
    """A function has no trigger of that name that reads a topic."""

    def __init__(self, function: str, name: str, known: Sequence[str]) -> None:
        there = ", ".join(known) or "none"
        super().__init__(
            f"{function} has no trigger {name[:LONGEST]!r} that reads a topic; it has: {there}"
        )


class SecretUnknown(FuncrtError):
    """`ctx.secret` was asked for one that the manifest does not declare."""

    def __init__(self, name: str, declared: Sequence[str]) -> None:
        self.name = name
        near = nearest(name, declared)
        mend = f"did you mean {near[0]}? " if near else ""
        there = ", ".join(declared) or "none"
        super().__init__(
            f"no secret is named {name[:LONGEST]!r}; {mend}[secrets] of funcrt.toml has: {there}"
        )


class ReplayRefused(FuncrtError):
    """Events that cannot be replayed as it was asked."""


class Overloaded(FuncrtError):
    """A call that was not admitted: too many wait already."""

    def __init__(self, function: str, waiting: int, retry_after_s: int = 1) -> None:
        self.function = function
        self.retry_after_s = retry_after_s
        super().__init__(f"{function}: {waiting} calls wait already; try again later")
