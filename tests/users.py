"""Whether other users can run this Python, and this checkout: what root starts becomes others."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from funcrt.privileges import HOST_USER, unreadable

__all__ = ["CLOSED", "others"]

ROOT = Path(__file__).parents[1]
CLOSED = unreadable(HOST_USER, [Path(sys.executable).resolve(), Path(os.__file__), ROOT / "funcrt"])
"""A directory on the way that they may not enter, as `/root` is; "" where nothing is."""
others = pytest.mark.skipif(
    bool(CLOSED) or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason=f"other users cannot run this Python: {CLOSED} is closed to them"
    if CLOSED
    else "only root can become another user, with setpriv",
)
