"""What `funcrt test` adds to pytest: sample events as tests, and each function's modules found by
its own tests only."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from funcrt import pytest_plugin
from funcrt.errors import FuncrtError
from funcrt.testing.function import Function, load
from funcrt.testing.modules import OwnModules
from funcrt.testing.samples import Mismatch, Sample, SampleInvalid, read_samples, sample_files

__all__ = ["Collector", "Told"]

Told = Callable[[dict[str, Any]], None]
"""Told of each test that ended: test, kind, outcome, seconds, message."""


class Collector:
    """A pytest plugin for one run over these functions' directories."""

    def __init__(self, directories: Sequence[Path], told: Told | None = None) -> None:
        self.samples = {f.resolve() for each in directories for f in sample_files(each)}
        self.modules = {each.resolve(): OwnModules(each.resolve()) for each in directories}
        self.told = told
        self.interrupted = False

    def pytest_configure(self, config: pytest.Config) -> None:
        """The fixtures are there where funcrt runs without being installed, too."""
        if not config.pluginmanager.is_registered(pytest_plugin):
            config.pluginmanager.register(pytest_plugin)

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> "SampleFile | None":
        """Samples are tests."""
        if file_path.resolve() in self.samples:
            return SampleFile.from_parent(parent, path=file_path)
        return None

    # A test finds `main` of its own function

    def _own(self, path: Path) -> AbstractContextManager[None]:
        modules = next((self.modules[up] for up in path.parents if up in self.modules), None)
        return nullcontext() if modules is None else modules.visible({})

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Test files are imported with the function's own modules."""
        with self._own(getattr(collector, "path", Path())):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """And so run."""
        with self._own(item.path):
            return (yield)

    # What is said of them

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Ctrl-C, and not one of pytest's own reasons to end early."""
        self.interrupted = excinfo.type is KeyboardInterrupt

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be read is one that failed."""
        if self.told is not None and report.failed:
            self.told(_row(report.nodeid, "error", 0.0, report.longreprtext))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Once a test: when it was called, or was not."""
        if self.told is None or (report.when != "call" and report.passed):
            return
        outcome = report.outcome
        if report.failed and report.when != "call":
            outcome = "error"  # type: ignore[assignment]
        self.told(_row(report.nodeid, outcome, report.duration, report.longreprtext))


def _row(test: str, outcome: str, seconds: float, message: str) -> dict[str, Any]:
    sample = "/events/" in f"/{test}"
    return {
        "test": test,
        "kind": "sample" if sample else "test",
        "outcome": outcome,
        "seconds": round(seconds, 6),
        "message": message,
    }


class SampleFile(pytest.File):
    """A file of sample events."""

    def collect(self) -> "Iterable[SampleItem]":
        """Those that something is expected of."""
        for sample in read_samples(self.path):
            if sample.expected is not None:
                yield SampleItem.from_parent(self, name=sample.name, sample=sample)

    def repr_failure(  # type: ignore[override]
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> Any:
        """Where and what, without our frames."""
        if isinstance(excinfo.value, SampleInvalid):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class SampleItem(pytest.Item):
    """One sample event."""

    def __init__(self, *, sample: Sample, **how: Any) -> None:
        super().__init__(**how)
        self.sample = sample

    def runtest(self) -> None:
        """Call the function with it."""
        function: Function = load(self.path.parent.parent)
        try:
            self.sample.check(function)
        finally:
            function.close()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What differs, without our frames."""
        if isinstance(excinfo.value, Mismatch | FuncrtError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """The heading of a failure."""
        return self.path, None, f"{self.path.parent.parent.name}: sample {self.name}"
