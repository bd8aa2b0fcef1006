"""`funcrt new`: a function to begin with."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from funcrt.cli.errors import USAGE, CliError
from funcrt.cli.options import Json
from funcrt.cli.output import folded, json_line, line
from funcrt.errors import nearest

__all__ = ["app", "new"]

app = typer.Typer()


@app.command()
def new(
    name: Annotated[
        str | None, typer.Argument(help="The function's name, and its folder's.")
    ] = None,
    *,
    template: Annotated[
        str | None,
        typer.Option(
            help="event, typed, http, batch, cron or chain.", show_default="event, or asks"
        ),
    ] = None,
    directory: Annotated[
        Path, typer.Option(help="Where its folder is made.", show_default="here", metavar="DIR")
    ] = Path(),
    json: Json = False,
) -> None:
    """Make a function from a template.

    Example: funcrt new hello --template typed

    On a terminal it asks for what is not given. A folder that is there already is left alone.
    """
    from funcrt import scaffold

    asking = sys.stdin.isatty() and sys.stdout.isatty() and not json
    if name is None and not asking:
        raise CliError("a function needs a name", "funcrt new hello", USAGE)
    if template is not None and template not in scaffold.TEMPLATES:
        near = nearest(template, list(scaffold.TEMPLATES))
        mend = f"did you mean {near[0]}?" if near else f"there are: {', '.join(scaffold.TEMPLATES)}"
        raise CliError(
            f"no template is named {template!r}; {mend}",
            f"funcrt new {shlex.quote(name or 'hello')} --template {near[0] if near else 'event'}",
            USAGE,
        )
    if name is not None:
        _check(name, directory)
    try:
        name = name or _ask_name(directory)
        template = template or (_ask_template() if asking else "event")
    except EOFError:  # Ctrl-D
        raise KeyboardInterrupt from None
    files = scaffold.make(name, template, directory)
    if json:
        target = str(directory / name)
        json_line(
            {
                "name": name,
                "template": template,
                "directory": target,
                "files": list(map(str, files)),
            }
        )
        return
    _next(directory / name, files)


def _check(name: str, directory: Path) -> None:
    """What can be refused before anything is asked or made."""
    from funcrt.scaffold import ScaffoldError, check_free, check_new_name

    inside, _, last = name.rpartition("/")
    if inside and last:
        raise CliError(
            f"{name} is a path, expected a name",
            f"funcrt new {shlex.quote(last)} --directory {shlex.quote(inside)}",
            USAGE,
        )
    try:
        check_new_name(name)
    except ScaffoldError as error:
        hint = f"funcrt new {error.instead}" if error.instead else "funcrt new hello"
        raise CliError(str(error), hint, USAGE) from None
    try:
        check_free(directory / name)
    except ScaffoldError as error:
        raise CliError(str(error), "another name", USAGE) from None


def _ask_name(directory: Path) -> str:
    from rich.prompt import Prompt

    while True:
        name = Prompt.ask("Name of the function", default="hello").strip()
        try:
            _check(name, directory)
        except CliError as error:
            line(f"✗ {error}")
        else:
            return name


def _ask_template() -> str:
    from rich.prompt import Prompt

    from funcrt.scaffold import TEMPLATES

    for each, what in TEMPLATES.items():
        line(f"  {each:<6} {what}")
    return Prompt.ask("Template", choices=list(TEMPLATES), show_choices=False, default="event")


def _next(target: Path, files: list[Path]) -> None:
    """What was made, and what to type next."""
    shown = [each for each in files if not each.stem.endswith(".expected")]
    shown.sort(key=lambda each: (len(each.parts), each.suffix != ".py"))
    line(folded(f"✓ {target}: {', '.join(map(str, shown))}", 2))
    sample = next(each for each in shown if each.parent.name == "events")
    where = shlex.quote(str(target))
    line(f"  funcrt test {where}")
    line(
        f"  funcrt invoke {shlex.quote(str(target / sample.parent.parent))} --sample {sample.stem}"
    )
    line(f"  funcrt dev {where}")
