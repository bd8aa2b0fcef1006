"""`python -m mesh.ledger FILE`: judge a ledger; 0 where every promise was kept, 1 where not."""

import argparse
import sys
from collections import Counter
from pathlib import Path

import msgspec

from mesh.ledger import file
from mesh.ledger.expectations import Expectations
from mesh.ledger.judge import judge
from mesh.ledger.violation import TITLES, Violation


def table(violations: list[Violation]) -> str:
    """Each invariant with the number of its violations, then each of those in a line."""
    counts = Counter(each.invariant for each in violations)
    rows = [
        f"{name:<4} {'broken' if counts[name] else 'kept':<7} {counts[name] or '':>5}  {title}"
        for name, title in TITLES.items()
    ]
    return "\n".join(rows + [str(each) for each in violations])


def main(arguments: list[str] | None = None) -> int:
    """Judge; 2 where there is nothing to judge by."""
    parser = argparse.ArgumentParser(prog="mesh.ledger", description=__doc__)
    parser.add_argument("file", type=Path, help="what mesh.ledger.recorder wrote")
    parser.add_argument("--expect", type=Path, help="expectations as JSON, instead of the file's")
    parser.add_argument("--most", type=int, default=20, help="violations shown of each invariant")
    parser.add_argument("--json", action="store_true", help="one violation a line")
    options = parser.parse_args(arguments)
    try:
        if options.expect:
            body = options.expect.read_bytes()
            expected: Expectations | None = msgspec.json.decode(body, type=Expectations)
        else:
            expected = file.expectations(options.file)
        if expected is None:
            raise ValueError(f"{options.file}: it holds no expectations; give some with --expect")
        found = judge(file.entries(options.file), expected, most=options.most)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        for each in found:
            print(msgspec.json.encode(each).decode())
    else:
        print(table(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
