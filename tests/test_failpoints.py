"""Every durable write stands between failpoints, and every failpoint is in the table."""

import ast
import re
from collections.abc import Iterator

import pytest

from mesh.failpoint import POINTS
from tests.test_code import ROOT, TREES

Function = ast.FunctionDef | ast.AsyncFunctionDef

NOT_A_HOST_S = (
    *("mesh/conformance/", "mesh/ledger/", "mesh/failpoint.py", "mesh/repair.py"),
    *("funcrt/testing/", "funcrt/scaffold.py"),
)
"""No host runs them: the checks, the checker, the repair, which writes a copy anew, an author's
tests, and `funcrt new`."""
SHIPPED = {
    name: tree
    for name, tree in TREES.items()
    if name.startswith(("mesh/", "funcrt/")) and not name.startswith(NOT_A_HOST_S)
}

ALLOWED = {
    "funcrt/sandbox/confine.py _show_all": "in memory, and gone with the processes that see it",
    "funcrt/sandbox/confine.py _write": "the kernel's own files, and those of the view",
    "mesh/checkpoint.py _add_room": "zeros behind the end of the log, which stand for nothing",
    "mesh/checkpoint.py _finish": "copies what is durable already; a point follows it, and"
    " `checkpoint.copied` is before it",
    "mesh/client.py _topic": "in the transaction of FileClient.publish",
    "mesh/engine.py topic": "in the transaction that `_transaction` has open",
    "mesh/embedded.py take_lock": "a pid for a message, true only while the lock is held",
    "mesh/integrity.py check_log": "notes damage that was found; no host is ended beside it yet,"
    " for it needs a damaged file",
    "mesh/store.py __init__": "makes an empty file: what it holds comes with the migration",
    "mesh/store.py checkpoint": "run by Checkpoints._run between its points",
    "mesh/sync.py copy_anew": "after a sync that failed; the host ends",
    "mesh/sync.py sync_file": "run by `store.checkpoint`, of what that has copied",
    "funcrt/tree.py write_tree": "below a temporary directory, by bundle.unpack between its points",
    "funcrt/tree.py _write_file": "by write_tree",
    "funcrt/tree.py _uproot": "takes away what nobody may keep",
    "funcrt/tree.py sync": "by bundle.unpack and DataDir.host_id, each between its points",
    "funcrt/deployer.py sweep": "takes away what a blob can make again",
    "funcrt/installer.py _asked": "below a temporary directory, for a child that ends with us",
    "funcrt/installer.py _handed": "the same",
    "funcrt/packages.py _finish": "in a temporary directory, by Packages._make between its points",
    "funcrt/packages.py _copy_own": "the same",
    "funcrt/packages.py _discard": "takes away what can be installed again",
    "funcrt/cli/token.py token": "one line, written at once to a file opened to append",
    "funcrt/cli/doctor.py _sync_times": "measures a disk with a file that is thrown away",
    "funcrt/sandbox/instance.py shared": "a few bytes of shared memory, no file",
    "funcrt/sandbox/instance.py halt": "the same",
    "funcrt/sandbox/groups.py write": "a word to the kernel, under the name of a file",
    "funcrt/sandbox/groups.py join": "the same",
    "funcrt/sandbox/runtime.py give": "the same",
    "funcrt/sandbox/zygote.py _streams": "pipes, under the names of files",
    "funcrt/sandbox/anchor.py anchor": "a pipe, under the name of a file, and the null device",
    "funcrt/sandbox/breakpoints.py take": "a terminal, under the names of files",
}
"""Functions that write, and need no points of their own."""

STATEMENT = re.compile(
    r"\s*(INSERT|UPDATE|DELETE|REPLACE|CREATE|DROP|ALTER|COMMIT|VACUUM|PRAGMA wal_checkpoint)\b"
)
IN_STORE = ("mesh/store.py", "mesh/done_keys.py")
NOT_FILES = ("host.replace", "self.replace", "msgspec.structs.replace")


def functions(tree: ast.AST) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree) if isinstance(node, Function))


def own(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions in it. Lambdas count as its own."""
    left: list[ast.AST] = [each for each in function.body if not isinstance(each, Function)]
    while left:
        node = left.pop()
        yield node
        left += [each for each in ast.iter_child_nodes(node) if not isinstance(each, Function)]


def called(node: ast.Call) -> str:
    """The last part of what is called."""
    return ast.unparse(node.func).rpartition(".")[2]


def modes(node: ast.Call) -> str:
    """All that a call of `open` is told beside the path."""
    more = [*node.args, *(keyword.value for keyword in node.keywords)]
    return " ".join(map(ast.unparse, more))


def writes(node: ast.AST, statements: set[str]) -> bool:
    """Whether a node writes what outlives the process: SQL, a method of the store that runs some
    (`statements`), or a file."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and STATEMENT.match(node.value) is not None
    if not isinstance(node, ast.Call):
        return False
    name, whole = called(node), ast.unparse(node.func)
    if "os.devnull" in map(ast.unparse, node.args):
        return False
    if whole == "os.open":
        return re.search(r"O_(WRONLY|RDWR|CREAT|APPEND|TRUNC)", modes(node)) is not None
    if name in ("open", "fdopen"):
        return re.search(r"'[rbt]*[wax+][^']*'", modes(node)) is not None
    if name in ("rename", "replace"):  # a string's takes two, a struct's takes names
        one = len(node.args) == 1 and not node.keywords
        return whole.startswith("os.") or (one and whole not in NOT_FILES)
    if whole.startswith("shutil."):
        return name in ("copy", "copy2", "copyfile", "copytree", "move")
    store = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value).endswith("store")
    return name in (
        *("write_text", "write_bytes", "fsync", "fdatasync", "pwrite", "ftruncate"),
        *("symlink", "link", "hardlink_to", "symlink_to", "mkfifo", "truncate"),
    ) or (store and name in statements)


