"""`make demo`: a host with the sample functions, fed GitHub's events over HTTP, shown as it runs.

On a terminal a live table with progress bars; in a pipe one line a second. Ends when everything
was handled and every function is back at zero instances.
"""

import asyncio
import io
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

import mesh
from funcrt.text import alarm

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("DEMO_ROUNDS", "40"))
FUNCTIONS = ("badge", "digest", "label", "notify", "triage")
OUTSTANDING = 32
EVERY = 20
"""GitHub's events for each order and each badge."""
SVG = os.environ.get("DEMO_SVG", "")
"""Where to keep a picture of the middle of a run."""
LIMIT_S = 110.0


class Demo:
    """What the display shows, gathered from the gateway, the admin socket and the mesh."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.events = events
        self.sent = self.orders = self.badges = 0
        self.rows: list[dict[str, Any]] = []
        self.most: Counter[str] = Counter()
        self.results: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.last: dict[str, str] = {}
        self.progress = Progress(
            TextColumn("{task.description:<10}"), BarColumn(40), MofNCompleteColumn()
        )
        issues = [e for e in events if e["type"].startswith("com.github.issues.")]
        opened = sum(e["data"]["issue"].get("state") == "open" for e in issues)
        self.published = self.progress.add_task("published", total=len(events))
        self.digested = self.progress.add_task("digested", total=len(events))
        self.triaged = self.progress.add_task("triaged", total=opened)

    async def publish(self, url: str) -> None:
        """Send every event through the gateway, some at once."""
        todo = iter(self.events)
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:

            async def some() -> None:
                for event in todo:
                    answer = await client.post(
                        "/topics/github/events",
                        content=json.dumps(event),
                        headers={"content-type": "application/cloudevents+json"},
                    )
                    answer.raise_for_status()
                    self.sent += 1
                    if self.sent % EVERY == 0:
                        await self.beside(client, self.sent)

            async with asyncio.TaskGroup() as group:
                for _ in range(OUTSTANDING):
                    group.create_task(some())

    async def beside(self, client: httpx.AsyncClient, number: int) -> None:
        """A call of `badge`, and, in the first quarter, an order for `label`."""
        answer = await client.get("/badge", params={"label": "events", "value": number})
        answer.raise_for_status()
        self.badges += f"events: {number}</text>" in answer.text
        if number > len(self.events) / 4:
            return
        self.orders += 1
        answer = await client.post(
            "/topics/orders/events",
            json={"total": number % 200},
            headers={
                "ce-specversion": "1.0", "ce-id": str(number), "ce-source": "/demo",
                "ce-type": "order.placed",
            },
        )  # fmt: skip
        answer.raise_for_status()

    async def watch(self, socket: Path) -> None:
        """Look at the functions, over the admin socket."""
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            while True:
                found = (await client.get("/admin/functions")).json()
                self.rows = found["functions"] if isinstance(found, dict) else found
                for row in self.rows:
                    name = row["name"]
                    self.most[name] = max(self.most[name], row["instances"])
                await asyncio.sleep(0.1)

    async def results_of(self, client: mesh.Transport, topic: str) -> None:
        """Count what comes out of a topic."""
        async for item in client.tail(topic, "earliest"):
            event = item.event
            if event.type == "order.labelled":
                self.sizes[event.json()["label"]] += 1
                continue
            self.results[topic] += 1
            if topic == "labels":
                self.labels[event.json()["label"]] += 1
            if topic == "digests":
                self.results["digested"] += event.json()["events"]
            self.last[topic] = (event.data or b"").decode()[:100]

    def finished(self) -> bool:
        """Everything handled, and nothing running."""
        zero = all(row["instances"] == 0 and row["depth"] == 0 for row in self.rows)
        return self.sent == len(self.events) and bool(self.rows) and zero and self.whole()

    def whole(self) -> bool:
        """Every result is there."""
        tasks = self.progress.tasks
        done = self.results["digested"] >= len(self.events)
        orders = self.sizes.total() == self.orders
        return done and orders and self.results["labels"] >= (tasks[2].total or 0)

    def picture(self) -> Group:
        """The table and the bars."""
        self.progress.update(self.published, completed=self.sent)
        self.progress.update(self.digested, completed=self.results["digested"])
        self.progress.update(self.triaged, completed=self.results["labels"])
        table = Table(box=None, pad_edge=False)
        for name, where in (
            ("function", "left"), ("state", "left"), ("instances", "left"), ("depth", "right"),
            ("done", "right"), ("out", "right"), ("why", "left"),
        ):  # fmt: skip
            width = None if name == "why" else max(len(name), len("warming"))
            table.add_column(name, justify=where, no_wrap=True, min_width=width)  # type: ignore[arg-type]
        for row in self.rows:
            bar = "■" * row["instances"] + "·" * max(self.most[row["name"]] - row["instances"], 0)
            table.add_row(
                row["name"], row["state"], f"[green]{bar}[/]", str(row["depth"]),
                str(row["done"]), str(row["outputs"]), f"[dim]{row['reason']}[/]",
            )  # fmt: skip
        return Group(self.progress, "", table)

    def line(self) -> str:
        """The same for a pipe."""
        counts = " ".join(f"{row['name']}:{row['instances']}" for row in self.rows)
        return (
            f"published {self.sent}/{len(self.events)}  digested {self.results['digested']}"
            f"  triaged {self.results['labels']}  instances {counts}"
        )

    def summary(self, took: float) -> list[str]:
        """What came out, at the end."""
        events_in = len(self.events) + self.orders
        out = sum(self.results[topic] for topic in TOPICS) + self.sizes.total()
        return [
            f"{events_in} events in, {out} out, in {took:.0f} s;"
            " every function is back at zero instances",
            f"issues by label: {_counts(self.labels)}",
            f"orders: {_counts(self.sizes)}; badges drawn over HTTP: {self.badges}",
            f"most instances: {_counts(self.most)}",
            *(f"last of {topic}: {text}" for topic, text in self.last.items()),
        ]


def _counts(counter: Counter[str]) -> str:
    """`bug 840, other 40`: the most first, nothing of what is 0."""
    return ", ".join(f"{name} {count}" for name, count in counter.most_common() if count)


TOPICS = ("labels", "notifications", "digests")


def load() -> list[dict[str, Any]]:
    """The shipped events, each round with ids of its own, as GitHub's deliveries have."""
    lines = (HERE / "github.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    return [{**event, "id": f"{event['id']}-{n}"} for n in range(ROUNDS) for event in events]


async def run(data: Path) -> int:
    """The whole demo; the exit code."""
    console, demo, began = Console(), Demo(load()), time.monotonic()
    functions = [str(HERE.parent / "functions" / name) for name in FUNCTIONS]
    print(f"starting: funcrt serve functions/{{{','.join(FUNCTIONS)}}}", flush=True)
    # The functions are the project's own: where a machine holds nothing back, as in a chroot, it is
    # said, and they run.
    allowed = os.environ.get("FUNCRT_ALLOW_ISOLATION", "none")
    with (data.parent / "host.log").open("wb") as log:
        host = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "funcrt", "serve", *functions,
            "--data", str(data), "--port", "0", "--json", "--allow-isolation", allowed,
            stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
    try:
        url = await ready(host, data.parent / "host.log")
        client = await mesh.connect(f"embedded://{data}/mesh.db")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(demo.results_of(client, topic)) for topic in TOPICS]
            tasks.append(group.create_task(demo.watch(data / "admin.sock")))
            publishing = group.create_task(demo.publish(url))
            done = await show(console, demo, began)
            for task in (*tasks, publishing):
                task.cancel()
        await client.close()
    finally:
        if host.returncode is None:
            host.terminate()
            await host.wait()
    if not done:
        console.print(f"not finished after {LIMIT_S:.0f} s: {demo.line()}", style="red")
        return 1
    for line in demo.summary(time.monotonic() - began):
        console.print(line, highlight=False, no_wrap=True, overflow="ellipsis", markup=False)
    return 0


