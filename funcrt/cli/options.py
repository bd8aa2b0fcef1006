"""Options that several commands share, and what they mean together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from funcrt.cli.errors import USAGE, CliError
from funcrt.config import DEFAULT_NAMESPACE, DataDir
from funcrt.sandbox.levels import Level

__all__ = [
    "AllowIsolation",
    "Data",
    "DataDirOnly",
    "HostUrl",
    "Install",
    "Isolation",
    "Json",
    "Mesh",
    "Namespace",
    "Place",
    "SecretsDir",
    "Socket",
    "check_directories",
    "check_secrets",
    "place",
]

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        "--data-dir",
        envvar="FUNCRT_DATA",
        help="Directory of the host's files: mesh, admin socket.",
        show_default="./.funcrt",
        metavar="DIR",
    ),
]
DataDirOnly = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="FUNCRT_DATA",
        help="Directory of the host's files. (Elsewhere --data; here that is the event's.)",
        show_default="./.funcrt",
        metavar="DIR",
    ),
]
Mesh = Annotated[
    str | None,
    typer.Option(
        "--mesh",
        envvar="FUNCRT_MESH",
        help="Mesh to use.",
        show_default="embedded mesh in the data directory",
        metavar="URL",
    ),
]
Namespace = Annotated[
    str, typer.Option("--namespace", envvar="FUNCRT_NAMESPACE", help="Prefix of every name.")
]
Socket = Annotated[
    Path | None,
    typer.Option(
        "--admin-socket",
        envvar="FUNCRT_ADMIN_SOCKET",
        help="Unix socket of the admin API.",
        show_default="admin.sock in the data directory",
        metavar="PATH",
    ),
]
HostUrl = Annotated[
    str | None,
    typer.Option(
        "--host",
        envvar="FUNCRT_HOST",
        help="Gateway of a host elsewhere; FUNCRT_TOKEN holds a token with the scope admin.",
        show_default="the admin socket",
        metavar="URL",
    ),
]
Install = Annotated[
    bool,
    typer.Option(
        "--install/--no-install",
        envvar="FUNCRT_INSTALL",
        help="What functions need; else it must be in funcrt's own environment.",
    ),
]
SecretsDir = Annotated[
    Path | None,
    typer.Option(
        "--secrets",
        envvar="FUNCRT_SECRETS",
        help="Directory of the files that [secrets] of the manifests name.",
        show_default="none",
        metavar="DIR",
    ),
]
Isolation = Annotated[
    Level | None,
    typer.Option(
        "--isolation",
        envvar="FUNCRT_ISOLATION",
        help="Run every function at this level, whatever its manifest asks for.",
        show_default="as the manifest says",
    ),
]
AllowIsolation = Annotated[
    Level | None,
    typer.Option(
        "--allow-isolation",
        envvar="FUNCRT_ALLOW_ISOLATION",
        help="The lowest level that will do where a machine lacks the one asked for.",
        show_default="none: refuse",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]


def check_directories(given: Sequence[Path], expected: str, hint: str) -> None:
    """Raises CliError for the first that is no directory."""
    for path in given:
        if not path.is_dir():
            found = "is a file" if path.exists() else "does not exist"
            raise CliError(f"{path} {found}, expected {expected}", hint, USAGE)


def check_secrets(given: Path | None) -> None:
    """Raises CliError where it is no directory."""
    hint = "mkdir -m 700 /etc/funcrt/secrets   # and a file below it for each"
    check_directories([given] if given is not None else [], "a directory of secrets", hint)


@dataclass(frozen=True)
class Place:
    """Where the mesh and the host are."""

    data: DataDir
    mesh_url: str
    namespace: str
    admin_socket: Path

    @property
    def default_mesh_missing(self) -> bool:
        """Whether the mesh is the data directory's own, and not there yet."""
        return self.mesh_url == self.data.mesh_url and not self.data.mesh_file.exists()


def place(
    data: Path | None,
    mesh: str | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    admin_socket: Path | None = None,
) -> Place:
    """Fill in what was not given."""
    found = DataDir.find(data)
    return Place(
        data=found,
        mesh_url=mesh or found.mesh_url,
        namespace=namespace,
        admin_socket=(admin_socket or found.admin_socket).absolute(),
    )
