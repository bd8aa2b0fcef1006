"""The documents are true: their snippets run, and what a user can meet is in them."""

import ast
import asyncio
import importlib
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest
import typer.main
from starlette.routing import Route

import funcrt
import mesh
import triggers
from funcrt import testing
from funcrt.api import HostApi
from funcrt.cli import COMMANDS
from funcrt.context import Context, FunctionLog
from funcrt.errors import FuncrtError
from funcrt.gateway import GatewayConfig
from funcrt.gateway.app import _Front
from funcrt.gateway.guard import HEALTH, needed_scope
from funcrt.gateway.problem import HttpProblem
from funcrt.manifest import (
    BATCH,
    CRON,
    HTTP,
    IDEMPOTENCY,
    LIMITS,
    MESH,
    OUTPUT,
    RETRY,
    SANDBOX,
    SCALE,
    TOP,
    Manifest,
    load_manifest,
)
from funcrt.manifest_check import Section
from funcrt.testing.samples import read_samples
from mesh.embedded import FEATURES
from mesh.errors import MeshError
from tests.calling import call
from tests.serving import FUNCRT, Serving, until
from tests.sessions import alike, sessions
from tests.walk import curl
from triggers import FilterError

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def table(text: str, heading: str) -> dict[str, list[str]]:
    """First column without its backticks -> the other columns, of the tables below a heading."""
    part = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split(" | ") for line in part.splitlines() if line.startswith("| `")]
    found = {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows}
    assert len(found) == len(rows)
    return found


# README


def test_the_readme_s_function_is_the_sample() -> None:
    readme = page("README.md")
    (code,) = blocks(readme, "python")
    (manifest,) = blocks(readme, "toml")
    sample = ROOT / "functions" / "label"
    assert (sample / "funcrt.toml").read_text() == manifest
    plain = [line for line in (sample / "main.py").read_text().splitlines() if '"""' not in line]
    assert [line for line in plain if line] == [line for line in code.splitlines() if line]


def test_the_readme_s_function_is_served_published_to_and_tailed(tmp_path: Path) -> None:
    readme = page("README.md")
    serve, session = blocks(readme, "sh")[3:5]
    assert shlex.split(serve) == [".venv/bin/funcrt", "serve", "functions"]
    (code,), (manifest,) = blocks(readme, "python"), blocks(readme, "toml")
    host = Serving(tmp_path / "data", label=f"{code}---{manifest}")
    said = []
    try:
        for line in session.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line)
            if program == ".venv/bin/funcrt":
                done = subprocess.run(
                    [*FUNCRT, *words], env=host.env, capture_output=True, text=True, timeout=30,
                    check=True,
                )  # fmt: skip
                said.append(done.stdout)
            else:
                assert program == "curl"
                said.append(
                    curl([word.replace(":8080", f":{host.port}") for word in words]).strip()
                )
    finally:
        host.stop(15)
    publish, tail, ls, called = said
    assert publish.startswith("stored\t")
    assert re.search(r"order\.labelled\t.*\t/funcrt/label\t\{\"label\":\"large\"\}\n$", tail)
    assert re.search(r"^label\t(ready|zero)\t.*mesh orders", ls, re.M)
    assert called == '{"label":"small"}'
    for shown in ('{"label":"large"}', called):
        assert shown in readme


def test_the_readme_s_make_targets_are_there() -> None:
    targets = re.findall(r"^([a-z-]+):", page("Makefile"), re.M)
    for name in ("README.md", "HACKING.md"):
        wanted = re.findall(r"(?:^|`)make ([a-z-]+)", page(name), re.M)
        assert wanted
        assert set(wanted) <= set(targets), name


def test_links_lead_somewhere() -> None:
    for path in [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "HACKING.md", ROOT / "CHANGELOG.md"]:
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (path.parent / link).exists(), (path, link)


# docs/functions.md

EXAMPLES = re.findall(
    r"^```python\n(.*?)^```\n`(\{.*?\})` gives (.*?)$", page("docs/functions.md"), re.S | re.M
)


