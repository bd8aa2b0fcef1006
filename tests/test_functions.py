"""Every sample function does with its sample events what the files beside them expect, in a real
instance; `funcrt test` looks at the same in memory (tests/funcrt/test_cli_test.py)."""

import asyncio
import base64
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from funcrt.manifest import HttpTrigger, MeshTrigger, load_manifest
from funcrt.outcome import origin_of, settle
from funcrt.testing import load
from funcrt.testing.outcome import outcome_of
from funcrt.testing.samples import Sample, found, like, read_samples, sample_files
from mesh.transport import Delivery
from tests.calling import call
from tests.serving import FUNCRT, Serving

ROOT = Path(__file__).parent.parent / "functions"
FUNCTIONS = sorted(path.name for path in ROOT.iterdir() if path.is_dir())


def samples(directory: Path) -> list[Sample]:
    return [sample for file in sample_files(directory) for sample in read_samples(file)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_sample_does_what_it_says(name: str) -> None:
    directory = ROOT / name
    function = load(directory)
    origin = origin_of(function.manifest, "test", "t")
    said: dict[str, Any] = {}
    matched = []
    for sample in samples(directory):
        assert sample.expected is not None
        sample.check(function)
        if all(function.matches(event) for event in sample.events):
            matched.append(sample)
        else:
            said[sample.name] = {"filtered": True}
    results = asyncio.run(call(directory, *(sample.events for sample in matched)))
    for sample, result in zip(matched, results, strict=True):
        deliveries = [
            Delivery(event, f"{name}/t", "", "", 0.0, 1, at, reply_to="caller")
            for at, event in enumerate(sample.events)
        ]
        settlement = settle(function.manifest, origin, deliveries, result, now=0.0, jitter=0.0)
        assert sample.expected is not None
        said[sample.name] = like(sample.expected, found(outcome_of(result, settlement, [])))
    assert said == {sample.name: sample.expected for sample in samples(directory)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_sample_has_what_a_newcomer_needs(name: str) -> None:
    expected = [sample.expected or {} for sample in samples(ROOT / name)]
    assert any("outputs" in what for what in expected)
    assert len(expected) >= 2
    assert (ROOT / name / "funcrt.toml").is_file()
    assert (ROOT / name / "main.py").read_text("utf-8").startswith('"""')


def test_the_samples_show_each_kind_of_function() -> None:
    manifests = {name: load_manifest(ROOT / name) for name in FUNCTIONS}
    triggers = [t for manifest in manifests.values() for t in manifest.triggers]
    assert any(isinstance(t, HttpTrigger) for t in triggers)
    assert any(isinstance(t, MeshTrigger) and t.batch for t in triggers)
    topics = {t.topic for t in triggers if isinstance(t, MeshTrigger)}
    assert any((ROOT / name / "requirements.txt").is_file() for name in FUNCTIONS), "dependencies"
    assert any(manifest.output.topic in topics for manifest in manifests.values()), "a chain"


def test_the_samples_own_tests_pass() -> None:
    done = subprocess.run(
        [*FUNCRT, "test", str(ROOT)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_pictures_go_in_and_thumbnails_come_out_of_a_host(tmp_path: Path) -> None:
    """The largest that it takes is decoded within its memory; nothing is tried again."""
    host = Serving(tmp_path / "data", env={"FUNCRT_INSTALL": "0"})
    largest = io.BytesIO()
    Image.new("RGBA", (6000, 4000), "red").save(largest, "PNG")
    try:
        assert host.run("deploy", str(ROOT / "thumbnail")).returncode == 0
        answer = httpx.post(
            f"{host.url}/thumbnail", content=largest.getvalue(),
            headers={"content-type": "image/png"}, timeout=30,
        )  # fmt: skip
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert Image.open(io.BytesIO(answer.content)).size == (128, 85)
        for name, status in (("photo", 200), ("huge", 422), ("broken", 422), ("text", 422)):
            sample = json.loads((ROOT / "thumbnail" / "events" / f"{name}.json").read_text())
            data = base64.b64decode(sample["data_base64"])
            assert httpx.post(f"{host.url}/thumbnail", content=data).status_code == status, name
    finally:
        host.stop(15)


def test_a_function_without_its_dependencies_says_what_to_install(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "thumbnail", tmp_path / "thumbnail")
    main = tmp_path / "thumbnail" / "main.py"
    source = main.read_text()

    def said(module: str) -> str:
        main.write_text(source.replace("from PIL", f"from {module}"))
        done = subprocess.run(
            [*FUNCRT, "invoke", "thumbnail", "--sample", "photo", "--no-install"],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode != 0
        return done.stderr.partition("\n")[0]

    at = "✗ thumbnail/main.py:5: cannot import"
    mend = "there and deploy again"
    absent = "not_there is in requirements.txt and was not installed, as this ran with"
    where = "--no-install, in a test or in a container"
    assert (
        said("not_there") == f"{at} 'not_there': not in requirements.txt. Add \"not_there\" {mend}"
    )
    assert said("cv2") == (
        f"{at} 'cv2': not in requirements.txt. Add \"opencv-python-headless\" {mend}"
    )
    (tmp_path / "thumbnail" / "requirements.txt").write_text("not-there\n")
    assert said("not_there") == (
        f"{at} 'not_there': {absent} {where}; {sys.executable} -m pip install"
        " -r requirements.txt in its folder"
    )
    assert said("PIL.nothing") == f"{at} 'PIL.nothing': PIL is there, and has no such module"
    (tmp_path / "thumbnail" / "not_here.py").write_text("")
    assert said("not_heer") == (
        f"{at} 'not_heer': no such module beside it; did you mean 'not_here'?"
    )
