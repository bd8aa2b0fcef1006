"""`funcrt token`: make a token for the gateway."""

import os
from pathlib import Path
from typing import Annotated

import typer

from funcrt.auth import new_token, token_line
from funcrt.cli.errors import USAGE, CliError
from funcrt.cli.options import Json
from funcrt.cli.output import json_line, line, note

__all__ = ["app", "token"]

app = typer.Typer()


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Whose it is, for the audit log.")],
    scope: Annotated[
        str, typer.Option(help="What it allows, parted by commas: publish, read, admin.")
    ] = "publish,read",
    tokens: Annotated[
        Path | None,
        typer.Option(envvar="FUNCRT_TOKENS", help="Token file to add its hash to."),
    ] = None,
    json: Json = False,
) -> None:
    """Make a token for the gateway. It is shown once; only its hash is kept.

    Example: funcrt token ci --scope publish --tokens tokens.txt

    A running host reads its token file when it starts.
    """
    secret = new_token()
    try:
        entry = token_line(secret, scope.split(","), name)
    except ValueError as error:
        raise CliError(str(error), "funcrt token ci --scope publish,read", USAGE) from None
    if tokens is not None:
        fd = os.open(tokens, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(fd, "a+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            joined = size > 0 and file.read(1) != b"\n"
            file.write(b"\n" * joined + entry.encode() + b"\n")
    if json:
        json_line({"token": secret, "line": entry, "file": str(tokens) if tokens else None})
        return
    line(secret)
    if tokens is None:
        note(f"add this line to the token file:\n{entry}")
    else:
        note(f"{tokens}: added {name} ({scope}); the token is shown only now")
