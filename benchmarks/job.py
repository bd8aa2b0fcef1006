"""The common job: events in, a function adds a field, its results out; each system in turn."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from benchmarks.disk import Disk
from benchmarks.processes import BenchmarkFailed, Options, Run, cpu_s, pss_mb
from benchmarks.table import Row, medians, ratios

SYSTEMS = ("funcrt", "faststream_nats", "bare_nats", "faststream_redis")
COLUMNS = ("system", "events/s", "of funcrt", "p50 ms", "p99 ms", "CPU s/1,000", "PSS MB", "lost")


def once(run: Run, module: str, system: ModuleType) -> Row:
    """One start of one system: warm up, as fast as it goes, then 200 a second."""
    options = run.options
    address = system.start(run)
    python = options.peers_python if system.PEER else options.python
    paced = int(options.seconds * 200)
    driver = run.spawn(
        [python, "-m", "benchmarks.driver", module, address, str(options.events), str(paced)],
        talk=True,
    )
    row: Row = {"system": f"{system.NAME} ({system.NOTE})", "lost": 0}
    row["lost"] += run.said(driver, "phase")["missing"]
    pids = run.system(but=(driver,))
    before = cpu_s(pids)
    live = phase(run, driver)
    used = cpu_s(pids) - before + live["publisher_s"]
    row["events/s"] = live["rate"]
    row["CPU s/1,000"] = used / options.events * 1000
    row["PSS MB"] = pss_mb(pids)
    slow = phase(run, driver)
    row["p50 ms"], row["p99 ms"] = slow["p50"], slow["p99"]
    row["lost"] += live["missing"] + slow["missing"]
    return row


def phase(run: Run, driver: Any) -> dict[str, Any]:
    """Let the driver go on; what it saw."""
    driver.stdin.write("go\n")
    driver.stdin.flush()
    return run.said(driver, "phase")


def measure(options: Options, say: Callable[[str], None]) -> tuple[list[Row], Disk]:
    """Rounds of all systems in turn; their medians, and the bare commit between them."""
    disk, results, skipped = Disk(), {}, []
    for number in range(options.rounds):
        for module in SYSTEMS:
            if options.peers and module != "funcrt" and module not in options.peers:
                continue
            system = importlib.import_module(f"benchmarks.systems.{module}")
            with Run(options) as run:
                if why := system.missing(run):
                    skipped.append(f"{system.NAME}: skipped, {why}")
                    continue
                say(f"round {number + 1} of {options.rounds}: {system.NAME}")
                try:
                    results.setdefault(module, []).append(once(run, module, system))
                except BenchmarkFailed as error:
                    skipped.append(f"{system.NAME}: failed, {error}")
        with Run(options) as run:
            disk.measure(run.dir)
    rows = []
    for module, rounds in results.items():
        row = medians(rounds)
        row["of funcrt"] = ratios(module, results, "funcrt", "events/s")
        rows.append(row)
    for line in dict.fromkeys(skipped):
        say(line)
    return rows, disk
