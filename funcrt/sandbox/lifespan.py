"""A function's `lifespan`: what each of its instances opens as it starts, and closes as it ends."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

__all__ = ["TEARDOWN_S", "Lifespan", "beside", "mistake", "resources_of"]

TEARDOWN_S = 5.0
"""What the end of a lifespan may take; the instance is then ended all the same."""

Lifespan = Callable[..., AbstractContextManager[Any] | AbstractAsyncContextManager[Any]]


def mistake(found: Any) -> str:
    """What is wrong with a module's `lifespan`; nothing where it can be one."""
    if inspect.isasyncgenfunction(found):
        return "lifespan is a bare async generator; put @contextlib.asynccontextmanager above it"
    if inspect.isgeneratorfunction(found):
        return "lifespan is a bare generator; put @contextlib.contextmanager above it"
    if not callable(found):
        return f"lifespan is of type {type(found).__name__}, expected a context manager's function"
    try:
        inspect.signature(found).bind(None)
    except TypeError:
        return f"lifespan takes {inspect.signature(found)}, expected one parameter, the context"
    if not hasattr(inspect.unwrap(found), "__code__"):
        return ""
    body = inspect.unwrap(found)
    if body is found and inspect.iscoroutinefunction(found):
        return "lifespan is a coroutine function; yield once in it, below @asynccontextmanager"
    return ""


def resources_of(value: Any) -> Any:
    """`ctx.resources`, of what a lifespan yielded: a mapping's keys are attributes."""
    if value is None:
        return SimpleNamespace()
    return SimpleNamespace(**value) if isinstance(value, Mapping) else value


@contextmanager
def beside(manager: AbstractAsyncContextManager[Any]) -> Iterator[Any]:
    """An asynchronous lifespan for a handler without an event loop: on a loop in a thread of its
    own, which goes on for as long as the block, so that what was opened can work."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="lifespan", daemon=True)
    thread.start()
    leaving = asyncio.Event()
    entered: asyncio.Future[Any] = loop.create_future()

    async def hold() -> None:
        # Entered and left by one task, as task groups and cancel scopes ask for.
        try:
            async with manager as value:
                entered.set_result(value)
                await leaving.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    async def wait() -> Any:
        return await entered

    holding = asyncio.run_coroutine_threadsafe(hold(), loop)
    try:
        yield asyncio.run_coroutine_threadsafe(wait(), loop).result()
        loop.call_soon_threadsafe(leaving.set)
        holding.result()
    finally:
        loop.call_soon_threadsafe(leaving.set)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