def test_every_example_says_what_it_gives() -> None:
    assert len(EXAMPLES) == len(blocks(page("docs/functions.md"), "python")) >= 5


@pytest.mark.parametrize(("code", "data", "gives"), EXAMPLES)
def test_an_example_gives_what_it_says(tmp_path: Path, code: str, data: str, gives: str) -> None:
    (tmp_path / "main.py").write_text(code)
    event = mesh.Event.create("example", json.loads(data))
    event = msgspec.structs.replace(event, id="1", source="/example")
    result = asyncio.run(call(tmp_path, [event], trigger="example"))[0]
    assert result.status == "ok", result.failure
    outputs = result.outputs or [out for item in result.items for out in item.outputs]
    assert [out.event.json() for out in outputs] == [
        json.loads(text) for text in re.findall(r"`(.*?)`", gives)
    ]


def test_everything_a_function_imports_or_is_handed_is_documented() -> None:
    text = page("docs/functions.md")
    for name in funcrt.__all__:
        assert re.search(rf"\b{name}\b", text), name
    members = [name for name in dir(Context) if not name.startswith("_")]
    for name in members:
        assert re.search(rf"`ctx\.{name}\b", text), name
    for name in dir(FunctionLog):
        assert name.startswith("_") or f"`{name}`" in text, name
    for name in re.findall(r"`ctx\.(\w+)", text):
        assert name in members


# docs/testing.md


