"""Many timeouts with one timer."""

import asyncio
import gc
import random
import weakref

import uvloop

from funcrt.timeouts import Timeouts


def test_each_is_called_in_its_time_but_those_that_were_cancelled() -> None:
    called: dict[int, float] = {}
    started: dict[int, float] = {}

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timeouts = Timeouts(0.1)
        chance = random.Random(7)

        def told(number: int) -> None:
            called[number] = loop.time()
            if number == 3:
                raise KeyError("one that fails keeps no other back")

        loop.set_exception_handler(lambda *_: None)
        running = {}
        for number in range(300):
            started[number] = loop.time()
            running[number] = timeouts.start(lambda number=number: told(number))
            if number % 3 == 1:
                running[chance.randrange(number // 2, number) // 3 * 3 + 1].cancel()
                running[number].cancel()
                running[number].cancel()
            if number % 30 == 29:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.25)
        running[0].cancel()  # it was called already

    uvloop.run(main())
    assert sorted(called) == [number for number in range(300) if number % 3 != 1]
    assert list(called) == sorted(called)
    late = [called[number] - started[number] for number in called]
    assert min(late) > 0.09


def test_what_was_cancelled_or_called_goes_without_the_collector() -> None:
    class Holder:
        def __init__(self, timeouts: Timeouts) -> None:
            self.timeout = timeouts.start(self.called)

        def called(self) -> None: ...

    async def main() -> None:
        timeouts = Timeouts(0.02)
        cancelled, called = Holder(timeouts), Holder(timeouts)
        gone = [weakref.ref(cancelled), weakref.ref(called)]
        cancelled.timeout.cancel()
        await asyncio.sleep(0.1)
        del cancelled, called
        assert [each() for each in gone] == [None, None]

    gc.disable()
    try:
        uvloop.run(main())
    finally:
        gc.enable()


def test_it_stands_still_and_goes_on() -> None:
    called = []

    async def main() -> None:
        timeouts = Timeouts(0.02)
        for number in range(3):
            timeouts.start(lambda number=number: called.append(number))
            await asyncio.sleep(0.06)
        timeouts.start(lambda: called.append(9)).cancel()
        await asyncio.sleep(0.06)

    uvloop.run(main())
    assert called == [0, 1, 2]
