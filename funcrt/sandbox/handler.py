"""A function's code: finding its handler, calling it as it is annotated, reading what it returns.

Parameters are resolved by annotation, never by magic names. Runs in the sandbox.
"""

import collections.abc
import dataclasses
import difflib
import importlib
import inspect
import sys
import traceback
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from funcrt.context import Context, Failed
from funcrt.errors import LoadError, Problem
from funcrt.sandbox.hints import hint
from funcrt.sandbox.lifespan import Lifespan, mistake
from funcrt.sandbox.protocol import Failure, Out
from funcrt.sandbox.web import is_request, is_response
from mesh.event import Event

if TYPE_CHECKING:
    from funcrt.sandbox.confine import Confinement

__all__ = [
    "Bound",
    "NotAnEvent",
    "bind_handler",
    "failed",
    "failure",
    "import_handler",
    "items",
    "output",
    "outputs",
    "threads",
]

NAMES = ("handler", "handle", "main")
JSON = "application/json"
in_image = False
"""Whether this is a container, which has what its image has: nothing is installed for it."""


class NotAnEvent(Exception):
    """The event's data is not what the handler's annotation says: no attempt will mend it."""


class Bound(msgspec.Struct, frozen=True):
    """A handler, and how to call it."""

    call: Callable[..., Any]
    name: str
    kind: str
    """`sync`, `async`, `generator` or `async generator`."""
    batch: bool
    arguments: Callable[[Sequence[Event], Context], tuple[Any, ...]]
    signature: str
    request: bool = False
    """It takes a Request."""
    lifespan: Lifespan | None = None


# Finding it


def import_handler(path: Path, spec: str, held: "Confinement | None" = None) -> Bound:
    """Import the code under `path` and bind its handler: `spec` is `module:attribute`, or empty
    for `handler`, `handle` or `main` of `main.py`. Raises LoadError, which names what it was `held`
    to where that is why."""
    name, _, attribute = spec.partition(":")
    name = name or "main"
    return bind_handler(_import(path, name, held), f"{name.replace('.', '/')}.py", attribute)


def bind_handler(module: ModuleType, file: str, attribute: str = "") -> Bound:
    """Bind the handler of a module that is imported; `file` is its name in messages. Raises
    LoadError."""
    if attribute:
        found = getattr(module, attribute, None)
        if found is None:
            raise LoadError(Problem(file=file, message=_missing(module, attribute)))
    else:
        there = [name for name in NAMES if getattr(module, name, None) is not None]
        names = [name for name in there if callable(getattr(module, name))] or there[:1]
        if len(names) > 1:
            both = " and ".join(names)
            message = f'has {both}; keep one, or name it: handler = "main:{names[0]}"'
            raise LoadError(Problem(file=file, message=message))
        if not names:
            raise LoadError(Problem(file=file, message=_missing(module, "handler")))
        attribute = names[0]
        found = getattr(module, attribute)
    if not callable(found) or inspect.isclass(found):
        what = "a class" if inspect.isclass(found) else f"of type {type(found).__name__}"
        message = f"{attribute} is {what}, expected a function"
        raise LoadError(Problem(file=file, message=message))
    lifespan = getattr(module, "lifespan", None)
    if lifespan is not None and (wrong := mistake(lifespan)):
        line = getattr(getattr(lifespan, "__code__", None), "co_firstlineno", None)
        raise LoadError(Problem(file=file, line=line, message=wrong))
    return _bind(found, f"{module.__name__}:{attribute}", file, lifespan)


def _absent(module: str, path: Path) -> str:
    if in_image:
        return f"cannot import {module!r}: no such module beside it or in the image; add it to that"
    from funcrt.sandbox.absent import absent  # slow to import, and seldom needed

    return absent(module, path)


def _import(path: Path, name: str, held: "Confinement | None") -> ModuleType:
    file = f"{name.replace('.', '/')}.py"
    if not (path / file).is_file() and not (path / name.replace(".", "/")).is_dir():
        there = ", ".join(sorted(p.name for p in path.glob("*.py"))) or "no Python file"
        raise LoadError(Problem(file=file, message=f"is missing; found {there}"))
    try:
        return importlib.import_module(name)
    except SyntaxError as error:
        where = str(error.filename or file).removeprefix(f"{path}/")
        problem = Problem(file=where, line=error.lineno, message=f"syntax error: {error.msg}")
        shown = "".join(traceback.format_exception_only(error)[1:-1]).rstrip()
        raise LoadError(problem, shown) from None
    except BaseException as error:
        text = _frames(error, path, _text(error))
        line = _line(error, path)
        if isinstance(error, ModuleNotFoundError):
            message = _absent(error.name or "", path)
        else:
            said = _text(error).partition("\n")[0]
            more = hint(error, held)[1] if held is not None else ""
            message = (
                f"fails to import: {type(error).__name__}: {said}{f' ({more})' if more else ''}"
            )
        raise LoadError(
            Problem(file=line[0] or file, line=line[1], message=message), text
        ) from None


