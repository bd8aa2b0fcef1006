"""Many functions on one topic, of which one asks for the event: what each event costs then."""

import json
import time
from collections.abc import Callable
from typing import Any

from benchmarks.processes import BenchmarkFailed, Options, Run, cpu_s, pss_mb, wait_until
from benchmarks.systems.funcrt import function, serve
from benchmarks.table import Row, medians

CODE = "def handler(event): return {'ok': True}\n"
MANIFEST = """
[[trigger]]
topic = "in"
pattern = {{ type = ["bench"], data = {{ {wanted} }} }}
[output]
topic = "out"
[scale]
min = {least}
max = 1
"""
EVERY = 'id = [{ numeric = [">=", 0] }]'
NEVER = 'name = ["other-{n}"]'
"""What the others wait for: each a value of its own, of which no event has any."""


def wide(options: Options, say: Callable[[str], None]) -> list[Row]:
    """One function; then a thousand (100 when quick), of which it is one. By turns."""
    counts = (1, 100 if options.quick else 1_000)
    taken: dict[int, list[Row]] = {count: [] for count in counts}
    for round in range(options.rounds):
        for count in counts:
            with Run(options) as run:
                taken[count].append(one(run, count, options.events))
            used = taken[count][-1]["CPU s/1,000"]
            say(f"round {round + 1}: {count:,} functions, {used:.4f} CPU s/1,000")
    rows = [{"name": f"{count:,} functions", **medians(found)} for count, found in taken.items()]
    each = (
        more["CPU s/1,000"] / alone["CPU s/1,000"]
        for alone, more in zip(*taken.values(), strict=True)
    )
    rows[-1]["CPU of one's"] = sorted(each)[options.rounds // 2]
    return rows


def one(run: Run, count: int, events: int) -> Row:
    """Publish to a host of so many functions until their one has had every event."""
    functions = {"f0": (CODE, MANIFEST.format(wanted=EVERY, least=1))}
    for n in range(1, count):
        wanted = NEVER.format(n=n)
        functions[f"f{n}"] = (CODE, MANIFEST.format(wanted=wanted, least=0))
    serve(run, functions)
    time.sleep(2)
    system = run.system()
    used = cpu_s(system)
    fed = _feed(run, events)
    _handled(run, events)
    return {
        "events/s": events / fed["seconds"],
        "CPU s/1,000": (cpu_s(system) - used) / events * 1000,
        "PSS MB": pss_mb(system),
    }


def _feed(run: Run, events: int) -> dict[str, Any]:
    """What the publisher said at its end."""
    url = f"embedded://{run.dir}/data/mesh.db"
    argv = [run.options.python, "-m", "benchmarks.feed", url, "in", str(events), "0"]
    process = run.spawn(argv, talk=True)
    said = run.said(process, "seconds")
    run.stop(process)
    if said["stored"] != events:
        raise BenchmarkFailed(f"{events} events were published: {json.dumps(said)}")
    return said


def _handled(run: Run, events: int) -> None:
    def all_out() -> bool:
        found = function(run, "f0")
        return bool(found["depth"] == 0 and found["outputs"] == events)

    wait_until("every event is handled", all_out, 120, 0.2)
