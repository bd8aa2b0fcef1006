"""What is expected of a function's sample events, written from what it does now."""

import contextlib
import difflib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from funcrt.errors import FuncrtError
from funcrt.testing.function import load
from funcrt.testing.samples import (
    Mismatch,
    Sample,
    SampleInvalid,
    beside,
    found,
    like,
    read_samples,
    sample_files,
)

__all__ = ["Updated", "update"]

BODY = ("data", "data_base64")
"""Of which an output or a response has one."""
WIDTH = 200
"""Characters of a line that are shown: a picture's data is one line."""


class Updated(msgspec.Struct, frozen=True):
    """What became of one file of expectations."""

    file: Path
    """Of the sample; of the function's directory where the function cannot be loaded."""
    status: Literal["written", "changed", "same", "failed"]
    """`failed`: the function failed, or does something else each time; nothing was written."""
    told: str = ""
    """What changed, as a unified diff, or why nothing was written."""
    left_out: Sequence[str] = ()
    """What differs from call to call, and so is not expected: `outputs[0].data`."""


class _Kept(Exception):
    """A sample's expectation that stays as it is, and why."""


def update(function: Path) -> Iterator[Updated]:
    """Write what each of a function's samples is expected to do, beside it.

    What is expected already keeps its form: of an output that says only `type`, only `type` is
    renewed. A file in which one sample's call fails is left as it is. Raises OSError where a file
    cannot be written; the one before is then whole.
    """
    for file in sample_files(function):
        try:
            samples = read_samples(file, whole=False)
            pairs = [(sample, *_now(function, sample)) for sample in samples]
        except SampleInvalid as error:
            yield Updated(file, "failed", str(error))
        except _Kept as error:
            yield Updated(file, "failed", f"{error}\n{beside(file).name} is left as it is")
        except FuncrtError as error:
            yield Updated(function, "failed", str(error))
            return
        else:
            left_out = [
                f"{sample.name}: {each}" if len(samples) > 1 else each
                for sample, _, volatile in pairs
                for each in volatile
            ]
            yield _write(file, [expected for _, expected, _ in pairs], left_out)


def _now(function: Path, sample: Sample) -> tuple[dict[str, Any], list[str]]:
    """What is to be expected, and what is left out of it. Raises _Kept."""
    (first, trace), (second, later) = (_found(function, sample) for _ in range(2))
    (kind,) = first
    if "failure" in first or "failure" in second:
        if first == second == sample.expected:
            return first, []
        why = first.get("failure") or second["failure"]
        meant = json.dumps({"failure": why}, ensure_ascii=False)
        raise _Kept(
            f"{sample.name}: the function failed: {why}\n{trace or later}\n"
            f"Mend it; or, where it is to fail so, write {meant}"
        )
    made, again = _parts(first), _parts(second)
    if kind not in second or len(made) != len(again):
        did = f"{_short(first)}, then {_short(second)}"
        raise _Kept(f"{sample.name}: does something else in a second call: {did}")
    if kind == "filtered":
        return first, []
    said = _parts(sample.expected or {}) if kind in (sample.expected or {}) else []
    kept: list[dict[str, Any]] = []
    left_out: list[str] = []
    for at, (one, other) in enumerate(zip(made, again, strict=True)):
        wanted = said[at] if at < len(said) else None
        chosen, compared = _chosen(wanted, one), _chosen(wanted, other)
        where = f"outputs[{at}]" if kind == "outputs" else kind
        kept.append({key: each for key, each in chosen.items() if compared.get(key) == each})
        left_out += [f"{where}.{key}" for key in chosen if key not in kept[-1]]
    return {kind: kept if kind == "outputs" else kept[0]}, left_out


def _parts(what: dict[str, Any]) -> list[dict[str, Any]]:
    """The outputs, or the response as the only one."""
    return what.get("outputs") or [each for each in [what.get("response")] if each is not None]


def _found(function: Path, sample: Sample) -> tuple[dict[str, Any], str]:
    """What a fresh copy of the function makes of it, and the traceback where it fails."""
    loaded = load(function)
    try:
        outcome = msgspec.structs.replace(sample, expected=None).check(loaded)
        failed = outcome.failure if outcome is not None else None
        return found(outcome), failed.traceback if failed else ""
    except Mismatch as error:
        raise _Kept(f"{sample.name}: {error}") from None
    finally:
        loaded.close()


def _short(what: dict[str, Any]) -> str:
    ((kind, value),) = what.items()
    return f"{len(value)} outputs" if kind == "outputs" else kind


def _chosen(wanted: dict[str, Any] | None, one: dict[str, Any]) -> dict[str, Any]:
    """Of an output or a response what was said of it before; else its kind and its data."""
    keys = [*wanted] if wanted is not None else ["status", "type", *BODY]
    if any(key in BODY for key in keys):
        keys += [key for key in BODY if key not in keys]  # text has become bytes, or bytes text
    chosen = {key: one[key] for key in keys if key in one}
    if "headers" in chosen and wanted is not None:
        chosen["headers"] = like({"response": wanted}, {"response": one})["response"]["headers"]
    return chosen


def _write(file: Path, expected: Sequence[dict[str, Any]], left_out: Sequence[str]) -> Updated:
    target = beside(file)
    lines = file.suffix == ".jsonl"
    indent = None if lines else 2
    text = "".join(json.dumps(one, indent=indent, ensure_ascii=False) + "\n" for one in expected)
    before = ""
    if there := target.exists():
        before = target.read_text("utf-8-sig")
        with contextlib.suppress(SampleInvalid):  # it has lines too many, or too few
            if [sample.expected for sample in read_samples(file)] == list(expected):
                return Updated(file, "same", left_out=left_out)
    diff = difflib.unified_diff(
        before.splitlines(), text.splitlines(), target.name, "now", lineterm="", n=2
    )
    shown = "\n".join(each if len(each) <= WIDTH else f"{each[:WIDTH]}…" for each in diff)
    _replace(target, text)
    return Updated(file, "changed" if there else "written", shown, left_out)


def _replace(target: Path, text: str) -> None:
    """The file as it was, or all of the new one."""
    new = target.with_name(f".{target.name}.new")
    try:
        new.write_text(text, "utf-8")
        if target.exists():
            shutil.copymode(target, new)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
