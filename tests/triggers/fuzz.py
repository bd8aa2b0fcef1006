"""`python -m tests.triggers.fuzz [--inputs N] [--seed S]`: random filters, patterns, expressions
and events, of which none may raise, and of which every matcher must say the same.

An input is one filter against one event. Exit code 1, with the input, where something is wrong.
"""

import argparse
import json
import random
import sys
import time
from typing import Any

import triggers
from mesh import Event
from triggers import Index, cesql

WORDS = ["", "a", "b", "ab", "aba", "A", "1", "7", "true", "x.y", "10.0.0.1", "::1", "é", "*", "\\"]
NAMES = ["type", "subject", "n", "flag", "data", "a", "b", "$or", "TYPE", ""]
TOKENS = [
    *NAMES, "'a'", "'%b_'", '"x"', "7", "-1", "2147483648", "TRUE", "false", "(", ")", ",", "+",
    "-", "*", "/", "%", "=", "!=", "<>", "<", ">=", "AND", "OR", "XOR", "NOT", "LIKE", "IN",
    "EXISTS",
    "LENGTH(", "LEFT(", "SUBSTRING(", "CONCAT(", "INT(", "'", "\\", "$",
]  # fmt: skip
PATHS = [
    "$",
    "$.a",
    "$.a.b",
    "$['a']",
    "$.a[0]",
    "$.a[*].b",
    "$..b",
    "$.a[?@.b > 1]",
    "a",
    "$.",
    "$[",
]


class Chance:
    """Random inputs, right and wrong."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def scalar(self) -> Any:
        pick = self.random.choice
        return pick([None, True, False, 0, 1, 7, -1, 2.5, 1e300, 10**30, *WORDS])

    def value(self, depth: int = 0) -> Any:
        kind = self.random.random()
        if depth > 3 or kind < 0.5:
            return self.scalar()
        if kind < 0.7:
            return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
        return {self.random.choice("abcn"): self.value(depth + 1) for _ in range(3)}

    def test(self) -> Any:
        operator = self.random.choice(
            ["prefix", "suffix", "wildcard", "equals-ignore-case", "cidr", "exists", "anything-but",
             "numeric", "", "value", "value", "value"]
        )  # fmt: skip
        if operator == "value":
            return self.scalar()
        if operator == "numeric":
            signs = [self.random.choice(["<", ">", "<=", ">=", "="]) for _ in range(2)]
            return {operator: [part for sign in signs for part in (sign, self.random.randrange(9))]}
        return {operator: self.random.choice([self.value(2), *WORDS])}

    def pattern(self, depth: int = 0) -> Any:
        table: dict[str, Any] = {}
        for _ in range(self.random.randrange(1, 3)):
            key = self.random.choice(["a", "b", "n", "type", "data"])
            if depth < 3 and self.random.random() < 0.35:
                table[key] = self.pattern(depth + 1)
            else:
                table[key] = [self.test() for _ in range(self.random.randrange(1, 3))]
        if self.random.random() < 0.1:
            table["$or"] = [self.pattern(depth + 1) for _ in range(2)]
        return table

    def dialect(self, depth: int = 0) -> Any:
        name = self.random.choice(["exact", "prefix", "suffix", "all", "any", "not", "sql"])
        if name in ("all", "any"):
            return {name: [self.dialect(depth + 1) for _ in range(2)]} if depth < 4 else {name: []}
        if name == "not":
            return {name: self.dialect(depth + 1) if depth < 4 else {}}
        if name == "sql":
            return {name: self.expression()}
        return {name: {self.random.choice(NAMES): self.random.choice(WORDS)}}

    def expression(self) -> str:
        return " ".join(self.random.choices(TOKENS, k=self.random.randrange(1, 9)))

    def condition(self) -> Any:
        operators = [*triggers.jsonpath.OPERATORS, "=~"]
        return {
            "path": self.random.choice(PATHS), "op": self.random.choice(operators),
            "value": self.value(2),
        }  # fmt: skip

    def spec(self) -> dict[str, Any]:
        kind = self.random.random()
        if kind < 0.4:
            return {"pattern": self.pattern()}
        if kind < 0.8:
            return {"filters": [self.dialect() for _ in range(self.random.randrange(3))]}
        return {"jsonpath": [self.condition()]}

    def event(self) -> Event:
        body = json.dumps(self.value()).encode()
        if self.random.random() < 0.1:
            body = self.random.choice([b"", b"{", b"[" * 600, b"\xff", body[: len(body) // 2]])
        extensions = {
            name: self.random.choice([7, -1, True, False, "7", "a", ""])
            for name in ("n", "flag", "a")
            if self.random.random() < 0.5
        }
        subject = self.random.choice([None, "ab", "aba", "x"])
        data = None if self.random.random() < 0.05 else body
        type = self.random.choice(["a", "ab", "x.y"])
        return Event("1", "/s", type, subject, extensions=extensions, data=data)


def check(chance: Chance) -> int:
    """Up to twenty filters that are not refused and twenty events, all against all; how many inputs
    that were. Raises what should not have been raised."""
    index: Index[int] = Index()
    filters: dict[int, triggers.Filter] = {}
    for number in range(20):
        try:
            filters[number] = triggers.parse(chance.spec())
        except triggers.FilterError:
            continue
        list(filters[number].warnings())
        index.add(number, filters[number])
    for number in chance.random.sample(sorted(filters), len(filters) // 4):
        index.remove(number)
        del filters[number]
    for _ in range(20):
        event = chance.event()
        matching = {number for number, one in filters.items() if one.matches(event)}
        assert index.match(event) == matching, (event, matching)
        for number, one in filters.items():
            assert one.explain(event).holds is (number in matching), (event, one)
        value, _ = cesql.evaluate(chance.expression(), event)
        assert type(value) in {bool, int, str}
    return 20 * len(filters)


def main() -> int:
    """Go on until so many inputs were tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.triggers.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    began, tried, seed = time.monotonic(), 0, asked.seed
    while tried < asked.inputs:
        try:
            tried += check(Chance(seed))
        except Exception:
            print(f"seed {seed} (after {tried} inputs):", file=sys.stderr)
            raise
        seed += 1
    print(f"{tried:,} inputs, seeds {asked.seed} to {seed - 1}: {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
