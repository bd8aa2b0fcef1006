"""The secrets of one instance, and taking them out of all that it says before anybody keeps it.

A value is found as it is, as JSON, a Python literal or a URL writes it, and line by line; at the
ends of a text its beginning or its end, too, for texts are cut to fit. What a function makes of a
value otherwise (base64, a hash, a part of it) is not known here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote, quote_plus

import msgspec

from funcrt.sandbox.protocol import Failure, FromInstance, Item, Log, Result, Started

__all__ = ["NO_SECRETS", "SHORTEST", "Secrets"]

SHORTEST = 6
"""Characters of a value, or of a part of it, that is looked for: fewer are found in any text."""
Span = tuple[int, int, str]


class Secrets:
    """Values by name."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = dict(values)
        found = {form: name for name, value in values.items() for form in _forms(value)}
        self._forms = sorted(found.items(), key=lambda each: -len(each[0]))

    def __repr__(self) -> str:
        return f"<Secrets {', '.join(self.values)}>"

    def __bool__(self) -> bool:
        return bool(self.values)

    def text(self, text: str) -> str:
        """The text with `[secret NAME]` in the place of each value."""
        spans = [span for form, name in self._forms for span in _spans(text, form, name)]
        if not spans:
            return text
        made, done = [], 0
        for start, end, name in sorted(spans):
            if start >= done:
                made += [text[done:start], f"[secret {name}]"]
            done = max(done, end)
        return "".join([*made, text[done:]])

    def clean(self, messages: Sequence[FromInstance]) -> Sequence[FromInstance]:
        """What an instance says, without its secrets in lines and failures. What its function
        returns is left as it is."""
        return [self._clean(message) for message in messages] if self.values else messages

    def _clean(self, message: FromInstance) -> FromInstance:
        if isinstance(message, Log):
            return msgspec.structs.replace(message, text=self.text(message.text))
        if isinstance(message, Result) and (message.failure is not None or message.items):
            items = message.items and [self._item(item) for item in message.items]
            failure = message.failure and self.failure(message.failure)
            return msgspec.structs.replace(message, failure=failure, items=items)
        if isinstance(message, Started) and message.failure is not None:
            return Started(self.failure(message.failure))
        return message

    def _item(self, item: Item) -> Item:
        if item.failure is None:
            return item
        return msgspec.structs.replace(item, failure=self.failure(item.failure))

    def failure(self, why: Failure) -> Failure:
        """A failure without them."""
        return Failure(*(self.text(part) for part in msgspec.structs.astuple(why)))


NO_SECRETS = Secrets({})


def _forms(value: str) -> Iterator[str]:
    """What a value may look like."""
    whole = value.strip()
    written = (json.dumps(whole)[1:-1], json.dumps(whole, ensure_ascii=False)[1:-1])
    both = whole + "'\""  # where both quotes are in a literal, one of them is escaped
    literals = [repr(whole.encode())[2:-1]]
    literals += [made(each)[1:-1] for made in (repr, ascii) for each in (whole, both)]
    literals = [each.removesuffix("\\'\"") for each in literals]
    urls = (quote(whole), quote(whole, safe=""), quote_plus(whole))
    for form in (whole, *whole.split("\n"), *written, *literals, *urls):
        if len(form.strip()) >= SHORTEST:
            yield form.strip()


def _spans(text: str, form: str, name: str) -> Iterator[Span]:
    """Where a form is, and what may be a part of it at the ends."""
    at = text.find(form)
    while at >= 0:
        yield at, at + len(form), name
        at = text.find(form, at + 1)
    # The end of a text that was cut in the middle of a character is not the value's.
    end = len(text.rstrip("\ufffd"))
    at = text.find(form[:SHORTEST], max(end - len(form) + 1, 0), end)
    while at >= 0:
        if form.startswith(text[at:end]):
            yield at, len(text), name
            break
        at = text.find(form[:SHORTEST], at + 1, end)
    start = len(text) - len(text.lstrip("\ufffd"))
    at = text.rfind(form[-SHORTEST:], start, start + len(form) - 1)
    while at >= 0:
        if form.endswith(text[start : at + SHORTEST]):
            yield 0, at + SHORTEST, name
            break
        at = text.rfind(form[-SHORTEST:], start, at + SHORTEST - 1)
