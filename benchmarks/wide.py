"""Many functions on one topic, of which one asks for the event: what each event costs then, and how
much of it is matching.

`python -m benchmarks.wide COUNT index|native` prints the microseconds of one match.
"""

import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.driver import body_of
from benchmarks.processes import ROOT, BenchmarkFailed, Options, Run, cpu_s, pss_mb, wait_until
from benchmarks.systems.funcrt import function, serve
from benchmarks.table import Row, medians
from triggers import native

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
    """One function; then a thousand (100 when quick), of which it is one, without the accelerator
    and with it. By turns."""
    many = 100 if options.quick else 1_000
    kinds = {"1 function": (1, "index"), f"{many:,} functions": (many, "index")}
    if native.engine() is not None:
        kinds[f"{many:,} functions, native"] = (many, "native")
    else:
        say("no accelerator: it needs Rust, and `make accelerator`")
    taken: dict[str, list[Row]] = {name: [] for name in kinds}
    for round in range(options.rounds):
        for name, (count, engine) in kinds.items():
            with Run(options) as run:
                taken[name].append(one(run, count, options.events, engine))
            used = taken[name][-1]["CPU s/1,000"]
            say(f"round {round + 1}: {name}, {used:.4f} CPU s/1,000")
    rows = [{"name": name, **medians(found)} for name, found in taken.items()]
    alone = [row["CPU s/1,000"] for row in taken["1 function"]]
    for row in rows[1:]:
        used = [one["CPU s/1,000"] for one in taken[row["name"]]]
        each = sorted(more / first for first, more in zip(alone, used, strict=True))
        row["CPU of one's"] = each[options.rounds // 2]
        row["match us"] = _match_us(options, *kinds[row["name"]])
        row["of the CPU"] = row["match us"] / 1000 / row["CPU s/1,000"]
    return rows


def one(run: Run, count: int, events: int, engine: str) -> Row:
    """Publish to a host of so many functions until their one has had every event."""
    env = {}
    if engine == "index":  # the accelerator, where there is one, is not to be found
        none = run.dir / "none"
        none.mkdir()
        (none / "funcrt_accelerator.py").write_text("raise ImportError('not in this run')\n")
        env["PYTHONPATH"] = f"{none}:{ROOT}"
    serve(run, dict(_functions(count)), **env)
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


def _functions(count: int) -> Iterator[tuple[str, tuple[str, str]]]:
    yield "f0", (CODE, MANIFEST.format(wanted=EVERY, least=1))
    for n in range(1, count):
        yield f"f{n}", (CODE, MANIFEST.format(wanted=NEVER.format(n=n), least=0))


def _match_us(options: Options, count: int, engine: str) -> float:
    argv = [options.python, "-m", "benchmarks.wide", str(count), engine]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise BenchmarkFailed(f"match: {ended.stderr[-2000:]}")
    return float(ended.stdout)


def _match(count: int, engine: str) -> float:
    """The least microseconds that an index of the functions takes for an event."""
    import triggers
    from mesh import Event

    if engine == "index":
        native.engine = lambda: None
    index: triggers.Index[str] = triggers.Index()
    for name, (_, manifest) in _functions(count):
        (trigger,) = tomllib.loads(manifest)["trigger"]
        index.add(name, triggers.parse({"pattern": trigger["pattern"]}))
    events = [Event(str(n), "/bench", "bench", data=body_of(n)) for n in range(1000)]
    best = float("inf")
    for _ in range(50):
        began = time.process_time()
        for event in events:
            index.match(event)
        best = min(best, (time.process_time() - began) / len(events))
    return best * 1e6


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


if __name__ == "__main__":
    print(_match(int(sys.argv[1]), sys.argv[2]))
