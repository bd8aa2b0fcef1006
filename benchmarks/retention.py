"""Does the file stay bounded? An hour's events, at full speed or in the hour they take."""

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.processes import Options, Run, cpu_s, pss_mb, wait_until
from benchmarks.systems.funcrt import CODE, MANIFEST, function, serve
from benchmarks.table import Row

HOUR = 3_600_000
"""Events in an hour at 1,000 a second."""
RETENTION_BYTES = 1 << 30
DEDUPE_IDS = 1_000_000
FAST = 20
"""About how much faster than 1,000/s it goes; what is by time is scaled by this."""
LINES = 24


def retention(options: Options, say: Callable[[str], None]) -> list[Row]:
    """Publish, run and keep an hour's events; the size of the file and its log meanwhile."""
    events = 200_000 if options.quick else HOUR
    scale = events / HOUR
    speed = 1 if options.real_time else FAST
    rate = 1000 if options.real_time else 0
    query = "&".join(
        (
            f"retention_bytes={int(RETENTION_BYTES * scale)}",
            f"retention_s={24 * 3600 / speed * scale:.0f}",
            f"dedupe_ids={int(DEDUPE_IDS * scale)}",
            f"dedupe_s={3600 / speed * scale:.0f}",
        )
    )
    say(f"{events:,} events, {query}")
    with Run(options) as run:
        file = run.dir / "data" / "mesh.db"
        url = f"embedded://{file}"
        serve(run, {"add": (CODE, MANIFEST)}, mesh=f"{url}?{query}")
        (host,) = run.started
        pids = run.system()
        used = cpu_s(pids)
        feed = run.spawn(
            [run.options.python, "-m", "benchmarks.feed", url, "in", str(events), str(rate)],
            talk=True,
        )
        watch = Watch(file, host.pid, say)
        every = max(events / LINES, 1)
        while "seconds" not in (said := run.said(feed, "stored")):
            watch.look(said["stored"], every)
        wait_until("all results", lambda: function(run, "add")["done"] >= said["stored"], 120)
        watch.look(said["stored"], 0)
        used = cpu_s(pids) - used + said["cpu_s"]
        row = {
            "name": f"{events:,} events" + (", in real time" if options.real_time else ""),
            "events/s": events / said["seconds"],
            "p50 ms": said["p50"],
            "p99 ms": said["p99"],
            "CPU s/1,000": used / events * 1000,
            "PSS MB": pss_mb(pids),
            "retention MB": RETENTION_BYTES * scale / 1e6,
            **watch.row(),
            "lost": events - function(run, "add")["done"],
        }
    return [row]


class Watch:
    """Sizes over time."""

    def __init__(self, file: Path, pid: int, say: Callable[[str], None]) -> None:
        self.file = file
        self.pid = pid
        self.say = say
        self.seen: list[tuple[int, float, float]] = []
        self.next = 0.0
        self.began = time.monotonic()
        say("     s     events   file MB    log MB   host PSS MB")

    def look(self, events: int, every: float) -> None:
        """Note the sizes now, and say them where it is time to."""
        file, log = (Path(f"{self.file}{end}").stat().st_size / 1e6 for end in ("", "-wal"))
        self.seen.append((events, file, log))
        if events >= self.next or not every:
            self.next = events + every
            seconds = time.monotonic() - self.began
            memory = pss_mb([self.pid])
            self.say(f"{seconds:6.0f} {events:10,} {file:9.0f} {log:9.0f} {memory:13.0f}")

    def row(self) -> Row:
        """The most there was, and how much of it came in the second half."""
        middle = max(f for n, f, _ in self.seen if n <= self.seen[-1][0] / 2)
        most = max(f for _, f, _ in self.seen)
        return {
            "file MB, half-way": middle,
            "file MB, most": most,
            "log MB, most": max(log for _, _, log in self.seen),
        }
