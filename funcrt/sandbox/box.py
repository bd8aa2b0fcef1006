"""One Docker container, from its creation to its removal."""

import asyncio
import json
import os
import shutil
import socket
import struct
import sysconfig
from pathlib import Path
from typing import Any

import msgspec

from funcrt.errors import ImageUnusable, SandboxError
from funcrt.sandbox import Code
from funcrt.sandbox.confine import Confinement
from funcrt.sandbox.contained import CONTROL, HOST_PACKAGES, LIBRARY, PROGRAM
from funcrt.sandbox.daemon import DIRECTORY, HOST, Daemon
from funcrt.sandbox.levels import DockerUnavailable

__all__ = ["Container", "peer"]

IMAGE = "funcrt"
"""What the project's Dockerfile is built as, for functions that name no image."""
START_S = 60.0
LOOK_S = 0.5
HELLO = 4096
MEMORY_BYTES = 1 << 30
"""Of an instance, where its manifest does not say."""
PROCESSES = 1024
"""Of one container, threads among them."""
PERIOD_US = 100_000
LOG = {"max-size": "64k", "max-file": "1", "compress": "false"}
"""Until it is a zygote, what its Python says is the daemon's to keep; then it is the host's."""
NETWORK = "bridge"
OWN = Path(__file__).parents[2]
PACKAGES = ("funcrt", "mesh")
ABI = str(sysconfig.get_config_var("SOABI"))
ELSEWHERE = "this host is in a pid namespace of its own, and could not end a container's processes"


