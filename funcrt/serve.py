"""`funcrt serve` behind its flags: open the mesh, start a host, listen, drain at the end."""

import os
import sys
from collections.abc import Sequence
from functools import partial

import msgspec
import uvloop

from funcrt import logs
from funcrt.auth import Tokens, check_bind
from funcrt.cautions import cautions, lowered
from funcrt.config import ServeConfig
from funcrt.errors import FunctionsRefused
from funcrt.gateway import OPEN_NOTICE
from funcrt.host import Host
from funcrt.rollout import find_functions, read_manifests, roll_out
from funcrt.running import Ending, hosting, listening, settle_down
from funcrt.sandbox.levels import contained
from funcrt.text import alarm, installed, several

__all__ = ["run"]

SHUT_NOTICE = (
    "no tokens are configured: nobody outside this container reaches the gateway; --host 0.0.0.0"
    " --tokens FILE opens it to those with a token"
)


def run(config: ServeConfig) -> int:
    """Serve until SIGINT or SIGTERM; the exit code: 0, or 1 where the mesh file failed.

    Raises what a user can cause: TokenFileInvalid, UnsafeBind, PortTaken, SocketTaken, MeshBusy,
    MeshCorrupt, FunctionsRefused.
    """
    tokens = Tokens.load(config.tokens) if config.tokens else Tokens()
    check_bind(config.host, tokens)
    logs.set_up(functions=config.logs)
    return uvloop.run(_serve(config, tokens))


async def _serve(config: ServeConfig, tokens: Tokens) -> int:
    ending = Ending()
    async with (
        hosting(config, ending) as host,
        # Listening first: a port that is taken is told before functions are loaded, and whoever
        # asks meanwhile is told to come again.
        listening(config, tokens, host, ending) as port,
    ):
        host.packages.told = partial(_installing, config)
        try:
            await _deploy(config, host)
        except FunctionsRefused:
            if ending.lost:  # which is why, and no mistake of theirs
                ending.raise_failure(config.mesh_url)
            raise
        host.state = "ready"
        settle_down()
        _say(config, "ready", f"funcrt serve · mesh {config.mesh_url} · "
             f"http http://{config.host}:{port} · ^C stop", port=port)  # fmt: skip
        if not tokens:
            _say(config, "open", SHUT_NOTICE if contained() else OPEN_NOTICE)
        await ending.asked
        _say(config, "draining", "draining: calls in flight finish")
    ending.raise_failure(config.mesh_url)
    return 0


async def _deploy(config: ServeConfig, host: Host) -> None:
    """All that is to be in service, and a line for each: what was deployed over the API, and the
    functions of the directories, which count where both have one."""
    for caution in host.cautions:
        _warn(config, caution)
    directories, passed = find_functions(config.functions)
    for directory in passed:
        _warn(config, f"{directory} was passed over: it has no main.py of its own")
    if config.functions and not directories:
        where = ", ".join(map(str, config.functions))
        _warn(config, f"no function in {where}; expected {config.functions[0]}/NAME/main.py")
    manifests, _ = read_manifests(directories, config.profile)
    named = {manifest.name for manifest in manifests.values()}
    for was, error in await host.deploys.restore(named):
        _warn(config, f"{was.name} v{was.number} could not be brought back, and is not in service:"
              f" {error}; its queue fills. Deploy it again")  # fmt: skip
    for done in await roll_out(host, directories, config.profile):
        if done.was is not None and done.was.source.kind == "api" and done.made.source.path:
            now = done.function.deployment
            if now is not None and now.seq != done.was.seq:
                _warn(config, f"{now.name} v{now.number} of {done.made.source.path} takes the place"
                      f" of v{done.was.number}, which was deployed over the API")  # fmt: skip
    for gone in await host.deploys.settle_in():
        _warn(config, f"{gone.name} v{gone.number} is out of service: {gone.source.path} is not"
              " served any more; its queue stays")  # fmt: skip
    width = max(map(len, host.deployed), default=0)
    served = [each for _, each in sorted(host.deployed.items())]
    for text, hint in lowered((each.manifest, each.pool.info) for each in served):
        _alarm(config, text, hint)
    for name, function in sorted(host.deployed.items()):
        for caution in cautions(function.manifest, function.pool.info.grouped):
            _warn(config, caution)
        info, status = function.pool.info, await function.status()
        triggers = ", ".join(map(str, status.triggers)) or "no trigger: called by name only"
        line = f"  {name:<{width}}  {triggers} → {status.output_topic or '-'}"
        kept = " · paused" if function.paused else ""
        one = function.deployment
        number = f"v{one.number}, " if one is not None else ""
        more = f"   {number}{info.kind}, imported in {info.import_ms:.0f} ms{kept}"
        _say(config, "deployed", line + more)
        if function.installed is not None:
            text = installed(function.installed.packages, function.installed.took_s)
            _say(config, "deps", f"  {'':<{width}}  deps {text}")


def _installing(
    config: ServeConfig, function: str, packages: Sequence[str], took_s: float | None
) -> None:
    """A line as an installation begins: it may take a while."""
    if took_s is None:
        _say(config, "installing", f"installing {several(packages)} for {function}")


def _warn(config: ServeConfig, text: str) -> None:
    """What is worth a look, even with --quiet."""
    if config.json:
        _say(config, "warning", text)
    else:
        print(f"! {text}", file=sys.stderr, flush=True)


def _alarm(config: ServeConfig, text: str, hint: str) -> None:
    """What nobody is to overlook: in red on a terminal, even with --quiet."""
    if config.json:
        _say(config, "isolation", text, hint=hint)
    else:
        print(alarm(text, hint, sys.stderr), file=sys.stderr, flush=True)


def _say(config: ServeConfig, event: str, text: str, **more: int | str) -> None:
    if config.json:
        line = msgspec.json.encode({"event": event, "text": text, "pid": os.getpid(), **more})
        print(line.decode(), flush=True)
    elif not config.quiet:
        print(text, file=sys.stderr, flush=True)
