"""A host that root starts: whom it becomes, what it keeps, and what it may do no more."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from funcrt.config import DataDir
from funcrt.privileges import HOST_USER, UserInvalid, unreadable, wanted_user
from funcrt.privileges import _own as own
from funcrt.sandbox.users import BUILDERS
from funcrt.tree import DEEPEST
from tests.funcrt.test_tree import deep
from tests.serving import FUNCRT, Serving, rows, tree, until
from tests.users import others

ROOT = Path(__file__).parents[2]
SLOW = "import time\ndef handler(event):\n    time.sleep(60)\n---timeout = '300ms'\n"
WHO = "import os\ndef handler(event):\n    return os.getuid()\n"


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@others
def test_what_parses_http_is_nobody_of_note_and_functions_are_others(tmp_path: Path) -> None:
    host = Serving(tmp_path / "data", who=WHO, slow=SLOW)
    try:
        now = status(host.process.pid)
        assert set(now["Uid"].split()) == set(now["Gid"].split()) == {str(HOST_USER)}
        assert now["Groups"].split() == []
        assert {now[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
        assert now["NoNewPrivs"] == "1"
        owners = {path.lstat().st_uid for path in (tmp_path / "data").rglob("*")}
        assert owners == {HOST_USER}
        who = httpx.post(f"{host.url}/functions/who", json={}, timeout=20)
        assert int(who.text) not in (0, HOST_USER)
        # Who ends a function that hangs is R: the host may not.
        assert httpx.post(f"{host.url}/functions/slow", json={}, timeout=20).status_code == 504
        assert [row["name"] for row in rows(host.run("ls", "--json"))] == ["slow", "who"]
    finally:
        host.stop(signal.SIGTERM)


@others
def test_all_ends_with_a_host_that_was_killed(tmp_path: Path) -> None:
    host = Serving(tmp_path / "data", who=WHO + "---[scale]\nmin = 1\n")
    below = until(lambda: found if len(found := tree(host.process.pid)) >= 3 else None)
    host.stop(signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in below))


TRIES = """
import sys
from pathlib import Path
from funcrt.config import DataDir
from funcrt.privileges import drop
from funcrt.sandbox import kernel
drop({user}, DataDir(Path({data!r})), low_port={low})
def fails(what, *arguments):
    try:
        what(*arguments)
    except PermissionError:
        return True
import os, socket
assert fails(open, "/etc/shadow")
assert fails(kernel.unshare, kernel.NEW_NS)
assert fails(kernel.unshare, kernel.NEW_NET)
assert fails(os.setuid, 0)
assert fails(os.kill, 1, 0)
sock = socket.socket()
assert bool(fails(sock.bind, ("127.0.0.1", 0x3ff))) != {low}
"""


@others
@pytest.mark.parametrize("low", [False, True])
def test_it_reads_no_secrets_and_makes_no_namespaces_as_root(tmp_path: Path, low: bool) -> None:
    code = TRIES.format(user=HOST_USER, data=str(tmp_path / "data"), low=low)
    # A namespace of its own, where nobody else has the port.
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@others
def test_a_directory_of_other_things_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear")
    done = subprocess.run(
        [*FUNCRT, "serve", "--data", str(tmp_path), "--port", "0", "--user", str(HOST_USER)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "holds other things" in done.stderr
    assert (tmp_path / "letters").stat().st_uid == 0


@others
def test_what_a_build_left_that_was_killed_is_the_host_s_or_gone(tmp_path: Path) -> None:
    left = tmp_path / "packages" / ".install-x" / "site"
    left.mkdir(parents=True)
    deep(left, 3000)
    os.chown(left / "d", BUILDERS[0], BUILDERS[0])
    os.lchown(left.parent, BUILDERS[0], BUILDERS[0])
    (tmp_path / "mesh.db").write_text("")
    (tmp_path / "link").symlink_to("/etc")
    own(tmp_path, HOST_USER, HOST_USER)
    found = [tmp_path, *tmp_path.rglob("*")]
    assert {path.lstat().st_uid for path in found} == {HOST_USER}
    assert max(len(path.relative_to(tmp_path).parts) for path in found) == DEEPEST + 2 + 1 - 1
    assert Path("/etc").stat().st_uid == 0


def test_whom_a_host_becomes(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    if os.geteuid() != 0:
        assert wanted_user("", data) == 0
        with pytest.raises(UserInvalid, match="only a host that was started as root"):
            wanted_user("nobody", data)
        return
    assert wanted_user("", data) == wanted_user("", DataDir(tmp_path / "none")) == HOST_USER
    assert wanted_user("1234", data) == 1234
    assert wanted_user("root", data) == wanted_user("0", data) == 0
    with pytest.raises(UserInvalid, match="no such user"):
        wanted_user("nobody-of-that-name", data)
    os.chown(tmp_path, 4321, 4321)
    assert wanted_user("", data) == 4321


def test_what_nobody_else_may_enter_is_found(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    inner.chmod(0o755)
    (tmp_path / "a").chmod(0o700)
    assert unreadable(HOST_USER, [inner]) == str(tmp_path / "a")
    assert unreadable(os.geteuid(), [inner]) == ""
