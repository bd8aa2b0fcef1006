"""Many rules over raw JSON events, one thread: `triggers.Index` in Python and with the accelerator,
aws event-ruler, a loop.

`python -m benchmarks.rules index|native|loop RULES EVENTS SECONDS MORE` is one in its own process.
"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, BenchmarkFailed, Options, Run
from benchmarks.table import Row, medians
from triggers import native

RULER = ROOT / "benchmarks" / "ruler"
SIZES = (1, 100, 1_000, 10_000, 100_000)
EVENTS = 3_000
MORE = 1_000
"""Rules that are added to those, one by one."""
PATIENCE_S = 90.0
"""For building and matching; what takes longer has no figures."""
LOOP_MOST = 1_000
"""Beyond it a loop takes seconds an event."""
_OTHERS = [{"sku": f"x{m}", "count": m} for m in range(4)]
_PAD = {f"field{n}": "v" * 20 for n in range(18)}

Pair = tuple[dict[str, Any], dict[str, Any]]
"""A rule, and what an event has that matches it and hardly any other."""

KINDS: dict[str, Callable[[int], Pair]] = {
    "exact": lambda n: ({"a": [f"value-{n}"]}, {"a": f"value-{n}"}),
    "prefix": lambda n: ({"a": [{"prefix": f"p{n}-"}]}, {"a": f"p{n}-and-more"}),
    "suffix": lambda n: ({"a": [{"suffix": f"-s{n}"}]}, {"a": f"something-s{n}"}),
    "numeric": lambda n: (
        {"a": [{"numeric": [">", n * 10, "<", n * 10 + 8]}]},
        {"a": n * 10 + 4},
    ),
    "anything-but + exact": lambda n: (
        {"a": [{"anything-but": ["x", "y"]}], "b": [f"value-{n}"]},
        {"a": "z", "b": f"value-{n}"},
    ),
    "arrays": lambda n: (
        {"items": {"sku": [f"sku-{n}"], "count": [{"numeric": [">", 0]}]}},
        {"items": [{"sku": f"sku-{n}", "count": 1}, *_OTHERS]},
    ),
    "3 fields": lambda n: (
        {"a": [f"a{n % 50}"], "b": [f"b{n // 50 % 50}"], "c": [f"c{n // 2500}"]},
        {"a": f"a{n % 50}", "b": f"b{n // 50 % 50}", "c": f"c{n // 2500}"},
    ),
    "wildcard": lambda n: ({"a": [{"wildcard": f"*img{n}-*.png"}]}, {"a": f"b/img{n}-large.png"}),
}  # fmt: skip


def rules(options: Options, say: Callable[[str], None]) -> list[Row]:
    """Each kind at each size, the engines by turns; medians over rounds."""
    jars = RULER / "target" / "dependency"
    ruler = shutil.which("java") and jars.exists()
    if not ruler:
        say("no event-ruler: it needs java and mvn, and `make peers`")
    accelerated = native.engine() is not None
    if not accelerated:
        say("no accelerator: it needs Rust, and `make accelerator`")
    rows = []
    with Run(options) as run:
        for kind in KINDS:
            for size in (1, 1_000) if options.quick else SIZES:
                engines = ["index", *(["native"] if accelerated else [])]
                engines += ["ruler"] if ruler else []
                engines += ["loop"] if size <= LOOP_MOST else []
                given = _files(run.dir, kind, size)
                taken: dict[str, list[Row]] = {engine: [] for engine in engines}
                for _ in range(options.rounds):
                    for engine in engines:
                        taken[engine].append(_run(options, engine, given, jars))
                for engine, found in taken.items():
                    name = f"{kind}, {size:,} rules, {engine}"
                    row = medians(found)
                    if engine != "index" and "events/s" in row:
                        row["of index"] = row["events/s"] / medians(taken["index"])["events/s"]
                    rows.append({"name": name, **row})
                    say(f"{name}: {row.get('events/s', 0):,.0f}/s")
    return rows


def _files(directory: Path, kind: str, size: int) -> list[str]:
    """Rules, events and more rules as files."""
    chance, make = random.Random(size), KINDS[kind]
    events = (make(chance.randrange(size))[1] for _ in range(EVENTS))
    files = {
        "rules.jsonl": [make(n)[0] for n in range(size)],
        "events.jsonl": [{**_PAD, **one} for one in events],
        "more.jsonl": [make(n)[0] for n in range(size, size + MORE)],
    }
    for name, lines in files.items():
        (directory / name).write_text("".join(json.dumps(one) + "\n" for one in lines))
    return [str(directory / name) for name in files]


def _run(options: Options, engine: str, given: list[str], jars: Path) -> Row:
    seconds = "0.5" if options.quick else "3"
    argv = [options.python, "-m", "benchmarks.rules", engine]
    if engine == "ruler":
        argv = ["java", "-Xmx4g", "-cp", f"{jars}/*", str(RULER / "Rules.java")]
    rules_file, events_file, more_file = given
    try:
        ended = subprocess.run(
            [*argv, rules_file, events_file, seconds, more_file],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"gave up after s": PATIENCE_S}
    if ended.returncode:
        raise BenchmarkFailed(f"{engine}: {ended.stderr[-2000:]}")
    row: Row = json.loads(ended.stdout)
    if row.pop("hits") < EVENTS:
        raise BenchmarkFailed(f"{engine}: events that match nothing")
    return row


def main(engine: str, rules_file: str, events_file: str, seconds: str, more_file: str) -> None:
    """Build, match again and again for so long, add more: a line of figures as JSON."""
    import triggers
    from mesh import Event

    if engine != "native":
        native.engine = lambda: None
    lines = Path(rules_file).read_text().splitlines()
    events = [
        Event(str(n), "/s", "t", datacontenttype="application/json", data=line.encode())
        for n, line in enumerate(Path(events_file).read_text().splitlines())
    ]
    specs = [json.loads(line) for line in lines]
    before = _resident_mb()
    # Its processor time, which is what it takes alone on a machine.
    began = time.process_time()
    filters = [triggers.parse({"pattern": {"data": spec}}) for spec in specs]
    index: triggers.Index[int] = triggers.Index()
    for n, one in enumerate(filters):
        index.add(n, one)
    build = time.process_time() - began
    held = _resident_mb() - before

    def looped(event: Event) -> list[int]:
        return [n for n, one in enumerate(filters) if one.matches(event)]

    match = looped if engine == "loop" else index.match
    best, hits, began = float("inf"), 0, time.perf_counter()
    while best == float("inf") or time.perf_counter() - began < float(seconds):
        started = time.perf_counter()
        hits = sum(len(match(event)) for event in events)
        best = min(best, (time.perf_counter() - started) / len(events))
    parse_and_add, add = [], []
    for n, line in enumerate(Path(more_file).read_text().splitlines()):
        spec, began = {"pattern": {"data": json.loads(line)}}, time.process_time()
        one = triggers.parse(spec)
        parsed = time.process_time()
        index.add(-1 - n, one)
        ended = time.process_time()
        parse_and_add.append((ended - began) * 1e3)
        add.append((ended - parsed) * 1e3)
    row = {"events/s": 1 / best, "build s": build, "MB": held, "hits": hits}
    for name, taken in (("one more", parse_and_add), ("index.add", add)):
        row[f"{name} p50 ms"] = statistics.median(taken)
        row[f"{name} p99 ms"] = statistics.quantiles(taken, n=100)[98]
    print(json.dumps(row))


def _resident_mb() -> float:
    """What this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main(*sys.argv[1:])
