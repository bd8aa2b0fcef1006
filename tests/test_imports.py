"""The one direction: mesh imports nothing of ours, triggers only events, funcrt both."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "mesh": ("mesh",),
    "triggers": ("mesh.event", "triggers"),
    "funcrt": ("mesh", "triggers", "funcrt"),
}


def _imports(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def _files() -> list[tuple[str, Path, ast.AST]]:
    return [
        (package, path, ast.parse(path.read_text()))
        for package in ALLOWED
        for path in sorted((ROOT / package).rglob("*.py"))
    ]


def test_imports_follow_the_one_direction() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for package, path, tree in _files()
        for name in _imports(tree)
        if name.split(".")[0] in (*ALLOWED, "functions", "tests", "templates")
        and not any(name == ok or name.startswith(ok + ".") for ok in ALLOWED[package])
    ]
    assert wrong == []
