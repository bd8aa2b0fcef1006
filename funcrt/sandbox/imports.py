"""Which modules a function's code imports before it does anything else: those can be imported ahead
of it, in a process that its versions are forked from, without the code noticing."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["Wanted", "leading_imports"]

Wanted = tuple[str, tuple[str, ...]]
"""A module, and the names taken from it, some of which may be its submodules."""


class _Effect(Exception):
    """A statement that does something: what is imported after it may depend on it."""


def leading_imports(path: Path, handler: str = "") -> tuple[Wanted, ...]:
    """What the handler's module in the directory `path` imports from elsewhere, through the
    directory's own modules too, in order and up to the first statement that has an effect.

    `os.environ[...] = "1"` or `monkey.patch_all()` before an import is such an effect. Code that
    cannot be parsed has none: its own import will tell. Nothing is run.
    """
    reader = _Reader(path)
    try:
        reader.module(handler.partition(":")[0] or "main")
    except _Effect:
        pass
    return tuple((name, tuple(taken)) for name, taken in reader.found.items())


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, list[str]] = {}
        self.seen: set[Path] = set()

    def module(self, name: str) -> bool:
        """Read a module of the directory's own; False where it is none."""
        parts = name.split(".")
        if not (self.path / f"{parts[0]}.py").is_file() and not (self.path / parts[0]).is_dir():
            return False
        for length in range(1, len(parts) + 1):
            below = self.path.joinpath(*parts[:length])
            package = (below / "__init__.py").is_file()
            file = below / "__init__.py" if package else below.with_suffix(".py")
            if file.is_file() and file not in self.seen:
                self.seen.add(file)
                try:
                    tree = ast.parse(file.read_bytes())
                except (SyntaxError, ValueError, RecursionError, MemoryError):
                    raise _Effect from None
                self.statements(tree.body, ".".join(parts[: length if package else length - 1]))
        return True

    def statements(self, body: Sequence[ast.stmt], package: str) -> None:
        """Note the imports among them. Raises _Effect at the first other statement that acts."""
        for statement in body:
            for name, taken in _imports(statement, package):
                if self.module(name):
                    for each in taken:
                        self.module(f"{name}.{each}")
                elif name != "__future__":
                    there = self.found.setdefault(name, [])
                    there += [each for each in taken if each not in there]
            if isinstance(statement, ast.Try):
                self.statements(statement.body, package)
            elif not _harmless(statement):
                raise _Effect


def _imports(statement: ast.stmt, package: str) -> Iterator[tuple[str, list[str]]]:
    if isinstance(statement, ast.Import):
        yield from ((alias.name, []) for alias in statement.names)
    elif isinstance(statement, ast.ImportFrom):
        name = statement.module or ""
        if statement.level:
            above = package.split(".")[: len(package.split(".")) - statement.level + 1]
            name = ".".join([*above, *([name] if name else [])])
        yield name, [alias.name for alias in statement.names]


def _harmless(statement: ast.stmt) -> bool:
    """Whether imports after it would do the same before it."""
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Pass():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=targets, value=ast.Constant()):
            return all(isinstance(target, ast.Name) for target in targets)
        case ast.AnnAssign(target=ast.Name(), value=None | ast.Constant()):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            return not statement.orelse
        case ast.FunctionDef(decorator_list=[]) | ast.AsyncFunctionDef(decorator_list=[]):
            return True
    return False
