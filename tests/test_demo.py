"""`make demo` in small: real input over HTTP, everything handled, back at zero."""

import os
import subprocess
import sys
from pathlib import Path

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
