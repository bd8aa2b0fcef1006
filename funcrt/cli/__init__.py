"""The command line: a table of commands, each imported only when it is the one asked for.

A command is a module of this package with `app`, a Typer of one command or a group of them, and a
row in COMMANDS. It raises CliError, or any error of ours, which `errors` turns into what to type
next; it returns the exit code, or None for 0.
"""

import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["COMMANDS", "EPILOG", "main"]

COMMANDS = {
    "new": "Make a function from a template.",
    "test": "Run a function's tests and sample events.",
    "invoke": "Call a function once.",
    "dev": "Run functions here, and put each save into service at once.",
    "serve": "Run a host: functions, mesh, HTTP gateway.",
    "publish": "Publish events to a topic.",
    "tail": "Show a topic's events as they come.",
    "deploy": "Put functions into service in a running host.",
    "ls": "List the deployed functions.",
    "describe": "Show all there is to say of a function.",
    "versions": "List a function's versions.",
    "rollback": "Put an earlier version into service again.",
    "pause": "Stop a function from taking events.",
    "resume": "Let a paused function go on.",
    "scale": "Set the bounds of a function's scaling.",
    "rm": "Take a function out of service.",
    "logs": "Show what a function wrote, and how its calls failed.",
    "stats": "Show what functions did in the last minutes.",
    "explain": "Show which triggers take an event, and why others do not.",
    "filter": "Try a filter on events.",
    "replay": "Run a function again on events that it had before.",
    "dlq": "List, show, replay and drop dead letters.",
    "token": "Make a token for the gateway.",
    "doctor": "Check this machine and the host on it.",
}
"""Command -> its line in `funcrt --help`; the module `funcrt.cli.<command>` holds it."""

EPILOG = (
    "Exit codes: 0 ok, 1 an operation failed, 2 wrong usage or function, 3 no host answers,"
    " 130 Ctrl-C."
)

_ABOUT = """Serverless functions, triggered by mesh events.

Example: funcrt serve ./functions

Every command that prints data takes --json; in a pipe all print plain lines."""

_COMPLETE = "_FUNCRT_COMPLETE"


def main(args: Sequence[str] | None = None) -> None:
    """Run the command that `args` (by default the process's own) ask for, and exit."""
    words = list(sys.argv[1:] if args is None else args)
    code: int = 0
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a sign shows its code
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(words)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # Whoever read our output has seen enough: no message, and none from the final flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        from funcrt.cli.errors import report

        code = report(error, words)
    sys.exit(code)


def _run(words: list[str]) -> int:
    import typer.main

    first = next((word for word in words if not word.startswith("-")), None)
    app = _app(set(COMMANDS) if _COMPLETE in os.environ else {first})
    command: Any = typer.main.get_command(app)
    result = command.main(words, prog_name="funcrt", standalone_mode=False)
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _app(wanted: set[str | None]) -> Any:
    """The Typer of all commands, where only the wanted ones are more than a name and a line."""
    import typer

    app = typer.Typer(
        help=_ABOUT,
        epilog=EPILOG,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        no_args_is_help=True,
    )
    app.callback()(_version)
    for name, line in COMMANDS.items():
        if name not in wanted:
            app.command(name, help=line)(_elsewhere)
            continue
        sub = importlib.import_module(f"funcrt.cli.{name}").app
        if sub.registered_callback:
            app.add_typer(sub, name=name, epilog=EPILOG)
            for each in sub.registered_commands:
                each.epilog = EPILOG
        else:
            found = sub.registered_commands[0]
            run: Callable[..., Any] = found.callback
            app.command(name, cls=found.cls, epilog=EPILOG)(run)
    return app


def _version() -> None:
    pass


def _elsewhere() -> None:
    """Stands for a command that was not asked for."""
