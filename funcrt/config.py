"""Where a host keeps its files, and what `funcrt serve` was asked to do.

One data directory (`--data`, FUNCRT_DATA, else `./.funcrt`) holds all of it, so that commands in
other terminals find the same mesh and the same host without being told.
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from funcrt.sandbox.levels import Policy
from funcrt.tree import sync
from mesh.failpoint import point

__all__ = ["DEFAULT_NAMESPACE", "DataDir", "DevConfig", "ServeConfig"]

DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True)
class DataDir:
    """The directory of one host's files. Nothing is made until a host starts."""

    root: Path

    @classmethod
    def find(cls, given: Path | None = None) -> "DataDir":
        """`given`, else FUNCRT_DATA, else `./.funcrt`; always absolute."""
        root = given or Path(os.environ.get("FUNCRT_DATA") or ".funcrt")
        return cls(root.absolute())

    @property
    def mesh_file(self) -> Path:
        """The embedded mesh's file."""
        return self.root / "mesh.db"

    @property
    def mesh_url(self) -> str:
        """The default mesh, e.g. `embedded:///srv/app/.funcrt/mesh.db`."""
        return f"embedded://{quote(str(self.mesh_file))}"

    @property
    def admin_socket(self) -> Path:
        """The Unix socket of the admin API."""
        return self.root / "admin.sock"

    @property
    def packages(self) -> Path:
        """Where what functions need is installed."""
        return self.root / "packages"

    def host_id(self) -> str:
        """This host's name among those of a mesh: made at its first start, and kept."""
        path = self.root / "host-id"
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            self.root.mkdir(parents=True, exist_ok=True)
            made = secrets.token_hex(6)
            point("host-id.before")
            # Whole or not at all: half a name would be another host's, with queues of its own.
            temporary = path.with_suffix(".new")
            with temporary.open("w") as file:
                file.write(f"{made}\n")
                file.flush()
                os.fsync(file.fileno())
            point("host-id.written")
            temporary.replace(path)
            point("host-id.after")
            sync(self.root)
            return made


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What `funcrt serve` hands to `funcrt.serve.run`."""

    functions: tuple[Path, ...]
    """Function directories, or directories of them; messages name them as they are given."""
    data: DataDir
    mesh_url: str
    namespace: str = DEFAULT_NAMESPACE
    host: str = "127.0.0.1"
    port: int = 8080
    """0 lets the system choose; the banner says which."""
    tokens: Path | None = None
    admin_socket: Path
    allowed_hosts: tuple[str, ...] = ()
    """Names besides the loopback's that a Host header may carry."""
    allowed_origins: tuple[str, ...] = ()
    """Origins, e.g. `https://ops.example`, whose pages may call the gateway."""
    secrets: Path | None = None
    """The directory of the files that `[secrets]` of the manifests name."""
    profile: str = ""
    """What `[profile.NAME]` of the manifests changes; empty for nothing."""
    drain_s: float = 30.0
    """How long calls in flight may take to finish once the host was told to stop."""
    install: bool = True
    """Install what functions need; else it must be in funcrt's own environment."""
    source_builds: bool = False
    """Let functions ask for packages to be built from source."""
    logs: bool = False
    """Write what functions write to standard error, too."""
    json: bool = False
    """Say what happens as JSON lines."""
    quiet: bool = False
    user: str = ""
    """Whom a host becomes that was started as root: a name or a number; empty for the owner of the
    data directory, or somebody without an account."""
    keeps_user: bool = False
    """It stays whom it was started as: a host of `funcrt dev` works on its author's files."""
    policy: Policy = Policy()  # noqa: RUF009 - frozen
    """What isolation functions get, where it is not what they ask for."""


@dataclass(frozen=True, kw_only=True)
class DevConfig:
    """What `funcrt dev` hands to `funcrt.dev.run`."""

    serve: ServeConfig
    reload: bool = True
    env_file: Path | None = None
    """Instead of `.env` in the working directory."""
    debug: int | None = None
    """The port where editors attach; 0 lets the system choose, None is without a debugger."""
