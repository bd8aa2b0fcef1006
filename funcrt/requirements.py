"""What a function needs installed: read, checked and named, never installed, here.

It is said in one place of three: `requirements.txt`, `[project] dependencies` of `pyproject.toml`,
or `dependencies` of the manifest.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from funcrt.errors import ManifestError, Problem
from funcrt.locate import read_toml
from funcrt.wrong import Wrong, describe, wrong

__all__ = ["FILE", "PROJECT", "Needs", "allows", "name_of", "read_needs", "requirement"]

FILE = "requirements.txt"
PROJECT = "pyproject.toml"
PROVIDED = ("funcrt",)
"""What the host brings, whatever is asked for."""
MOST_BYTES = 1 << 20
MOST_INCLUDED = 20
_REQUIREMENT = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[A-Za-z0-9._,\s-]*\])?\s*"
    r"(?:[=<>!~(;].*|@\s*https://\S+.*|--hash=.*)?",
    re.ASCII | re.DOTALL,
)
_INCLUDE = re.compile(r"(?:-r|--requirement)[\s=]+(\S+)")
_CLAUSE = re.compile(r"(===?|!=|~=|>=?|<=?)\s*([0-9]+(?:\.[0-9]+)*)(\.\*)?", re.ASCII)
_NO_EFFECT = re.compile(r"--(?:require-hashes|only-binary[\s=]+\S+|prefer-binary)")
"""Options that ask for what is done anyway."""
_EXPECTED = 'a requirement such as "pillow>=11"'


class Needs(msgspec.Struct, frozen=True):
    """What is to be installed for a function. Empty `lines` for nothing."""

    lines: tuple[str, ...] = ()
    """Requirements, sorted, each once, as pip and uv take them: `pillow>=11`."""
    file: str = ""
    """Where they are written: its name in the function's folder."""
    places: dict[str, int] = {}
    """Line in `file` by the name of a package; not of what is included from another."""
    python: str = ""
    """The versions of Python that its project says it runs in: `>=3.12`; empty for any."""
    python_line: int | None = None
    """Of `pyproject.toml`."""

    @property
    def names(self) -> list[str]:
        """The packages that are named, normalised."""
        return list(dict.fromkeys(map(name_of, self.lines)))


def name_of(line: str) -> str:
    """A requirement's package, normalised as indexes do: `typing-extensions`."""
    found = _REQUIREMENT.match(line)
    return re.sub(r"[-_.]+", "-", found[1]).lower() if found else line


def requirement(value: object) -> str:
    """A requirement as a manifest may hold it. Raises Wrong."""
    if not isinstance(value, str):
        raise wrong(_EXPECTED, value)
    line = value.strip()
    if why := _refused(line):
        raise Wrong(why)
    if "--hash" in line:
        raise Wrong(f"hashes are taken in {FILE} only, found {describe(value)}")
    return line


def _refused(line: str) -> str:
    """Why a line is not to be handed to an installer; "" where it may be. It is a line of a file
    there: one that goes on in the next would be another, an option, say."""
    if "${" in line:
        return (
            f"variables are not taken here, found {describe(line)}: an installer would put in what"
            " its environment holds, passwords of indexes among it"
        )
    if _REQUIREMENT.fullmatch(line) and line.isprintable() and not line.endswith("\\"):
        return ""
    return f"expected {_EXPECTED}, found {describe(line)}"


def read_needs(directory: Path, manifest: str = "", own: Sequence[str] = ()) -> Needs:
    """What the function in `directory` needs; `own` is what its manifest, the file `manifest`,
    says. Raises ManifestError, with paths that begin with `directory`, with every mistake, and
    where more than one place says something."""
    found: list[tuple[str, Needs]] = []
    if own:
        places = _places(directory / manifest, ("tool", "funcrt") if manifest == PROJECT else ())
        found.append((f"dependencies of {manifest}", _needs(own, manifest, places)))
    if (directory / FILE).is_file():
        found.append((FILE, _of_file(directory)))
    if (needs := _of_project(directory)) is not None:
        found.append((f"[project] dependencies of {PROJECT}", needs))
    found = [(place, needs) for place, needs in found if needs.lines]
    if len(found) > 1:
        both = " and ".join(place for place, _ in found)
        message = f"what it needs is said in {both}; keep one of them"
        raise ManifestError([Problem(file=str(directory / found[0][1].file), message=message)])
    python, line = _python(directory)
    needs = found[0][1] if found else Needs()
    return msgspec.structs.replace(needs, python=python, python_line=line)


def _python(directory: Path) -> tuple[str, int | None]:
    raw, lines = read_toml(directory / PROJECT)
    project = raw.get("project")
    asked = project.get("requires-python") if isinstance(project, dict) else None
    if not isinstance(asked, str):
        return "", None
    return asked, lines.get(("project", "requires-python"))


