"""Secrets in a test: what it gives, or what a file of its own has. A host's are not looked for."""

from collections.abc import Mapping
from pathlib import Path

from funcrt.env_file import read_env
from funcrt.errors import FuncrtError

__all__ = ["FILE", "Given", "SecretNotGiven", "given_secrets"]

FILE = "tests/secrets.env"


class SecretNotGiven(FuncrtError):
    """A function under test asked for a secret that its manifest declares and nobody gave."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no test gave the secret {name}: function.secrets[{name!r}] = ..., load(...,"
            f" secrets={{{name!r}: ...}}), or a line {name}=... in {FILE}"
        )


class Given(dict[str, str]):
    """Of the secrets that a manifest declares, those that were given."""

    def __init__(self, declared: Mapping[str, str], given: Mapping[str, str]) -> None:
        super().__init__({name: given[name] for name in declared if name in given})
        self.declared = declared

    def __missing__(self, name: str) -> str:
        if name in self.declared:
            raise SecretNotGiven(name)
        raise KeyError(name)


def given_secrets(path: Path, declared: Mapping[str, str]) -> dict[str, str]:
    """What the file in a function's directory has of those that are declared. Raises
    EnvFileInvalid."""
    if not declared:
        return {}
    found = read_env([path / FILE])
    return {name: found[name] for name in declared if name in found}
