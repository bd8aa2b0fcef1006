"""Where a host finds the secrets that manifests name: files of its secrets directory, and its own
environment."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from funcrt.errors import DeployError
from funcrt.sandbox.secrets import NO_SECRETS, SHORTEST, Secrets

__all__ = ["ENVIRONMENT", "MOST_BYTES", "SecretStore", "SecretsMissing", "apart", "exposed"]

ENVIRONMENT = "env:"
"""Begins a source that is a variable of the host's environment; any other is a file's path."""
MOST_BYTES = 64 << 10
"""Of one value."""


class SecretsMissing(DeployError):
    """Secrets that a manifest names and that cannot be had: each with where it was looked for."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def apart(
    env: Mapping[str, str], sources: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Of an author's variables, those for the environment, and those that are secrets of a
    manifest: by its name, or by the variable that it is taken from."""
    variables = (each.partition(ENVIRONMENT) for each in sources.values())
    secret = {*sources, *(variable for before, _, variable in variables if not before)} - {""}
    given = {name: value for name, value in env.items() if name in secret}
    return {name: value for name, value in env.items() if name not in secret}, given


class _Unusable(Exception):
    """Why a value cannot be had."""


class SecretStore:
    """A host's. Files are read each time an instance starts, so that what has changed is taken up.

    `environment` is the host's own. A `local` one serves an author: a variable of the secret's own
    name will do where its source has none, and `give` beats both.
    """

    def __init__(
        self,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        local: bool = False,
    ) -> None:
        self.directory = directory
        self.environment = {} if environment is None else environment
        self.local = local
        self.rounds: dict[str, int] = {}
        """By function: how often what was given for it has changed."""
        self._given: dict[str, Mapping[str, str]] = {}
        self._read: dict[str, Secrets] = {}
        self._warned: set[str] = set()

    def give(self, function: str, values: Mapping[str, str]) -> None:
        """What an author has for a function, by the secret's name or that of its variable."""
        if values != self._given.get(function, {}):
            self.rounds[function] = self.rounds.get(function, 0) + 1
            self._given[function] = dict(values)

    def read(self, function: str, sources: Mapping[str, str]) -> Secrets:
        """The values of a function's secrets now: the same object as before where none has
        changed. Raises SecretsMissing."""
        if not sources:
            return NO_SECRETS
        values, problems = {}, []
        for name, source in sources.items():
            try:
                values[name] = _fit(self._value(function, name, source))
            except _Unusable as error:
                problems.append(f"{function}: secrets.{name}: {error}")
        if problems:
            raise SecretsMissing(problems)
        before = self._read.get(function)
        if before is None or before.values != values:
            before = self._read[function] = Secrets(values)
        return before

    def _value(self, function: str, name: str, source: str) -> str:
        variable = source.removeprefix(ENVIRONMENT) if source.startswith(ENVIRONMENT) else ""
        given = self._given.get(function, {})
        for key in (name, variable):
            if key in given:
                return given[key]
        try:
            return self._variable(variable) if variable else self._file(source)
        except _Unusable as error:
            if not self.local:
                raise
            if name in self.environment:
                return self.environment[name]
            raise _Unusable(f"{error}; or put {name}=... into .env") from None

    def _variable(self, variable: str) -> str:
        if variable not in self.environment:
            raise _Unusable(
                f"the host's environment has no {variable}: start it with {variable}=... set"
            )
        return self.environment[variable]

    def _file(self, source: str) -> str:
        if self.directory is None:
            raise _Unusable(
                f'"{source}" is a file of the secrets directory, and none is given: --secrets DIR;'
                f' or name a variable of the host\'s environment, "{ENVIRONMENT}NAME"'
            )
        path = self.directory / source
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to(self.directory.resolve()):
                raise _Unusable(
                    f"{path} leads out of the secrets directory, to {real}; put the file itself"
                    " there"
                )
            body = _body(real)
        except FileNotFoundError:
            raise _Unusable(
                f"no file {path}; write the value there, for the host's user alone (chmod 600)"
            ) from None
        except (OSError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or error
            raise _Unusable(f"{path} cannot be read: {why}") from None
        return body

    def check_apart(self, function: str, folder: Path, files: Sequence[str]) -> None:
        """Raises DeployError where the secrets directory would be packed with a function's folder,
        or is shown to it by `sandbox.files`."""
        if self.directory is None:
            return
        mine = self.directory.resolve()
        if mine.is_relative_to(folder.resolve()):
            raise DeployError(
                f"{function}: the secrets directory, {self.directory}, is in its folder and would"
                " be packed with its code; keep it elsewhere"
            )
        for path in files:
            shown = Path(path).resolve()
            if mine.is_relative_to(shown) or shown.is_relative_to(mine):
                raise DeployError(
                    f"{function}: sandbox.files: {path} would show it the host's secrets directory,"
                    f" {self.directory}; name what lies beside it"
                )

    def cautions(self, sources: Mapping[str, str]) -> Iterator[str]:
        """A line for each file that other users of the machine can read; once each."""
        for source in sources.values():
            if self.directory is None or source.startswith(ENVIRONMENT) or source in self._warned:
                continue
            if exposed(self.directory, source):
                self._warned.add(source)
                path = self.directory / source
                yield f"other users can read the secret in {path}; chmod 600 {path}"


def exposed(directory: Path, source: str) -> bool:
    """Whether users other than the file's owner and group can come to a file and read it."""
    path = directory / source
    try:
        above = [each for each in path.parents if each.is_relative_to(directory)]
        return bool(path.stat().st_mode & 0o004) and all(
            each.stat().st_mode & 0o001 for each in above
        )
    except OSError:
        return False


def _body(path: Path) -> str:
    """A file's text, without a newline at its end."""
    # Neither a link that was put there meanwhile, nor a pipe that nobody writes to.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _Unusable(f"{path} is not a file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            body = file.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(body) > MOST_BYTES:
        raise _Unusable(f"{path} has more than {MOST_BYTES} bytes")
    try:
        return body.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise _Unusable(f"{path} is not UTF-8 text; store it as base64") from None


def _fit(value: str) -> str:
    """A value that can be handed over, and found in what a function says. Raises _Unusable."""
    if "\0" in value:
        raise _Unusable("its value holds a NUL, which no text may; store it as base64")
    if len(value.strip()) < SHORTEST:
        raise _Unusable(
            f"its value has {len(value.strip())} characters, and at least {SHORTEST} are needed:"
            " fewer could not be kept out of logs"
        )
    if len(value.encode()) > MOST_BYTES:
        raise _Unusable(f"its value has more than {MOST_BYTES} bytes")
    return value
