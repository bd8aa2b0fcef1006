"""Where each key of a TOML document stands. `tomllib` gives values without positions.

The scanner trusts that `tomllib` has accepted the text: it tells keys from strings and comments,
and counts lines, but judges nothing.
"""

import codecs
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from funcrt.errors import ManifestError, Problem

__all__ = ["KeyPath", "locate", "read_toml", "show"]

MAX_BYTES = 256 << 10
"""A longer file is refused: it is read before anything is known about it."""

KeyPath = tuple[str | int, ...]
"""Keys from the top of the document; an integer is an index into an array."""

_PLAINER = {
    "cannot overwrite a value": "a key that is set already",
    "illegal character '\\n'": "a string without its closing quote",
}
"""tomllib's words -> what the author sees."""
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"[A-Za-z0-9_-]+|\"(?:[^\"\\]|\\.)*\"|'[^']*'")
_STRING = re.compile(
    # A multi-line string may end in up to two quotes of its own before the three that close it.
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")


def read_toml(file: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """What a TOML file says, and the line of each key. No file is an empty one.

    A BOM and Windows line ends are taken. Raises ManifestError with one problem, with its line
    where that is known.
    """
    return _parse(str(file), _read(file))


def locate(text: str) -> dict[KeyPath, int]:
    """KeyPath -> line (from 1) of every key, table and array element of a valid document.

    A table that was opened more than once, or only implied (`[a.b]` for `a`), has the line of its
    first mention. What a text that `tomllib` refuses gives is not defined.
    """
    return _Scanner(text).scan()


def show(path: KeyPath) -> str:
    """The path as messages write it: `trigger[0].filters`; other keys are quoted."""
    parts: list[str] = []
    for key in path:
        if isinstance(key, int):
            parts.append(f"[{key}]")
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", key, re.ASCII)
            parts.append(("." if parts else "") + (key if bare else repr(key)))
    return "".join(parts)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self.counted = (0, 1)
        """A position, and the line it is on."""
        self.tables: dict[KeyPath, int] = {}
        """Arrays of tables (`[[x]]`) and how many there are so far."""

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._peek():
            if self._take("[["):
                table = self._header(array=True)
            elif self._take("["):
                table = self._header(array=False)
            else:
                self._pair(table)
        return self.lines

    def _peek(self) -> str:
        """Skip blanks, line ends and comments; the next character, or "" at the end."""
        blank = _BLANK.match(self.text, self.at)
        self.at = blank.end() if blank else self.at
        return self.text[self.at : self.at + 1]

    def _take(self, token: str) -> bool:
        found = self.text.startswith(token, self.at)
        self.at += len(token) if found else 0
        return found

    def _note(self, path: KeyPath) -> None:
        at, line = self.counted
        line += self.text.count("\n", at, self.at)
        self.counted = (self.at, line)
        self.lines.setdefault(path, line)

    def _keys(self) -> Iterator[str]:
        """The parts of a dotted key; stands before each while it is given out."""
        while True:
            self._peek()
            match = _KEY.match(self.text, self.at)
            if match is None:
                raise ValueError(f"no key at position {self.at}")
            raw = match.group()
            yield tomllib.loads(f"key = {raw}")["key"] if raw[0] in "\"'" else raw
            self.at = match.end()
            self._peek()
            if not self._take("."):
                return

    def _header(self, *, array: bool) -> KeyPath:
        path: KeyPath = ()
        for key in self._keys():
            if path in self.tables:  # only the last part of a header opens a new element
                path = (*path, self.tables[path] - 1)
            path = (*path, key)
            self._note(path)
        if array:
            self.tables[path] = self.tables.get(path, 0) + 1
            path = (*path, self.tables[path] - 1)
            self._note(path)
        self._peek()
        self._take("]]" if array else "]")
        return path

    def _pair(self, table: KeyPath) -> None:
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path)
        self._take("=")
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        first = self._peek()
        if first == "[":
            self._array(path)
        elif first == "{":
            self.at += 1
            while self._peek() != "}":
                self._pair(path)
                self._peek()
                self._take(",")
            self.at += 1
        else:
            match = (_STRING if first in "\"'" else _SCALAR).match(self.text, self.at)
            if match is None:
                raise ValueError(f"no value at position {self.at}")
            self.at = match.end()

    def _array(self, path: KeyPath) -> None:
        self.at += 1
        index = 0
        while self._peek() != "]":
            self._note((*path, index))
            self._value((*path, index))
            index += 1
            self._peek()
            self._take(",")
        self.at += 1


def _read(file: Path) -> str:
    """The file's text, its BOM and Windows line ends gone; "" where there is no file."""
    try:
        with file.open("rb") as opened:
            body = opened.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            problem = Problem(file=str(file), message=f"longer than {MAX_BYTES >> 10} KiB")
            raise ManifestError([problem])
        return body.decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{body[error.start]:02x}"
        if body[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            found = "UTF-16"
        message = f"expected UTF-8, found {found}; save the file as UTF-8"
        raise ManifestError([Problem(file=str(file), line=line, message=message)]) from None
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise ManifestError([Problem(file=str(file), message=message)]) from None


def _parse(file: str, text: str) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    try:
        return tomllib.loads(text), locate(text)
    except RecursionError:
        raise ManifestError([Problem(file=file, message="nested too deeply")]) from None
    except tomllib.TOMLDecodeError as error:
        raise ManifestError([_syntax(file, text, str(error))]) from None
    except ValueError:  # of int(), which limits digits
        message = "not TOML: a number of more than 4300 digits"
        raise ManifestError([Problem(file=file, message=message)]) from None


def _syntax(file: str, text: str, error: str) -> Problem:
    """A syntax error in our words, from `Invalid value (at line 3, column 5)`."""
    reason, _, place = error.removesuffix(")").partition(" (at ")
    reason = reason[:1].lower() + reason[1:]
    reason = _PLAINER.get(reason, reason)
    lines = text.split("\n")
    found = re.fullmatch(r"line (\d+), column (\d+)", place)
    if found is None:
        message = f"not TOML: {reason}" + (f" ({place})" if place else "")
        return Problem(file=file, line=len(lines) if place else None, message=message)
    line, column = int(found[1]), int(found[2])
    if reason == "invalid value":
        rest = lines[line - 1][column - 1 :].strip()
        reason = "expected a value"
        reason += f", found {rest[:40]}; strings need quotes" if rest else ""
    if reason.startswith("expected newline") and "=" in lines[line - 1]:
        value = lines[line - 1].partition("=")[2].strip()
        reason = f"expected one value, found {value[:40]}; strings need quotes"
    return Problem(file=file, line=line, message=f"not TOML: {reason} (column {column})")