async def ready(host: asyncio.subprocess.Process, log: Path) -> str:
    """Wait for the host; its gateway's URL."""
    assert host.stdout is not None
    while line := await host.stdout.readline():
        told = json.loads(line)
        if told["event"] == "isolation":
            print(alarm(told["text"], told["hint"], sys.stdout), flush=True)
        if "port" in told:
            return f"http://127.0.0.1:{told['port']}"
    said = await asyncio.to_thread(log.read_text, "utf-8", "replace")
    raise SystemExit(f"the host did not start:\n{said}")


async def show(console: Console, demo: Demo, began: float) -> bool:
    """Keep the display current until all is done; False where it took too long."""
    if console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, refresh_per_second=8) as live:
            while not demo.finished() and time.monotonic() - began < LIMIT_S:
                live.update(demo.picture())
                await asyncio.sleep(0.1)
            live.update(demo.picture())
        return demo.finished()
    while not demo.finished() and time.monotonic() - began < LIMIT_S:
        print(demo.line(), flush=True)
        half = 0.6 * (demo.progress.tasks[2].total or 0)
        if SVG and demo.most["triage"] > 2 and demo.results["labels"] < half:
            paint(demo, Path(SVG))
        await asyncio.sleep(1.0)
    return demo.finished()


def paint(demo: Demo, path: Path) -> None:
    """Keep what a terminal would show as a picture, for the README."""
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(demo.picture())
    console.save_svg(str(path), title="make demo")


def main() -> int:
    """Run it in a directory of its own; whatever ends it, the host goes with it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGINT))  # as Ctrl-C
    try:
        with tempfile.TemporaryDirectory(prefix="funcrt-demo-") as where:
            Path(where).chmod(0o755)  # a host that root starts works in it as another user
            return asyncio.run(run(Path(where, "data")))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (BrokenPipeError, BaseExceptionGroup) as error:
        if isinstance(error, BaseExceptionGroup) and error.split(BrokenPipeError)[1]:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1  # whoever read our lines has seen enough


if __name__ == "__main__":
    raise SystemExit(main())
