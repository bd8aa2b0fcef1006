"""The first process of a function's container, as a program: it finds what funcrt's own modules
need, and becomes the function's zygote. Until then it is any Python's, and any image's."""

import importlib.util
import json
import os
import platform
import socket
import sys
import sysconfig

__all__ = ["CONTROL", "HOST_PACKAGES", "LIBRARY", "PROGRAM"]

LIBRARY = "/funcrt/library"
"""Where the host's funcrt is in a container: both ends of a channel are of one version."""
HOST_PACKAGES = "/funcrt/packages"
"""Where the host's msgspec is, which goes with one version of Python only."""
CONTROL = "/funcrt/host/control"
PROGRAM = f"{LIBRARY}/funcrt/sandbox/contained.py"
OLDEST = (3, 11)
NOT_THE_IMAGES = ("HOSTNAME", "HOME", "TERM")
"""Variables that Docker makes, not the image."""


def _trouble(host_abi: str) -> str:
    """What is missing, or nothing, once sys.path has it."""
    if sys.version_info < OLDEST:
        return f"its python3 is {platform.python_version()}; functions need 3.11 or newer"
    sys.path.insert(0, LIBRARY)
    if importlib.util.find_spec("msgspec") is not None:
        return ""
    ours = str(sysconfig.get_config_var("SOABI"))
    if ours != host_abi:
        return (
            f"it has no msgspec, and its Python ({ours}) cannot use the host's ({host_abi}):"
            " install funcrt, or msgspec, in the image"
        )
    sys.path.append(HOST_PACKAGES)
    return ""


def _main(host_abi: str) -> None:
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.connect(CONTROL)
    trouble = _trouble(host_abi)
    control.send(json.dumps({"trouble": trouble}).encode())
    if trouble:
        return
    _become_zygote(control)


def _become_zygote(control: socket.socket) -> None:
    import msgspec

    from funcrt.sandbox import handler
    from funcrt.sandbox.confine import Refused, enter_contained
    from funcrt.sandbox.forking import MAX_ASKED, introduce, tell
    from funcrt.sandbox.zygote import Spec, begin

    body, descriptors, _, _ = socket.recv_fds(control, MAX_ASKED, 2)
    if not body:
        return
    spec = msgspec.msgpack.decode(body, type=Spec)
    kept = {name: text for name, text in os.environ.items() if name not in NOT_THE_IMAGES}
    spec = msgspec.structs.replace(spec, env=kept | spec.env)
    handler.in_image = True
    introduce(os.getpid(), control.fileno())
    try:
        enter_contained(spec.confine)
    except Refused as refused:
        tell(control.fileno(), {"refused": str(refused)})
        return
    begin(spec, control.detach(), *descriptors)


if __name__ == "__main__":
    _main(sys.argv[1])
