"""`make demo` in small: real input over HTTP, everything handled, back at zero."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import tree, until

ROOT = Path(__file__).parent.parent


def test_the_demo_handles_everything_and_ends_at_zero() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "demo" / "run.py")],
        env={**os.environ, "DEMO_ROUNDS": "2"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "93 events in" in done.stdout
    assert "issues by label: bug 42, documentation 8, other 2\norders: small 1;" in done.stdout
    assert "badges drawn over HTTP: 4" in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its root directory")
def test_the_demo_runs_where_functions_cannot_be_held_back(tmp_path: Path) -> None:
    """As in the chroot that somebody tries it in, and it says so."""
    script = f'mount --rbind / {tmp_path} && exec chroot {tmp_path} "$@"'
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh",
         sys.executable, str(ROOT / "demo" / "run.py")],
        env={**os.environ, "DEMO_ROUNDS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "instead of 'sandbox' for badge" in done.stdout, done.stdout
    assert "events in" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_leaves_nothing_behind(number: int, tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, str(ROOT / "demo" / "run.py")],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    while "published" not in (line := demo.stdout.readline()):
        assert line, "it ended"
    below = tree(demo.pid)
    assert len(below) >= 2, "the host, and what its functions run in"
    demo.send_signal(number)
    _, said = demo.communicate(timeout=60)
    assert (demo.returncode, said) == (130, "stopped\n")
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below))
    assert list(tmp_path.iterdir()) == []