def points(function: Function) -> list[tuple[int, str]]:
    """(line, name) of the points of a function."""
    return sorted(
        (node.lineno, ast.literal_eval(node.args[0]))
        for node in own(function)
        if isinstance(node, ast.Call) and called(node) == "point"
    )


def in_batch(name: str, function: Function, tree: ast.AST) -> bool:
    """Whether it can only run in an open transaction of the engine: it is a Batch's, or has one."""
    given = {each.arg for each in (*function.args.posonlyargs, *function.args.args)}
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    owner = [node.name for node in classes if function in node.body]
    return "batch" in given or (name == "mesh/batch.py" and owner == ["Batch"])


def unguarded(name: str, tree: ast.Module) -> dict[str, str]:
    """`file function` -> why, of the functions of a file whose writes no points surround."""
    found = {}
    for function in functions(tree):
        at = [node.lineno for node in own(function) if writes(node, STATEMENTS)]  # type: ignore[attr-defined]
        if not at or in_batch(name, function, tree):
            continue
        if name in IN_STORE and function.name in STATEMENTS and not commits(function):
            continue  # a statement: it is judged where it is called
        lines = [line for line, _ in points(function)]
        if not lines or min(lines) > min(at) or max(lines) < max(at):
            found[f"{name} {function.name}"] = f"writes on {sorted(at)}, points on {lines}"
    return found


def commits(function: Function) -> bool:
    """Whether it is more than statements for a transaction that its caller has open."""
    return any(
        writes(node, set()) if isinstance(node, ast.Call) else ends(node) for node in own(function)
    )


def ends(node: ast.AST) -> bool:
    """Whether it is SQL that makes something durable by itself."""
    value = node.value if isinstance(node, ast.Constant) else ""
    return isinstance(value, str) and value.startswith(("COMMIT", "PRAGMA wal_checkpoint"))


STATEMENTS = {
    function.name
    for file in IN_STORE
    for function in functions(SHIPPED[file])
    if any(writes(node, set()) for node in own(function)) and not commits(function)
} | {"run"}
"""Methods of the store that write in a transaction of whoever calls them; what commits is judged
where it is."""


def test_every_durable_write_stands_between_points() -> None:
    found: dict[str, str] = {}
    for name, tree in SHIPPED.items():
        found |= unguarded(name, tree)
    assert {name: why for name, why in found.items() if name not in ALLOWED} == {}
    assert set(ALLOWED) - set(found) == set(), "allowed, and not there any more"


@pytest.mark.parametrize(
    ("file", "write"),
    [
        ("funcrt/host.py", "path.write_text('x')"),
        ("funcrt/host.py", "temporary.replace(target)"),
        ("funcrt/host.py", "os.rename(a, b)"),
        ("funcrt/host.py", "os.fsync(fd)"),
        ("funcrt/host.py", "open(path, 'ab').write(b'x')"),
        ("funcrt/host.py", "path.open(mode='w')"),
        ("funcrt/host.py", "os.open(path, os.O_CREAT | os.O_RDWR)"),
        ("mesh/engine.py", "self.store.db.execute('COMMIT')"),
        ("mesh/engine.py", "self.store.add_sub(name, topic, spec, None)"),
        ("mesh/engine.py", "store.run(query, 1)"),
        ("mesh/engine.py", "self.store.remember_keys(sub, keys)"),
        ("mesh/embedded.py", "db.execute('DELETE FROM state')"),
        ("mesh/store.py", "self.db.execute('COMMIT')"),
    ],
)
def test_a_write_without_points_is_found(file: str, write: str) -> None:
    """Also where a point is on one side of it alone."""
    before, after = "    point('x')\n", "\n    point('y')"
    for first, last in (("", ""), (before, ""), ("", after), (before, after)):
        source = f"async def planted(self, path):\n{first}    {write}{last}\n"
        found = unguarded(file, ast.parse(source))
        assert list(found) == ([] if first and last else [f"{file} planted"])


def test_the_table_names_each_point_of_the_code_once() -> None:
    placed = [
        name for tree in SHIPPED.values() for each in functions(tree) for _, name in points(each)
    ]
    assert sorted(placed) == sorted(name for name, _ in POINTS)


def test_points_are_documented() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z-]+\.?[a-z]*)` \| (.*) \|$", text, re.M)
    assert rows == list(POINTS)
