"""Which imports may be made ahead of the author's code: those that nothing comes before."""

from pathlib import Path

import pytest

from funcrt.sandbox.imports import leading_imports


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("import a, b.c\nfrom d.e import f, g\n", ["a", "b.c", "d.e:f,g"]),
        ('"""Doc."""\nfrom __future__ import annotations\nimport a\n', ["a"]),
        ("LIMIT = 3\nname: str = 'x'\nimport a\n", ["a"]),
        ("def f(): ...\nasync def g(): ...\nimport a\n", ["a"]),
        ("try:\n    import a\nexcept ImportError:\n    import b\nimport c\n", ["a", "c"]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\nimport b\n",
         ["typing:TYPE_CHECKING", "b"]),
        ("def f():\n    import a\n", []),
        # What has an effect before an import must have it then, too.
        ("import os\nos.environ['X'] = '1'\nimport a\n", ["os"]),
        ("from gevent import monkey\nmonkey.patch_all()\nimport a\n", ["gevent:monkey"]),
        ("import a\na.use('x')\nfrom a import b\n", ["a"]),
        ("import a\nx = a.set('x')\nimport b\n", ["a"]),
        ("x[0] = 1\nimport a\n", []),
        ("import sys\nsys.x = 1\nimport a\n", ["sys"]),
        ("@register\ndef f(): ...\nimport a\n", []),
        ("import a\nif True:\n    import b\nimport c\n", ["a"]),
        ("import a\nclass C(a.B): ...\nimport b\n", ["a"]),
        ("import a\ndef x(:\n", []),
        ("import a\0", []),
        # The function's own modules are read through, and not imported.
        ("import own\nimport z\n", ["p", "q:r", "z"]),
        ("from package import inner\nimport z\n", ["i", "j", "z"]),
        ("from package.inner import x\nimport z\n", ["i", "j", "z"]),
        ("import acts\nimport z\n", ["k"]),
    ],
)  # fmt: skip
def test_what_leads(tmp_path: Path, code: str, wanted: list[str]) -> None:
    (tmp_path / "main.py").write_text(code)
    (tmp_path / "own.py").write_text("import p\nfrom q import r\nimport main\n")
    (tmp_path / "acts.py").write_text("import k\nprint(1)\nimport l\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("import i\nfrom . import inner\n")
    (tmp_path / "package" / "inner.py").write_text("import j\nfrom .inner import x\n")
    found = leading_imports(tmp_path)
    assert [f"{name}:{','.join(taken)}".rstrip(":") for name, taken in found] == wanted


def test_the_handler_s_own_module_is_where_it_begins(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import a\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "work.py").write_text("import b\n")
    assert leading_imports(tmp_path, "lib.work:run") == (("b", ()),)
    assert leading_imports(tmp_path, "none:run") == ()
