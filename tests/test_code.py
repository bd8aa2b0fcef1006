"""Habits of the code that a reader relies on: small files, listed names, a docstring each."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("mesh", "triggers", "funcrt", "benchmarks")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
MOST_LINES_OF_A_FILE = 600
MOST_LINES_OF_A_FUNCTION = 70
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in FILES}


def test_files_stay_small() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in FILES
        if (lines := path.read_text("utf-8").count("\n")) > MOST_LINES_OF_A_FILE
    }
    assert long == {}


def test_functions_stay_short() -> None:
    """Of the body: a command's signature is its list of options."""
    long = [
        f"{name}:{node.lineno} {node.name}: {lines} lines"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.body[0].lineno + 1) > MOST_LINES_OF_A_FUNCTION
    ]
    assert long == []


def test_every_module_says_what_it_is_for() -> None:
    assert [name for name, tree in TREES.items() if not ast.get_docstring(tree)] == []


@pytest.mark.parametrize("name", [n for n in TREES if n.split("/")[0] != "benchmarks"])
def test_what_is_public_is_listed(name: str) -> None:
    """Every listed name is there, and what another module takes, or docs could name, is listed:
    classes and functions without an underscore that other modules import."""
    tree = TREES[name]
    listed = _listed(tree) or []
    if name.endswith("__main__.py"):
        return
    assert listed == sorted(set(listed), key=_order)
    assert set(listed) <= _defined(tree) | _lazy(tree)
    module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    taken = {each for other, each in _imported().get(module, ()) if other != name}
    assert {each for each in taken - set(listed) if not _is_module(module, each)} == set()
    if name.endswith("__init__.py"):
        return
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    private = {each for each in _own(tree) if not each.startswith("_")} - set(listed) - taken
    assert private - used == set(), "public, unlisted and unused"


@cache
def _imported() -> dict[str, set[tuple[str, str]]]:
    """Module -> (file that imports of it, what it imports)."""
    found: dict[str, set[tuple[str, str]]] = {}
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = {(name, alias.name) for alias in node.names}
                found.setdefault(node.module, set()).update(names)
    return found


def _order(name: str) -> tuple[int, str]:
    """ruff's order (RUF022): constants, classes, then the rest."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)


def _listed(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            found: list[str] = ast.literal_eval(node.value)
            return found
    return None


def _own(tree: ast.Module) -> set[str]:
    """Classes and functions of the module itself. What is decorated is handed on by that."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {
        node.name
        for node in tree.body
        if isinstance(node, kinds) and (isinstance(node, ast.ClassDef) or not node.decorator_list)
    }


def _defined(tree: ast.Module) -> set[str]:
    found = _own(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def _lazy(tree: ast.Module) -> set[str]:
    """Names that a module's `__getattr__` gives out."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)
                    and isinstance(n.value, str)}  # fmt: skip
    return set()


def _is_module(package: str, name: str) -> bool:
    path = ROOT / package.replace(".", "/") / name
    return path.is_dir() or path.with_suffix(".py").is_file()


OF_PYTEST = ("funcrt/pytest_plugin.py", "funcrt/testing/collect.py", "funcrt/cli/test.py")
"""What pytest imports, and what runs it."""


def test_nothing_that_ships_imports_tests() -> None:
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        if name not in OF_PYTEST
        for node in ast.walk(tree)
        if (
            isinstance(node, ast.Import)
            and any(alias.name.split(".")[0] in ("tests", "pytest") for alias in node.names)
        )
        or (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] in ("tests", "pytest")
        )
    ]
    assert wrong == []


MACHINE = re.compile(
    r"(?<![\w.~:/}-])/(?:work|home|root|Users|mnt)/[\w.-]+"  # a directory of one machine
    r"|https?://[\w.-]*(?:pypi|pythonhosted|artifactory|nexus|mirror)[\w.-]*"  # a registry's host
)


def test_no_text_names_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout.split(b"\0")
    if listed == [b""]:
        pytest.skip("not a git checkout: what belongs to the repository is not known")
    wrong = []
    for name in map(bytes.decode, filter(None, listed)):
        path = ROOT / name
        if path.suffix in (".jsonl", ".svg") or not path.is_file():
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            wrong.append(f"{name}: not UTF-8")
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE.search(line) and "MACHINE" not in line:
                wrong.append(f"{name}:{number}: {line.strip()[:100]}")
        if text and (not text.endswith("\n") or "\r\n" in text or text.endswith("\n\n")):
            wrong.append(f"{name}: ends without a line end, with two, or has Windows line ends")
    assert wrong == []
