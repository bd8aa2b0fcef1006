"""Write docs/cli.md from the commands' own help: `make docs`. The test compares it."""

import contextlib
import importlib
import io
import os
import re
import sys
from collections.abc import Iterator

os.environ.update(COLUMNS="80", TERM="dumb")
for name in [name for name in os.environ if name.startswith("FUNCRT_")]:
    del os.environ[name]

from funcrt.cli import COMMANDS, EPILOG, main  # noqa: E402 - the width is read as it is imported

HEAD = """\
# The command line

Made by `make docs` from `funcrt COMMAND --help`. All but `tail` end by themselves; data goes to
standard output, remarks and errors to standard error. On a terminal data is a table, in a pipe
plain lines parted by tabs; `--json` prints JSON lines. NO_COLOR takes the colours away.

"""

VARIABLES = {
    "FUNCRT_USER": "`serve --user`: whom a host becomes that root starts",
    "FUNCRT_ISOLATION": "the level of isolation that every function runs at; `--isolation`",
    "FUNCRT_ALLOW_ISOLATION": "the lowest that will do where a level cannot be had;"
    " `--allow-isolation`",
    "FUNCRT_DATA": "`--data`: the directory of the host's files; `./.funcrt` by default",
    "FUNCRT_MESH": "`--mesh`: the mesh's URL ([transports.md](transports.md))",
    "FUNCRT_NAMESPACE": "`--namespace`: the prefix of every name",
    "FUNCRT_ADMIN_SOCKET": "`--admin-socket`: the Unix socket of the admin API",
    "FUNCRT_HOST": "`--host`: the gateway of a host elsewhere, for what changes deployments",
    "FUNCRT_TOKEN": "the token that is sent to `--host`",
    "FUNCRT_TOKENS": "`--tokens`: the token file of the gateway",
    "FUNCRT_SECRETS": "`--secrets`: the directory of the files that `[secrets]` names",
    "FUNCRT_DRAIN": "`serve --drain`: seconds for calls in flight to finish at the end",
    "FUNCRT_INSTALL": "with 0 `--no-install`: nothing is installed for functions",
    "HOME": "where `pip.conf` and `uv.toml` are looked for ([dependencies.md](dependencies.md))",
    "XDG_CONFIG_HOME": "the same; `HOME`'s `.config` by default",
    "PYENV_ROOT": "where pyenv has its Pythons ([functions.md](functions.md#another-python));"
    " `HOME`'s `.pyenv` by default",
    "UV_PYTHON_INSTALL_DIR": "where uv has its own; `XDG_DATA_HOME`'s `uv/python` by default",
    "XDG_DATA_HOME": "the same; `HOME`'s `.local/share` by default",
    "FUNCRT_CONTAINED": "set to anything, as in the image: what a container lacks is told with what"
    " it takes to have it ([image.md](image.md))",
    "DOCKER_HOST": "the socket of the Docker daemon that makes containers"
    " ([containers.md](containers.md)); `unix:///var/run/docker.sock` by default",
    "FUNCRT_FAILPOINT": "for tests: end at a failpoint (docs/guarantees.md)",
    "PYTHONBREAKPOINT": "in a function's environment: what `breakpoint()` calls; 0 for nothing",
    "TERM": "of `dev`: what pdb is told the terminal is",
    "FUNCRT_TRACEBACK": "set to anything: show the traceback of an error that is a bug",
    "NO_COLOR": "set to anything: no colours",
}


def commands() -> Iterator[str]:
    """Every command that does something: `serve`, `dlq ls`."""
    for name in COMMANDS:
        app = importlib.import_module(f"funcrt.cli.{name}").app
        if not app.registered_callback:
            yield name
            continue
        for each in app.registered_commands:
            yield f"{name} {each.name or each.callback.__name__}"


def said(words: list[str]) -> str:
    """What a command prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(words)
    return out.getvalue()


def page() -> str:
    """All of docs/cli.md."""
    parts = [HEAD, EPILOG + "\n"]
    end = re.compile(r"\n\s*Exit codes:.*", re.S)
    for name in commands():
        text = end.sub("", said([*name.split(), "--help"])).rstrip()
        parts.append(f"\n## funcrt {name}\n```\n{text}\n```\n")
    parts.append("\n## Environment variables\n| variable | |\n|---|---|\n")
    parts += [f"| `{name}` | {text} |\n" for name, text in VARIABLES.items()]
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