def allows(asked: str, version: str) -> bool:
    """Whether `>=3.12,<4` takes a version of Python, `3.12.1`, by PEP 440. A part that is none of
    its clauses excludes nothing."""
    own = tuple(int(part) for part in version.split("."))
    return all(_holds(own, clause.strip()) for clause in asked.split(","))


def _holds(own: tuple[int, ...], clause: str) -> bool:
    found = _CLAUSE.fullmatch(clause)
    if found is None:
        return True
    given = tuple(int(part) for part in found[2].split("."))
    width = max(len(own), len(given))
    one, other = ((*each, *[0] * (width - len(each))) for each in (own, given))
    alike = own[: len(given)] == given if found[3] else one == other
    match found[1]:
        case "==" | "===":
            return alike
        case "!=":
            return not alike
        case "~=":
            return one >= other and own[: len(given) - 1] == given[:-1]
        case ">=":
            return one >= other
        case "<=":
            return one <= other
        case ">":
            return one > other
    return one < other


def _needs(lines: Sequence[str], file: str, places: dict[str, int]) -> Needs:
    kept = {line.strip() for line in lines if name_of(line.strip()) not in PROVIDED}
    return Needs(tuple(sorted(kept)), file, places)


def _places(file: Path, above: tuple[str, ...]) -> dict[str, int]:
    """The line of each of a TOML array's requirements."""
    raw, lines = read_toml(file)
    for key in above:
        raw = raw[key]
    listed = enumerate(raw.get("dependencies", []))
    return {
        name_of(one): lines.get((*above, "dependencies", at), 0)
        for at, one in listed
        if isinstance(one, str)
    }


def _of_project(directory: Path) -> Needs | None:
    file = directory / PROJECT
    raw, lines = read_toml(file)
    project = raw.get("project")
    listed = project.get("dependencies") if isinstance(project, dict) else None
    if listed is None:
        return None
    at = lines.get(("project", "dependencies"))
    key = "project.dependencies"
    if not isinstance(listed, list):
        message = str(wrong("an array of requirements", listed))
        raise ManifestError([Problem(file=str(file), line=at, path=key, message=message)])
    problems, kept = [], []
    for index, one in enumerate(listed):
        try:
            kept.append(requirement(one))
        except Wrong as error:
            line = lines.get(("project", "dependencies", index), at)
            path = f"{key}[{index}]"
            problems.append(Problem(file=str(file), line=line, path=path, message=str(error)))
    if problems:
        raise ManifestError(problems)
    return _needs(kept, PROJECT, _places(file, ("project",)))


# requirements.txt


def _of_file(directory: Path) -> Needs:
    reader = _Reader(directory)
    reader.read(FILE, None)
    if reader.problems:
        raise ManifestError(reader.problems)
    return _needs(reader.lines, FILE, reader.places)


class _Reader:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: list[str] = []
        self.places: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.seen: set[str] = set()

    def read(self, name: str, asked: tuple[str, int] | None) -> None:
        """Take the lines of a file, and of what it includes."""
        self.seen.add(name)
        file, line = asked or (name, None)
        try:
            raw = (self.directory / name).read_bytes()
            text = raw[:MOST_BYTES].decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            self.refuse(file, line, f"{name} cannot be read: {why}")
            return
        if len(raw) > MOST_BYTES:
            self.refuse(name, None, f"{len(raw)} bytes; at most {MOST_BYTES} are read")
        for number, each in _lines(text):
            self.take(name, number, each)

    def take(self, file: str, number: int, line: str) -> None:
        """One requirement or option."""
        if included := _INCLUDE.fullmatch(line):
            path = str(PurePosixPath(file).parent / included[1])
            if ".." in PurePosixPath(path).parts or path.startswith("/"):
                self.refuse(file, number, f"{included[1]} is not in the function's folder")
            elif path not in self.seen and len(self.seen) < MOST_INCLUDED:
                self.read(path, (file, number))
        elif line.startswith("-"):
            if not _NO_EFFECT.fullmatch(line):
                option = re.split(r"[\s=]", line)[0]
                self.refuse(
                    file,
                    number,
                    f"{option} is not taken here; where packages come from is set where the host"
                    " runs, by PIP_INDEX_URL, UV_INDEX_URL and the like",
                )
        elif why := _refused(line):
            self.refuse(file, number, why)
        else:
            self.lines.append(line)
            if file == FILE:
                self.places.setdefault(name_of(line), number)

    def refuse(self, file: str, line: int | None, message: str) -> None:
        """Note a mistake."""
        where = str(self.directory / file)
        self.problems.append(Problem(file=where, line=line, message=message))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """What a file says, with the line where it begins: joined, without comments."""
    begun, joined = 0, ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*$", "", raw)
        begun = begun if joined else number
        if line.endswith("\\") and not raw.lstrip().startswith("#"):
            joined += line[:-1] + " "
            continue
        whole, joined = " ".join((joined + line).split()), ""
        if whole:
            yield begun, whole
    if joined.strip():
        yield begun, " ".join(joined.split())