def _missing(module: ModuleType, wanted: str) -> str:
    functions = [
        name
        for name, value in vars(module).items()
        if inspect.isroutine(value) and getattr(value, "__module__", "") == module.__name__
    ]
    close = difflib.get_close_matches(wanted, functions, 1)
    there = ", ".join(functions) or "none"
    hint = f'; did you mean "{close[0]}"?' if close else ""
    return f"no function {wanted}; functions found: {there}{hint}"


# Binding it


def _bind(call: Callable[..., Any], name: str, file: str, lifespan: Lifespan | None) -> Bound:
    line = getattr(getattr(call, "__code__", None), "co_firstlineno", None)

    def refuse(message: str) -> LoadError:
        return LoadError(Problem(file=file, line=line, message=message))

    signature = inspect.signature(call)
    try:
        hints = typing.get_type_hints(call)
    except Exception as error:  # the author's annotations
        raise refuse(f"an annotation cannot be resolved: {error}") from None
    parameters = [
        p
        for p in signature.parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    names = [p.name for p in parameters]
    if names[:2] in (["context", "event"], ["ctx", "event"]) and not hints.keys() & set(names):
        raise refuse("takes (context, event); funcrt calls (event, ctx): swap them")
    keywords = [
        p.name
        for p in signature.parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    ]
    if keywords:
        raise refuse(f"needs the keyword {keywords[0]!r}, which no call gives; give it a default")
    kind = _kind(call)
    request = any(is_request(hints.get(name)) for name in names)
    if len(parameters) > 2 + request:
        expected = "a request, its data and a context" if request else "an event and a context"
        raise refuse(f"takes {len(parameters)} parameters, expected {expected}")
    if request and "generator" in kind:
        raise refuse("takes a Request and yields; return a StreamingResponse of a generator")
    getters: list[Callable[[Sequence[Event], Context], Any]] = []
    batch = False
    for index, parameter in enumerate(parameters):
        hint = hints.get(parameter.name, Event if index == 0 else Context)
        getter, many = _getter(hint, refuse)
        getters.append(getter)
        batch = batch or many
    if request and batch:
        raise refuse("takes a Request and a list; a request is one")
    shown = f"{kind} {signature}"
    return Bound(call, name, kind, batch, _arguments(getters), shown, request, lifespan)


def _getter(
    hint: Any, refuse: Callable[[str], LoadError]
) -> tuple[Callable[[Sequence[Event], Context], Any], bool]:
    """What a parameter gets, and whether that is a batch."""
    if hint is Context:
        return lambda events, ctx: ctx, False
    if is_request(hint):
        return lambda events, ctx: hint(*ctx._http), False
    if typing.get_origin(hint) in (list, collections.abc.Sequence):
        return _many(_decoder(typing.get_args(hint)[0], refuse)), True
    return _one(_decoder(hint, refuse)), False


def _arguments(getters: list[Any]) -> Callable[[Sequence[Event], Context], tuple[Any, ...]]:
    if len(getters) == 1:
        (only,) = getters
        return lambda events, ctx: (only(events, ctx),)
    return lambda events, ctx: tuple(getter(events, ctx) for getter in getters)


def _kind(call: Callable[..., Any]) -> str:
    if inspect.isasyncgenfunction(call):
        return "async generator"
    if inspect.iscoroutinefunction(call):
        return "async"
    return "generator" if inspect.isgeneratorfunction(call) else "sync"


def _one(decode: Callable[[Event], Any]) -> Callable[[Sequence[Event], Context], Any]:
    return lambda events, ctx: decode(events[0])


def _many(decode: Callable[[Event], Any]) -> Callable[[Sequence[Event], Context], Any]:
    return lambda events, ctx: [decode(event) for event in events]


def _decoder(hint: Any, refuse: Callable[[str], LoadError]) -> Callable[[Event], Any]:
    """Event -> what the annotation asks for."""
    if hint is Event:
        return lambda event: event
    if getattr(hint, "__module__", "").startswith("starlette"):
        raise refuse(f"takes starlette's {hint.__name__}; of its classes only Request is given")
    if getattr(hint, "__module__", "").startswith("cloudevents."):
        from mesh.sdk import to_sdk

        return to_sdk
    if hint is bytes:
        return lambda event: event.data or b""
    if hasattr(hint, "model_validate_json"):
        return _guard(hint.model_validate_json)
    try:
        decoder = msgspec.json.Decoder(hint)
    except TypeError as error:
        raise refuse(f"cannot decode data as {hint}: {error}") from None
    return _guard(decoder.decode)


def _guard(decode: Callable[[bytes], Any]) -> Callable[[Event], Any]:
    def guarded(event: Event) -> Any:
        try:
            return decode(event.data or b"null")
        except (ValueError, TypeError, RecursionError) as error:
            raise NotAnEvent(f"data: {error}") from None

    return guarded


# What it returns


def _plain(value: Any) -> Any:
    """For values msgspec does not know: pydantic's models; else an error that names the type."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if is_response(value):
        raise TypeError(
            f"a {type(value).__name__} answers a Request: annotate a parameter as Request"
        )
    raise TypeError(
        f"an output holds a value of type {type(value).__name__}, which cannot be written as JSON;"
        " expected what JSON has, a dataclass, a pydantic model, bytes or an Event"
    )


encode_json = msgspec.json.Encoder(enc_hook=_plain).encode


def outputs(returned: Any) -> list[Out]:
    """The events that a returned value is. Raises TypeError for one that cannot be written."""
    if returned is None:
        return []
    if isinstance(returned, list) and returned and all(isinstance(e, Event) for e in returned):
        return [Out(event) for event in returned]
    return [Out(output(returned))]


def output(value: Any) -> Event:
    """The one event that a value is."""
    if isinstance(value, Event):
        return value
    if type(value).__module__.startswith("cloudevents."):
        from mesh.sdk import from_sdk

        return from_sdk(value)
    if isinstance(value, str):
        return Event("", "", "", None, None, "text/plain", None, {}, value.encode())
    if isinstance(value, bytes | bytearray | memoryview):
        kind = "application/octet-stream"
        return Event("", "", "", None, None, kind, None, {}, bytes(value))
    if dataclasses.is_dataclass(value) and isinstance(value, type):
        raise TypeError(f"returned the class {value.__name__}, expected an instance")
    return Event("", "", "", None, None, JSON, None, {}, encode_json(value))


def items(returned: Any, count: int) -> list[Any] | None:
    """A batch's outcome by item; None where it is one output for the whole batch."""
    if not isinstance(returned, list):
        return None
    if len(returned) != count:
        raise ValueError(
            f"the batch had {count} events and the handler returned {len(returned)} items; "
            "return one an event (None and Failed(why) allowed), or one object for all"
        )
    return returned


def failed(item: Any) -> Failure | None:
    """An item's failure, if it is one."""
    return Failure("Failed", item.reason) if isinstance(item, Failed) else None


# What it raises


def _text(error: BaseException) -> str:
    try:
        return str(error)[:4096]
    except BaseException:
        return "(its message cannot be shown)"


def _own(error: BaseException, path: Path) -> list[traceback.FrameSummary]:
    root = str(path)
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if frame.filename.startswith(root)]