class Container:
    """One, for a version of a function."""

    def __init__(self, daemon: Daemon, host: str, directory: Path, code: Code) -> None:
        self.daemon = daemon
        self.host = host
        self.directory = directory
        """That of its socket, which its user can enter and others of this machine cannot."""
        self.code = code
        self.image = code.image or IMAGE
        self.id = ""
        self.room = 1
        """Instances that its limits are meant for."""
        self._growing = asyncio.Lock()

    async def start(self, held: Confinement) -> socket.socket:
        """Make it and start it; its zygote's control socket. Raises ImageUnusable, SandboxError."""
        self.directory.mkdir()
        self.directory.chmod(0o711)
        with self._listen() as listener:
            found = await self._image()
            made = await self.daemon.ask(lambda client: self._create(client, found, held))
            self.id = made["Id"]
            await self.daemon.ask(lambda client: client.start(self.id))
            control = await self._reached(listener)
        (self.directory / Path(CONTROL).name).unlink()
        return control

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.setblocking(False)
        place = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # a path of a socket has at most 107 characters
            path = f"/proc/self/fd/{place}/{Path(CONTROL).name}"
            listener.bind(path)
            Path(path).chmod(0o666)
        finally:
            os.close(place)
        listener.listen(1)
        return listener

    async def _image(self) -> dict[str, Any]:
        try:
            return await self.daemon.ask(lambda client: client.inspect_image(self.image))
        except ImageUnusable:
            mend = (
                f"docker pull {self.image}, or build it"
                if self.code.image
                else f"build it in a checkout of funcrt, docker build -t {IMAGE} ., or name another"
                ' in funcrt.toml: [sandbox] image = "..."'
            )
            raise ImageUnusable(
                f"{self.code.name}: this machine's Docker has no image {self.image!r}: {mend}"
            ) from None

    def _create(self, client: Any, image: dict[str, Any], held: Confinement) -> Any:
        # An image's volumes would be room to write that no limit holds.
        volumes = image["Config"].get("Volumes") or {}
        config = client.create_host_config(
            mounts=self._mounts(),
            tmpfs={"/tmp": _tmp(held.tmp_bytes), **dict.fromkeys(volumes, "ro,size=4k")},
            shm_size=held.tmp_bytes,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true", f"seccomp={_profile()}"],
            network_mode=NETWORK if held.network else "none",
            pids_limit=PROCESSES,
            init=False,
            log_config={"Type": "local", "Config": LOG},
            **self._limits(),
        )
        return client.create_container(
            image["Id"],
            entrypoint=["python3", "-I", "-B", PROGRAM, ABI],
            command=[],
            user=f"{held.user or os.getuid()}:{held.user or os.getgid()}",
            working_dir="/",
            hostname="function",
            labels={HOST: self.host, DIRECTORY: str(self.directory.parent)},
            healthcheck={"test": ["NONE"]},
            host_config=config,
            use_config_proxy=False,
        )

    def _mounts(self) -> list[dict[str, Any]]:
        code = self.code
        shown = {
            str(path): str(path)
            for path in (code.path, code.source, code.packages, *code.files)
            if path
        }
        shown[str(Path(CONTROL).parent)] = str(self.directory)
        for name in PACKAGES:
            shown[f"{LIBRARY}/{name}"] = str(OWN / name)
        shown[f"{HOST_PACKAGES}/msgspec"] = str(Path(msgspec.__file__).parent)
        return [
            {"Type": "bind", "Target": target, "Source": source, "ReadOnly": True}
            for target, source in shown.items()
        ]

    @property
    def memory_bytes(self) -> int:
        """What all of its processes may use: so much for each instance, and for the zygote."""
        return (self.room + 1) * (self.code.memory_bytes or MEMORY_BYTES)

    def _limits(self) -> dict[str, int]:
        limits = {"mem_limit": self.memory_bytes, "memswap_limit": self.memory_bytes}
        if self.code.cpu is not None:
            limits["cpu_period"] = PERIOD_US
            limits["cpu_quota"] = max(1000, int(self.room * self.code.cpu * PERIOD_US))
        return limits

    async def make_room(self, instances: int) -> None:
        """See that its limits are enough for so many instances. Raises SandboxError."""
        async with self._growing:
            if instances > self.room:
                before, self.room = self.room, max(instances, 2 * self.room)
                limits = self._limits()
                try:
                    await self.daemon.ask(lambda client: client.update_container(self.id, **limits))
                except BaseException:
                    self.room = before
                    raise

    async def _reached(self, listener: socket.socket) -> socket.socket:
        """Its connection. Raises ImageUnusable where it ends instead, with what it said."""
        greeting = asyncio.get_running_loop().create_task(_greeted(listener))
        try:
            async with asyncio.timeout(START_S):
                while not (await asyncio.wait([greeting], timeout=LOOK_S))[0]:
                    state = await self.state()
                    if not state["Running"]:
                        raise self._unusable(await self._said(state))
        except TimeoutError:
            raise SandboxError(
                f"{self.code.name}: its container did not answer within {START_S:g} s"
            ) from None
        finally:
            greeting.cancel()
        control, hello = greeting.result()
        if not hello or (trouble := json.loads(hello)["trouble"]):
            control.close()
            raise self._unusable(trouble if hello else "its first process ended at once")
        if not peer(control):
            control.close()
            raise DockerUnavailable(f"{self.code.name}: {ELSEWHERE}")
        return control

    def _unusable(self, why: str) -> ImageUnusable:
        return ImageUnusable(f"{self.code.name}: image {self.image!r}: {why}")

    async def state(self) -> dict[str, Any]:
        """As the daemon has it. Raises SandboxError."""
        found = await self.daemon.ask(lambda client: client.inspect_container(self.id))
        state: dict[str, Any] = found["State"]
        return state

    async def _said(self, state: dict[str, Any]) -> str:
        logs = await self.daemon.ask(lambda client: client.logs(self.id, tail=5))
        last = logs.decode(errors="replace").strip() or state["Error"] or "it said nothing"
        return f"its python3 ended with {state['ExitCode']}: {last}"

    async def remove(self) -> None:
        """End it and take it away. Again is harmless."""
        if self.id:
            made, self.id = self.id, ""
            await self.daemon.remove(made)
        shutil.rmtree(self.directory, ignore_errors=True)


def peer(control: socket.socket) -> int:
    """Who connected, as this process sees it; 0 where it does not."""
    told = control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("=3i"))
    pid: int = struct.unpack("=3i", told)[0]
    return pid


async def _greeted(listener: socket.socket) -> tuple[socket.socket, bytes]:
    """A connection, and the first that came over it."""
    loop = asyncio.get_running_loop()
    control, _ = await loop.sock_accept(listener)
    try:
        return control, await loop.sock_recv(control, HELLO)
    except OSError:
        return control, b""


def _tmp(size: int) -> str:
    return f"rw,noexec,nosuid,nodev,size={size},nr_inodes={size // 4096 + 64},mode=1777"


def _profile() -> str:
    return Path(__file__).with_name("seccomp.json").read_text()
