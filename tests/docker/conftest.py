"""A Docker daemon and an image, made without a registry: one of each for all tests."""

import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SUITE = "bookworm"
IMAGE = f"local/funcrt-tests:{SUITE}"
PACKAGES = "python3-venv"
NEEDED = ("dockerd", "unshare", "debootstrap")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
UP_S = 30
TIMEOUT_S = 500
"""Of a test: on a new machine the first of them fetches and makes what all are run with."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "funcrt-tests"
"""What is made, or fetched, once a machine."""


def missing() -> str:
    """Why there can be no daemon of ours."""
    if os.geteuid() != 0:
        return "needs root, for a Docker daemon of its own"
    absent = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
    return f"needs {', '.join(absent)}: apt-get install docker.io debootstrap" if absent else ""


def root_file_system() -> Path:
    """A Debian with Python, as a tar: made once a machine."""
    CACHE.mkdir(parents=True, exist_ok=True)
    made = CACHE / f"{SUITE}-{PACKAGES}.tar"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made.exists():
            return made
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            root = f"{directory}/root"
            run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, root)
            for name in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
                shutil.rmtree(f"{root}/{name}")
            run("tar", "-C", root, "-cf", f"{directory}/tar", ".")
            Path(f"{directory}/tar").rename(made)
    return made


def run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={"PATH": PATH})
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        pytest.skip(f"{command[0]} does not work here: {''.join(last)}")


class Daemon:
    """dockerd in a mount namespace, with its own data and socket."""

    def __init__(self, directory: Path) -> None:
        self.url = f"unix://{directory}/docker.sock"
        options = ["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        for name in ("data-root", "exec-root", "pidfile"):
            options += [f"--{name}", str(directory / name)]
        self.containerd = directory / "exec-root/containerd/containerd.pid"
        self.log = (directory / "log").open("w+")
        # Its data is in memory, which goes with the namespace: some disks take 10 s to delete it.
        (directory / "data-root").mkdir()
        script = f'mount -t tmpfs funcrt {directory}/data-root && exec dockerd "$@"'
        self.process = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", "-H", self.url,
             *options],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env={"PATH": PATH},
            start_new_session=True,
        )  # fmt: skip

    def up(self) -> str:
        """Wait until it answers; why it does not, or nothing."""
        until = time.monotonic() + UP_S
        while time.monotonic() < until and self.process.poll() is None:
            with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
                sock.connect(self.url.removeprefix("unix://"))
                sock.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                if b"200 OK" in sock.recv(4096):
                    return ""
            time.sleep(0.05)
        self.log.seek(0)
        return f"dockerd does not start here: {''.join(self.log.readlines()[-1:]).strip()}"

    def stop(self) -> None:
        """It and its containerd, by their ids: asked to end, it waits 15 s for the latter."""
        pid = int(self.containerd.read_text()) if self.containerd.exists() else 0
        below = os.pidfd_open(pid) if pid else -1
        self.process.kill()
        self.process.wait()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(below, signal.SIGKILL)
            select.select([below], [], [], 10)
            os.close(below)
        self.log.close()


@pytest.fixture(scope="session")
def dockerd() -> Iterator[str]:
    """Its address, which is DOCKER_HOST meanwhile."""
    if why := missing():
        pytest.skip(why)
    docker = pytest.importorskip("docker")
    tar = root_file_system()
    directory = Path(tempfile.mkdtemp(prefix="fd-", dir="/tmp"))  # short, as a socket's path is
    daemon = Daemon(directory)
    try:
        if why := daemon.up():
            pytest.skip(why)
        made = contextlib.closing(docker.DockerClient(daemon.url))
        with made as client, pytest.MonkeyPatch.context() as patch:
            repository, tag = IMAGE.split(":")
            client.api.import_image_from_file(str(tar), repository=repository, tag=tag)
            patch.setenv("DOCKER_HOST", daemon.url)
            directory.chmod(0o711)  # for hosts that are not root
            (directory / "docker.sock").chmod(0o666)
            yield daemon.url
            for left in client.containers.list(all=True):
                left.remove(force=True)
    finally:
        daemon.stop()
        shutil.rmtree(directory, ignore_errors=True)
