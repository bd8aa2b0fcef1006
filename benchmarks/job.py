"""The common job: events in, a function adds a field, its results out; each system in turn."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from benchmarks import stacks
from benchmarks.disk import Disk
from benchmarks.processes import Elsewhere, Options, Run, cpu_s, pss_mb, undisturbed
from benchmarks.table import Row, medians, ratios, render

SYSTEMS = (
    "funcrt", "faststream_nats", "bare_nats", "faststream_redis", "bare_redis", "dramatiq",
    "celery",
)  # fmt: skip


def once(run: Run, module: str, system: ModuleType) -> tuple[Row, list[Row]]:
    """One start of one system: warm up, as fast as it goes, then 200 a second. The row, and with
    `--profile` where funcrt's host spent its time while it went as fast as it goes."""
    options = run.options
    address = system.start(run)
    python = options.peers_python if system.PEER else options.python
    paced = int(options.seconds * 200)
    driver = run.spawn(
        [python, "-m", "benchmarks.driver", module, address, str(options.events), str(paced)],
        talk=True,
    )
    row: Row = {"name": f"{system.NAME} ({system.NOTE})", "lost": 0, "doubled": 0}
    row["lost"] += run.said(driver, "phase")["missing"]
    pids = run.system(but=(driver,))
    before, elsewhere = cpu_s(pids), Elsewhere()
    spy = stacks.begin(run, pids[0]) if options.profile and not system.PEER else None
    live = phase(run, driver)
    profile = stacks.end(run, spy) if spy is not None else []
    used = cpu_s(pids) - before + live["publisher_s"]
    row["events/s"] = live["rate"]
    row["CPU s/1,000"] = used / options.events * 1000
    row["PSS MB"] = pss_mb(pids)
    slow = phase(run, driver)
    both = cpu_s(pids) - before + live["publisher_s"] + slow["publisher_s"]
    row["others %"] = elsewhere.percent(both)
    row["p50 ms"], row["p99 ms"] = slow["p50"], slow["p99"]
    row["lost"] += live["missing"] + slow["missing"]
    row["doubled"] = slow["doubled"]
    return row, profile


def phase(run: Run, driver: Any) -> dict[str, Any]:
    """Let the driver go on; what it saw."""
    driver.stdin.write("go\n")
    driver.stdin.flush()
    return run.said(driver, "phase")


def job(options: Options, say: Callable[[str], None]) -> list[Row]:
    """Rounds of all systems in turn; their medians, and the bare commit between them."""
    disk, results = Disk(), dict[str, list[Row]]()
    for number in range(options.rounds):
        for module in SYSTEMS:
            if options.peers and module != "funcrt" and module not in options.peers:
                continue
            system = importlib.import_module(f"benchmarks.systems.{module}")
            with Run(options) as run:
                why = system.missing(run)
            if why:
                say(f"{system.NAME}: skipped, {why}")
                continue
            say(f"round {number + 1} of {options.rounds}: {system.NAME}")

            def turn(module: str = module, system: ModuleType = system) -> tuple[Row, list[Row]]:
                with Run(options) as run:
                    return once(run, module, system)

            row, profile = undisturbed(options, say, turn)
            results.setdefault(module, []).append(row)
            if profile:
                say(render(stacks.COLUMNS, profile))
        with Run(options) as run:
            disk.measure(run.dir)
    rows = []
    for module, rounds in results.items():
        row = medians(rounds)
        row["of funcrt"] = ratios(module, results, "funcrt", "events/s")
        rows.append(row)
    return [*rows, *disk.rows()]
