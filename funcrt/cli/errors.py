"""What the user reads when something is wrong: what, and what to type next. Never a traceback."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from funcrt.cli.output import folded

__all__ = ["FAILED", "UNREACHABLE", "USAGE", "CliError", "explain", "report"]

_NUMBERS = {"int": "a whole number", "float": "a number"}
FAILED = 1
USAGE = 2
UNREACHABLE = 3


class CliError(Exception):
    """`✗ what`, and `try: hint` where there is something to try."""

    def __init__(
        self,
        what: str,
        hint: str = "",
        code: int = FAILED,
        *,
        more: Sequence[str] = (),
        then: str = "",
    ) -> None:
        self.what = what
        self.more = more
        """Further mistakes of the same command, each with a mark of its own."""
        self.then = then
        """What comes of it."""
        self.hint = hint
        self.code = code
        super().__init__(what)


def report(error: Exception, words: Sequence[str] = ()) -> int:
    """Write `error` to stderr; the exit code it means."""
    if type(error).__name__ == "NoArgsIsHelpError":  # Typer's own class for it is private
        print(error, file=sys.stderr)
        return USAGE
    found = _usage(error, words) or explain(error)
    if found is None:
        if "FUNCRT_TRACEBACK" in os.environ:
            raise error
        kind = type(error).__name__
        found = CliError(
            f"{kind}: {error}" if str(error) else kind,
            f"FUNCRT_TRACEBACK=1 funcrt {shlex.join(words)}   # our bug; this says where",
        )
    red, plain = ("\x1b[31m", "\x1b[0m") if _coloured() else ("", "")
    lines = []
    for what in (found.what, *found.more):
        first, *rest = what.splitlines() or [""]
        told = folded(f"✗ {first}", 2, sys.stderr).replace("✗", f"{red}✗{plain}", 1)
        lines += [told, *(f"  {each}" for each in rest)]
    if found.then:
        lines.append(f"  {found.then}")
    if found.hint:
        lines += [f"  try: {line}" for line in found.hint.splitlines()]
    sys.stdout.flush()
    print("\n".join(lines), file=sys.stderr, flush=True)
    return found.code


def explain(error: BaseException) -> CliError | None:
    """The message for an error that a user can cause; None for one that is a bug."""
    if isinstance(error, CliError):
        return error
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return explain(error.exceptions[0])
    from mesh import errors as mesh_errors

    match error:
        case mesh_errors.MeshBusy():
            return CliError(str(error), "funcrt serve DIR --data ./another")
        case mesh_errors.UrlInvalid():
            return CliError(str(error), "--mesh embedded://./mesh.db", USAGE)
        case mesh_errors.NameInvalid():
            return CliError(str(error), code=USAGE)
        case mesh_errors.MeshClosed():
            return CliError(str(error), "the same again, once a host runs", UNREACHABLE)
        case mesh_errors.MeshCorrupt(mendable=True):
            return CliError(str(error), "funcrt doctor --repair")
        case mesh_errors.MeshError():
            return CliError(str(error))
        case PermissionError() if error.filename:
            hint = _whose(Path(os.fsdecode(error.filename)))
            return CliError(f"{error.filename}: {error.strerror}", hint, USAGE)
        case FileNotFoundError() | IsADirectoryError() if error.filename:
            return CliError(f"{error.filename}: {error.strerror}", code=USAGE)
        case OSError():
            return CliError(str(error))
    return _ours(error)


def _whose(path: Path) -> str:
    """What to do about a file that this user has no right to; nothing where that is not why."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    own, owner = os.geteuid(), path.lstat().st_uid
    if own in (0, owner):
        return ""
    return f"this runs as user {own}, and {path} is user {owner}'s: chown it, or run as that user"


def _ours(error: BaseException) -> CliError | None:
    """Errors of `funcrt` itself; imported only now that one is there."""
    from funcrt import auth
    from funcrt.errors import FuncrtError, FunctionsRefused, LoadError

    if isinstance(error, FunctionsRefused):
        return _refused(error.errors)
    if not isinstance(error, FuncrtError):
        return None
    problems = getattr(error, "problems", None)
    if problems:
        first, *more = map(str, problems)
        return CliError(first, code=USAGE, more=more)
    match error:
        case LoadError():
            return CliError(str(error), code=USAGE)
        case auth.UnsafeBind():
            return CliError(
                str(error),
                "funcrt token ops --scope publish,read --tokens tokens.txt\n"
                "funcrt serve DIR --host ... --tokens tokens.txt",
                USAGE,
            )
        case auth.TokenFileInvalid():
            return CliError(str(error), "funcrt token NAME --scope publish", USAGE)
    if type(error).__name__ == "EnvFileInvalid":  # of `dev`, which is slow to import
        return CliError(str(error), code=USAGE)
    hint = "--port 0 lets the system choose" if type(error).__name__ == "PortTaken" else ""
    return CliError(str(error), hint)


def _refused(errors: Sequence[BaseException]) -> CliError:
    """Every mistake of every function, in the order of the directories."""
    from funcrt.errors import mistakes

    first, *more = mistakes(errors)
    many = f"{len(more) + 1} mistakes, all of them above" if more else "1 mistake"
    return CliError(first, code=USAGE, more=more, then=f"{many}; no function was started")


def _usage(error: Any, words: Sequence[str]) -> CliError | None:
    """A mistake in the command line itself, found by Typer."""
    import typer

    usage: Any = typer.BadParameter.__mro__[1]
    if not isinstance(error, usage):
        return None
    message: str = error.format_message()
    param: Any = getattr(error, "param", None)
    kind = getattr(param, "type", None)
    number = _NUMBERS.get(str(getattr(kind, "name", "")).partition(" ")[0])  # or "int range"
    if number and type(error) is typer.BadParameter:  # which it is not where one is missing
        option = next((each for each in param.opts if each in words[:-1]), "")
        found = f", found {words[words.index(option) + 1]!r}" if option else ""
        least, most = getattr(kind, "min", None), getattr(kind, "max", None)
        if least is not None:
            number += f" from {least}" if most is not None else f", at least {least}"
        if most is not None:
            number += f" to {most}" if least is not None else f", at most {most}"
        message = f"{param.opts[0]}: expected {number}{found}"
    context = error.ctx
    where = context.command_path if context is not None else "funcrt"
    return CliError(message.rstrip("."), f"{where} --help", USAGE)


def _coloured() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ
