"""A wall clock that never goes back."""

from mesh.clock import SteadyClock


class Machine:
    wall, mono = 1000.0, 5.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds


def test_it_goes_on_while_the_machines_is_behind_and_follows_it_forward() -> None:
    machine = Machine()
    steady = SteadyClock(machine)
    machine.passes(10)
    assert steady.time() == 1010
    machine.wall -= 3600
    machine.passes(5)
    assert steady.time() == 1015
    machine.passes(5)
    assert steady.time() == 1020
    machine.wall += 7200
    assert steady.time() == 1020 + 3600
    assert steady.monotonic() == 25


def test_it_starts_no_earlier_than_what_is_stored() -> None:
    machine = Machine()
    steady = SteadyClock(machine, floor=5000.0)
    machine.passes(1)
    assert steady.time() == 5001
