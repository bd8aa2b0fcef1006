"""`funcrt serve`: a host in the foreground."""

from pathlib import Path
from typing import Annotated

import typer

from funcrt.cli.options import (
    AllowIsolation,
    Data,
    Install,
    Isolation,
    Json,
    Mesh,
    Namespace,
    SecretsDir,
    Socket,
    check_directories,
    check_secrets,
    place,
)
from funcrt.config import ServeConfig
from funcrt.sandbox.levels import Policy

__all__ = ["app", "serve"]

app = typer.Typer()


@app.command()
def serve(
    functions: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DIR...", help="Functions, or directories of them.", show_default=False
        ),
    ] = None,
    *,
    data: Data = None,
    mesh: Mesh = None,
    namespace: Namespace = "default",
    host: Annotated[
        str, typer.Option(help="Address of the gateway. Any but the loopback needs --tokens.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port of the gateway; 0 for any.", min=0, max=65535)
    ] = 8080,
    tokens: Annotated[
        Path | None,
        typer.Option(envvar="FUNCRT_TOKENS", help="Token file; `funcrt token` adds to it."),
    ] = None,
    admin_socket: Socket = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that Host headers may carry; repeatable.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="An origin whose pages may call; repeatable.")
    ] = None,
    secrets: SecretsDir = None,
    profile: Annotated[
        str,
        typer.Option(help="What [profile.NAME] of the manifests changes.", metavar="NAME"),
    ] = "",
    drain: Annotated[
        float,
        typer.Option(
            envvar="FUNCRT_DRAIN", help="Seconds for calls in flight to finish at the end.", min=0
        ),
    ] = 30.0,
    user: Annotated[
        str,
        typer.Option(
            envvar="FUNCRT_USER",
            help="Whom a host becomes that root starts: a name or number; root to stay.",
            show_default="the data directory's owner, or one without an account",
            metavar="USER",
        ),
    ] = "",
    isolation: Isolation = None,
    allow_isolation: AllowIsolation = None,
    install: Install = True,
    source_builds: Annotated[
        bool,
        typer.Option(
            "--source-builds",
            help="Let functions ask for packages to be built from source, which runs code of them.",
        ),
    ] = False,
    logs: Annotated[
        bool, typer.Option("--logs", help="Write functions' lines to standard error, too.")
    ] = False,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say only what went wrong.")] = False,
) -> int:
    """Run a host: functions, mesh, HTTP gateway. Ctrl-C or SIGTERM drains and stops it.

    Example: funcrt serve ./functions --port 8080

    What was deployed with `funcrt deploy` is in service again too; a function of a DIR that is not
    given any more is not.
    """
    check_directories(functions or (), "a directory of functions", "funcrt serve ./functions")
    check_secrets(secrets)
    where = place(data, mesh, namespace, admin_socket)
    config = ServeConfig(
        functions=tuple(functions or ()),
        data=where.data,
        mesh_url=where.mesh_url,
        namespace=where.namespace,
        host=host,
        port=port,
        tokens=tokens,
        admin_socket=where.admin_socket,
        allowed_hosts=tuple(allow_host or ()),
        allowed_origins=tuple(allow_origin or ()),
        secrets=secrets,
        profile=profile,
        drain_s=drain,
        install=install,
        source_builds=source_builds,
        logs=logs,
        user=user,
        policy=Policy.of(isolation, allow_isolation),
        json=json,
        quiet=quiet,
    )
    from funcrt import serve as runtime

    code = runtime.run(config)
    return code if isinstance(code, int) else 0
