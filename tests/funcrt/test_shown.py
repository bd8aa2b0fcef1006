"""What `sandbox.files` may show: each path is shown as it is there, read-only, or refused in words
as its function is deployed."""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from funcrt.sandbox.view import never
from funcrt.shown import FilesRefused, check_apart, check_files
from tests.serving import Serving, tree, until

READS = """
import os
def handler(event):
    path = event.json()
    if os.path.isdir(path):
        return sorted(os.listdir(path))
    try:
        open(path, "a")
    except OSError:
        return open(path).read()
"""


@pytest.mark.parametrize(
    "path",
    ["/", "/proc", "/proc/self/root/etc", "/sys", "/sys/class", "/dev", "/dev/sda", "/dev/shm",
     "/run", "/run/docker.sock", "/var/run/postgresql", "/tmp", "/etc", "/etc/passwd",
     "/etc/resolv.conf"],
)  # fmt: skip
def test_what_no_host_shows(path: str) -> None:
    assert never(path)
    with pytest.raises(FilesRefused) as found:
        check_files("f", [path])
    assert str(found.value) == f"f: sandbox.files: {path} {never(path)}"


def test_what_only_sounds_like_that(tmp_path: Path) -> None:
    for path in ("/etc/ssl", "/tmpfiles", "/process", "/runtime", "/srv/proc", "/devices", "/usr"):
        assert not never(path)
    check_files("f", [str(tmp_path), "/etc/ssl"])


def refusal(path: Path) -> str:
    with pytest.raises(FilesRefused) as found:
        check_files("f", [str(path)])
    return str(found.value).removeprefix(f"f: sandbox.files: {path} ")


def test_links_are_followed_to_their_ends(tmp_path: Path) -> None:
    for name, target in {"one": "/proc", "two": "one", "machine": "/", "above": ".."}.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kernel").symlink_to("/sys")
    assert refusal(tmp_path / "one").startswith("leads to /proc, which shows processes, devices")
    assert refusal(tmp_path / "two").startswith("leads to /proc, which ")
    assert refusal(tmp_path / "machine").startswith("leads to /, which is the whole machine")
    assert refusal(tmp_path / "folder/kernel/class").startswith("leads to /sys/class, which ")
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(tmp_path / "loop").startswith("cannot be shown: too many levels of symbolic")


def test_what_is_not_there_or_no_file_is_said(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == (
        "cannot be shown: no such file or directory; put it there on this host, or leave it out"
    )
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        assert refusal(tmp_path / "socket") == (
            "is a socket; only files and directories can be shown"
        )
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe").startswith("is a pipe;")


def test_what_is_kept_is_neither_above_nor_below_nor_it(tmp_path: Path) -> None:
    data = tmp_path / "srv" / "data"
    (data / "code").mkdir(parents=True)
    (tmp_path / "srv" / "models").mkdir()
    (tmp_path / "link").symlink_to(data / "code")
    check_apart(
        "f", [str(tmp_path / "srv/models"), str(tmp_path / "srv/data-of-mine")], {"x": data}
    )
    for path in (data, data / "code", tmp_path, tmp_path / "link"):
        with pytest.raises(FilesRefused) as found:
            check_apart("f", [str(path)], {"the host's data directory": data})
        assert str(found.value) == (
            f"f: sandbox.files: {path} would show it the host's data directory, {data}; name what"
            " lies beside it"
        )


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    found = Serving(tmp_path / "data", other=READS)
    yield found
    found.stop(signal.SIGTERM)


def deployed(host: Serving, path: Path) -> str:
    """What it says on standard error; nothing where it is in service."""
    folder = Path("reads")
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(READS)
    (folder / "funcrt.toml").write_text(f"[sandbox]\nfiles = [{json.dumps(str(path))}]\n")
    done = host.run("deploy", str(folder))
    return done.stderr if done.returncode else ""


def test_a_folder_is_its_function_s_while_that_is_in_service(host: Serving) -> None:
    for name, code in (("first", READS), ("second", "nonsense\n")):
        Path(name).mkdir()
        Path(name, "main.py").write_text(code)
        Path(name, "funcrt.toml").write_text('name = "moves"\n')
    assert host.run("deploy", "first").returncode == 0
    assert host.run("deploy", "second").returncode == 2, "which is not in service by that"
    assert "would show it the folder of moves" in deployed(host, Path("first").absolute())
    assert deployed(host, Path("second").absolute()) == ""
    assert host.run("rm", "moves").returncode == 0
    assert deployed(host, Path("first").absolute()) == ""


def test_a_host_refuses_what_is_its_own_and_shows_the_rest(host: Serving, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "weights").write_text("1 2 3")
    (tmp_path / "current").symlink_to(models)
    for path, why in {
        tmp_path / "data": "would show it the host's data directory",
        tmp_path / "data" / "code": "would show it the host's data directory",
        tmp_path: "would show it the host's data directory",
        tmp_path / "functions" / "other": "would show it the folder of other",
        tmp_path / "functions" / "other" / "main.py": "would show it the folder of other",
        tmp_path / "none": "cannot be shown: no such file",
        Path("/proc"): "shows processes",
    }.items():
        said = deployed(host, path)
        assert "reads" in said, path
        assert f"{path} {why}" in said, path
    for path in (tmp_path / "current", models / "weights"):
        assert deployed(host, path) == ""
        asked = path / "weights" if path.name == "current" else path
        answer = httpx.post(f"{host.url}/functions/reads", json=str(asked), timeout=20)
        assert answer.text == "1 2 3"


def test_a_link_that_leads_elsewhere_since_is_not_followed(host: Serving, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    current = tmp_path / "current"
    current.symlink_to("models")
    assert deployed(host, current) == ""
    url = f"{host.url}/functions/reads"
    assert httpx.post(url, json=str(current), timeout=20).json() == []
    (runtime,) = [pid for pid in tree(host.process.pid) if parent(pid) == host.process.pid]
    current.unlink()
    current.symlink_to("data")
    for pid in tree(runtime):  # it is loaded anew
        with contextlib.suppress(ProcessLookupError):  # it ended with the one before it
            os.kill(pid, signal.SIGKILL)
    said = f"sandbox.files: {current}: leads to {tmp_path}/data, which would show it what is the"

    def asked() -> bool:
        httpx.post(f"{url}?timeout=1s", json=str(current), timeout=20)
        return said in (tmp_path / "serve.err").read_text()

    until(asked)
    current.unlink()
    current.symlink_to("models")
    assert httpx.post(url, json=str(current), timeout=20).json() == []


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