def test_the_tests_in_the_page_pass(tmp_path: Path) -> None:
    text = page("docs/testing.md")
    one, together = blocks(text, "python")
    shutil.copytree(
        ROOT / "functions", tmp_path / "functions", ignore=shutil.ignore_patterns("tests")
    )
    for code, where in ((one, "label/tests/test_main.py"), (together, "tests/test_chain.py")):
        file = tmp_path / "functions" / where
        file.parent.mkdir()
        file.write_text(code)
    (sample,) = blocks(text, "json")
    (tmp_path / "functions/label/events/large.expected.json").write_text(sample)
    for each in read_samples(tmp_path / "functions/label/events/large.json"):
        each.check(testing.load(tmp_path / "functions/label"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "4 passed" in done.stdout, done.stdout


def test_the_update_in_the_page_goes_as_it_says(tmp_path: Path) -> None:
    ((command, shown),) = sessions(page("docs/testing.md"))
    shutil.copytree(ROOT / "functions", tmp_path / "functions")
    main = tmp_path / "functions" / "label" / "main.py"
    main.write_text(main.read_text().replace('"large"', '"big"'))
    done = subprocess.run(
        [*FUNCRT, *shlex.split(command)[1:]],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == shown


def test_what_a_test_uses_is_documented() -> None:
    text = page("docs/testing.md")
    for name in testing.__all__:
        assert name == "DeadEvent" or re.search(rf"\b{name}\b", text, re.I), name
    for cls, word in ((testing.Outcome, "outcome"), (testing.App, "app")):
        names = [n for n in dir(cls) if not n.startswith("_")]
        names += ["functions", "logs", "clock"] if cls is testing.App else []
        for name in names:
            assert name == "close" or f"{word}.{name}" in text, name


# docs/operate.md


def test_the_session_in_the_page_is_as_it_says(tmp_path: Path) -> None:
    text = page("docs/operate.md")
    (code,), (manifest,), (events,) = (blocks(text, each) for each in ("python", "toml", "json"))
    (tmp_path / "events.jsonl").write_text(events)
    (tmp_path / "event.json").write_text(events.splitlines()[1])
    host = Serving(tmp_path / "data", price=f"{code}---{manifest}")

    def run(line: str) -> "subprocess.CompletedProcess[str]":
        words = [*FUNCRT, *shlex.split(line)[1:]]
        return subprocess.run(
            words, env=host.env, cwd=tmp_path, capture_output=True, text=True, timeout=30,
            check=False,
        )  # fmt: skip

    try:
        assert run("funcrt publish orders events.jsonl").returncode == 0
        until(
            lambda: '"dead":1' in (found := run("funcrt ls --json").stdout) and '"done":1' in found
        )
        assert len(sessions(text)) == 8
        for commands, shown in sessions(text):
            for line in commands.splitlines():
                done = run(line)
                assert done.returncode in (0, 1), done.stderr
                assert "✗" not in done.stderr or "--local" in line, (line, done.stderr)
            if shown:
                assert alike(done.stdout, shown), done.stdout
    finally:
        host.stop(15)


# docs/deploy.md


def test_the_deployments_in_the_page_go_as_it_says(tmp_path: Path) -> None:
    function = tmp_path / "label"
    function.mkdir()
    (code,) = blocks(page("README.md"), "python")
    (function / "main.py").write_text(code)
    host = Serving(tmp_path / "data")
    try:
        shown = sessions(page("docs/deploy.md"))
        commands = [line for lines, _ in shown for line in lines.splitlines()]
        assert len(commands) == 10
        for line in commands:
            done = subprocess.run(
                [*FUNCRT, *shlex.split(line)[1:]],
                env=host.env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (line, done.stderr)
            if line == "funcrt deploy label":
                assert alike(done.stdout, shown[0][1], "[0-9a-f]{12}"), done.stdout
            if line == "funcrt rollback label v1":
                assert done.stdout.startswith("label\tv2\t"), done.stdout
    finally:
        host.stop(15)


# docs/manifest.md

SECTIONS: dict[str, tuple[Section, str]] = {
    "Top": (TOP, ""),
    "`[[trigger]]` of kind `mesh`": (MESH, '[[trigger]]\ntopic = "a"\n'),
    "`batch`": (BATCH, '[[trigger]]\ntopic = "a"\n[trigger.batch]\nsize = 3\n'),
    "`[[trigger]]` of kind `http`": (HTTP, '[[trigger]]\nkind = "http"\npath = "/a"\n'),
    "`[[trigger]]` of kind `cron`": (CRON, '[[trigger]]\nkind = "cron"\nschedule = "@daily"\n'),
    "`[output]`": (OUTPUT, "[output]\n"),
    "`[retry]`": (RETRY, "[retry]\n"),
    "`[idempotency]`": (IDEMPOTENCY, "[idempotency]\n"),
    "`[scale]`": (SCALE, "[scale]\n"),
    "`[limits]`": (LIMITS, "[limits]\n"),
    "`[sandbox]`": (SANDBOX, "[sandbox]\n"),
}


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_manifest_key_is_documented_with_its_default(tmp_path: Path, heading: str) -> None:
    section, start = SECTIONS[heading]
    rows = table(page("docs/manifest.md"), heading)
    assert set(rows) == set(section)
    bare = load(tmp_path, start)
    tried = 0
    for key, (_, default, *_) in rows.items():
        literal = re.fullmatch(r"`([^`]+)`", default)
        if default == "required":
            without = "\n".join(line for line in start.splitlines() if not line.startswith(key))
            with pytest.raises(FuncrtError, match=f"{key}: missing"):
                load(tmp_path, without)
        elif literal and literal[1][0] in '"[{0123456789tf' and f"{key} =" not in start:
            assert load(tmp_path, f"{start}{key} = {literal[1]}\n") == bare, key
            tried += 1
    assert tried or heading == "`[[trigger]]` of kind `http`"


def test_the_manifest_s_example_loads(tmp_path: Path) -> None:
    for text in blocks(page("docs/manifest.md"), "toml"):
        assert load(tmp_path, text).triggers


def load(folder: Path, text: str) -> Manifest:
    (folder / "funcrt.toml").write_text(text)
    return load_manifest(folder)


# docs/cli.md


def test_the_commands_page_is_current() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_cli.py")],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    assert page("docs/cli.md") == made, "docs/cli.md is out of date: make docs"


def commands() -> Iterator[tuple[str, typer.main.TyperGroup | typer.core.TyperCommand]]:
    for name in COMMANDS:
        app = importlib.import_module(f"funcrt.cli.{name}").app
        command = typer.main.get_command(app)
        below = getattr(command, "commands", None)
        yield from (
            ((f"{name} {each}", one) for each, one in below.items())
            if below
            else ((name, command),)
        )


def test_every_command_and_option_is_documented_with_an_example() -> None:
    text = page("docs/cli.md")
    for name, command in commands():
        part = text.split(f"\n## funcrt {name}\n")[1].split("\n## ")[0]
        assert f"Example: funcrt {name.split()[0]}" in part
        for parameter in command.params:
            if parameter.param_type_name == "argument" or "completion" in str(parameter.name):
                continue
            for option in parameter.opts:
                assert option in part, (name, option)


def test_every_environment_variable_is_documented() -> None:
    used: set[str] = set()
    for package in ("funcrt", "mesh", "triggers", "demo"):
        for path in (ROOT / package).rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            used |= set(re.findall(r"\"((?:FUNCRT|DEMO)_[A-Z_]+)\"", source))
            used |= set(re.findall(r"environ(?:\.get)?[\[(]\"([A-Z_]+)\"", source))
    used -= {"PATH"}  # which the host reads to find its interpreter, like any program
    assert {"FUNCRT_DATA", "FUNCRT_TRACEBACK", "DEMO_ROUNDS"} <= used
    documented = set(table(page("docs/cli.md"), "Environment variables")) | set(
        re.findall(r"`(DEMO_[A-Z]+)", page("HACKING.md"))
    )
    assert used <= documented
    assert documented - used <= {"NO_COLOR"}


# docs/errors.md


def test_every_error_is_documented() -> None:
    for package in (funcrt, mesh, triggers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    text = page("docs/errors.md")
    ours = {*table(text, "Of functions (`funcrt.errors` and beside)")}
    meshes = {*table(text, "Of the mesh (`mesh.errors`)")}
    assert meshes == {cls.__name__ for cls in family(MeshError)}
    shipped = {cls for cls in family(FuncrtError) if cls.__module__.startswith("funcrt.")}
    assert ours == {cls.__name__ for cls in shipped} | {FilterError.__name__, "CliError"}


def family(base: type[BaseException]) -> set[type[BaseException]]:
    return {base}.union(*(family(cls) for cls in base.__subclasses__()))


def test_every_http_problem_is_documented() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \|", page("docs/errors.md"), re.M)
    documented = {(int(status), kind) for status, kind in rows}
    found = set()
    for path in (ROOT / "funcrt" / "gateway").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == HttpProblem.__name__:
                values = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
                if len(values) == 2:
                    found.add(tuple(values))
    assert len(found) > 15
    assert {kind for _, kind in found} <= {kind for _, kind in documented}
    assert found <= documented


# docs/http.md


def test_every_route_and_limit_is_documented() -> None:
    routes = re.findall(
        r"^\| (GET|POST) \| `([^`]+)` \| (?:`(\w+)`|none) \|", page("docs/http.md"), re.M
    )
    config = GatewayConfig()
    front = _Front(cast("HostApi", None), config, ())
    served = {
        (method, route.path)
        for route in front.rest.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    # Calls do not go by the router; tests/funcrt/test_gateway_call.py has them.
    assert {(method, path) for method, path, _ in routes} == served | {
        ("POST", "/functions/{name}")
    }
    for method, path, scope in routes:
        assert scope == ("" if path in HEALTH else needed_scope(method, path)), path
    limits = re.findall(r"^\| `(\w+)` \| (\d+) \|", page("docs/http.md"), re.M)
    values = msgspec.structs.asdict(config)
    kept = {"host", "port", "tokens", "allowed_hosts", "allowed_origins"}
    assert {name: float(value) for name, value in limits} == {
        name: float(value) for name, value in values.items() if name not in kept
    }


# docs/transports.md


def test_every_feature_is_documented_as_it_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", page("docs/transports.md"), re.M)
    assert rows == [(name, str(value)) for name, value in msgspec.structs.asdict(FEATURES).items()]


def test_the_changelog_has_its_form() -> None:
    text = page("CHANGELOG.md")
    assert "\n## [Unreleased]\n" in text
    assert set(re.findall(r"^### (.*)$", text, re.M)) <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security",
    }  # fmt: skip
    assert os.fspath(ROOT) not in text
