"""What `deploy` and `rollback` print of versions that came, or would come, into service."""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from funcrt.cli.output import RED, folded, line, marked, note, paint, rows, safe
from funcrt.text import installed

__all__ = ["handler", "show", "show_plan"]

Found = Mapping[str, Any]


def handler(each: Found) -> str:
    """A handler as its author wrote it, without the modules that its types are of."""
    signature = re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", each["signature"])
    return safe(f"{each['handler']}  {signature}".replace("->", "→"))


def show(found: Sequence[Found], configs: Mapping[str, str]) -> None:
    """Each function that was deployed: some lines on a terminal, one in a pipe."""
    if not sys.stdout.isatty():
        rows((), [_row(each) for each in found])
    else:
        for each in found:
            _lines(each, configs.get(each["name"], ""), several=len(found) > 1)
    for each in found:
        for remark in _remarks(each):
            note(f"! {remark}")


def _row(each: Found) -> tuple[str, ...]:
    before = f"v{each['before']}" if each["before"] else "-"
    return each["name"], f"v{each['number']}", each["digest"][:12], each["state"], before


def _lines(each: Found, config: str, *, several: bool) -> None:
    if several:
        line(safe(each["name"]))
    if config:
        _ticked(f"config     {safe(config)}")
    if each["packages"]:
        _ticked(f"deps       {installed(each['packages'], each['install_s'])}")
    _ticked(f"import     {handler(each)}   {each['import_ms']:.0f} ms")
    _ticked(f"rollout    {_rollout(each)}")
    least, most = each["scale"]
    letters = f"DLQ\xa0{each['dlq']}" if each["dlq"] else "DLQ\xa0off"
    parts = [*map(safe, each["triggers"]), f"scale\xa0{least}–{most}", letters]
    said = folded(f"  {' · '.join(parts)}", 2).replace("\xa0", " ")
    line(said if each["dlq"] else said.replace("DLQ off", paint(RED, "DLQ off")))


def _ticked(text: str) -> None:
    line(marked(folded(f"✓ {text}", 13)))


def _rollout(each: Found) -> str:
    number, digest = each["number"], each["digest"][:12]
    if each["state"] == "unchanged":
        return f"unchanged: v{number} ({digest}) is in service"
    was = f", the code of v{each['of']}" if each["of"] else ""
    came = f"v{number} ready ({digest}{was})"
    if each["before"] is None:
        return f"{came}  {_seconds(each['swap_ms'])}"
    running, back = each["in_flight"], each["given_back"]
    if back is None:
        return f"{came} · v{each['before']} ends what it runs ({running} in flight)"
    ended = f"{running - back} in flight finished"
    if back:
        ended += f", {back} given back to run again"
    drained = f"v{each['before']} drained ({ended}, 0 lost)"
    return f"{came} · {drained}  {_seconds(each['swap_ms'])}"


def _seconds(ms: float) -> str:
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms"


def _remarks(each: Found) -> list[str]:
    name = each["name"]
    remarks = []
    if not each["dlq"]:
        remarks.append(f"{name}: dlq = false: what fails for good is dropped")
    if each["paused"]:
        remarks.append(f"{name} is paused, and stays so: funcrt resume {name}")
    if each["unbound"]:
        least, most = each["scale"]
        remarks.append(f"{name}: the bounds of `funcrt scale` ended; the manifest's {least}–{most}"
                       " hold")  # fmt: skip
    return remarks


def show_plan(found: Sequence[Found]) -> None:
    """What would change."""
    if not sys.stdout.isatty():
        rows((), [row for each in found for row in _plan_rows(each)])
    else:
        for each in found:
            _plan_lines(each)
    changed = sum(each["state"] != "unchanged" for each in found)
    note(f"a plan: nothing was changed; {changed} of {len(found)} would be")


def _plan_rows(each: Found) -> list[tuple[str, ...]]:
    name = each["name"]
    table = [(name, "function", each["state"], *_row(each)[1:3], _row(each)[4])]
    for key in each["keys"]:
        table.append((name, "key", key["key"], key["before"] or "-", key["after"] or "-"))
    for kind, paths in each["files"].items():
        table += [(name, "file", kind, path) for path in paths]
    return table


def _plan_lines(each: Found) -> None:
    number = f"v{each['number']}"
    now = f"v{each['before']} → {number}" if each["state"] == "changed" else number
    line(f"{safe(each['name'])}  {each['state']}  {now} ({each['digest'][:12]})")
    if each["packages"]:
        text = installed(each["packages"], each["install_s"])
        line(marked(folded(f"  ✓ deps    {text}", 12)))
    line(marked(folded(f"  ✓ import  {handler(each)}   {each['import_ms']:.0f} ms", 12)))
    for key in each["keys"]:
        before, after = key["before"] or "not set", key["after"] or "not set"
        line(f"  {safe(key['key'])}: {safe(before)} → {safe(after)}")
    if each["state"] == "changed":
        signs = {"added": "+", "changed": "~", "removed": "-"}
        for kind, paths in each["files"].items():
            for path in paths:
                line(f"  {signs[kind]} {safe(path)}")
