"""A disk that fills up: publishes are refused in words, nothing accepted is lost, and with room
again the host goes on without a restart. On a small tmpfs in a mount namespace of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import until

FUNCTION = 'def handler(event): return {"n": event.id}\n'
MANIFEST = '[[trigger]]\ntopic = "in"\n[output]\ntopic = "out"\n[scale]\nmin = 1\nmax = 1\n'


def namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    probe = ["unshare", "-m", "--propagation", "private", "mount", "-t", "tmpfs", "x", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not namespaces(), reason="needs root, unshare and nsenter")


class SmallDisk:
    """A host whose data directory is a tmpfs of 24 MB that only it sees."""

    def __init__(self, root: Path) -> None:
        self.data = root / "data"
        self.data.mkdir()
        function = root / "functions" / "f"
        function.mkdir(parents=True)
        (function / "main.py").write_text(FUNCTION)
        (function / "funcrt.toml").write_text(MANIFEST)
        script = (
            f"mount -t tmpfs -o size=24m funcrt {self.data} && exec {sys.executable} -m funcrt"
            f" serve {function} --data {self.data} --port 0 --json"
        )
        self.process = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", script],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        while "port" not in (line := json.loads(self.process.stdout.readline())):
            pass
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{line['port']}", timeout=30)

    def inside(self, script: str) -> None:
        command = ["nsenter", "-t", str(self.process.pid), "-m", "sh", "-c", script]
        subprocess.run(command, check=True, capture_output=True)

    def publish(self, n: int) -> Any:
        headers = {
            "ce-specversion": "1.0", "ce-id": f"e{n}", "ce-source": "/t", "ce-type": "t",
            "content-type": "application/octet-stream",
        }  # fmt: skip
        return self.http.post("/topics/in/events", headers=headers, content=b"x" * 100_000)

    def count(self, topic: str) -> list[str]:
        seen: list[str] = []
        at = "earliest"
        while True:
            query = {"from": at, "limit": "100"}
            page = self.http.get(f"/topics/{topic}/events", params=query).json()["events"]
            if not page:
                return seen
            seen += [item["event"]["id"] for item in page]
            at = f"@{int(page[-1]['position']) + 1}"

    def stop(self) -> int:
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path)
    try:
        disk.inside(f"head -c 12000000 /dev/zero > {disk.data}/filler")
        accepted = []
        for n in range(300):
            answer = disk.publish(n)
            if answer.status_code != 202:
                break
            accepted.append(f"e{n}")
        assert answer.status_code == 507, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert "disk is full" in answer.text
        assert accepted
        assert disk.http.get("/readyz").status_code == 200
        disk.inside(f"rm {disk.data}/filler")
        for n in range(1000, 1010):
            until(lambda n=n: disk.publish(n).status_code == 202)
            accepted.append(f"e{n}")
        assert sorted(disk.count("in")) == sorted(accepted)
        until(lambda: len(disk.count("out")) == len(accepted))
    finally:
        assert disk.stop() == 0