def _line(error: BaseException, path: Path) -> tuple[str, int | None]:
    own = _own(error, path)
    if not own:
        return "", None
    return str(Path(own[-1].filename).relative_to(path)), own[-1].lineno


def _frames(error: BaseException, path: Path, said: str) -> str:
    """The traceback, cut to the author's frames, with what is said of the error at its end."""
    text = "".join(traceback.format_list(_own(error, path)[-20:]))
    text += f"{type(error).__name__}: {said}"
    return text.replace(str(path) + "/", "")[-16384:]


def failure(error: BaseException, path: Path, held: "Confinement | None" = None) -> Failure:
    """What a call's exception says, for logs and dead letters; and where it comes of what the
    function is held to, the key of its manifest."""
    own = _own(error, path)
    where = ""
    if own:
        last = own[-1]
        where = f"{Path(last.filename).relative_to(path)}:{last.lineno} in {last.name}"
    text, limit = _text(error), ""
    if held is not None:
        limit, more = hint(error, held)
        text += f" ({more})" if more and text else more
    return Failure(type(error).__name__, text, where, _frames(error, path, text), limit)


def threads() -> int:
    """Threads of this process, Python's and others', or 2 for any number above one."""
    if sys.platform != "linux":
        return 1
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:  # level `process` shows no /proc
        from funcrt.sandbox import kernel

        return 1 if kernel.alone() else 2
