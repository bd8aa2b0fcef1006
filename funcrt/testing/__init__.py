"""Testing functions in memory, without processes: `docs/testing.md`."""

from funcrt.testing.app import App, DeadEvent, NotQuiet
from funcrt.testing.clock import FakeClock
from funcrt.testing.function import Function, call, load
from funcrt.testing.outcome import Outcome

__all__ = ["App", "DeadEvent", "FakeClock", "Function", "NotQuiet", "Outcome", "call", "load"]
