"""CESQL text to its tree: a scanner, and a parser by precedence.

Source: CloudEvents SQL 1.0.0, §2 and §3.6, and its ANTLR grammar (CESQLParser.g4), which says what
the prose leaves open: AND, OR and XOR share one precedence and group to the right (the prose has
"left to right"; all SDKs are made from the grammar); upper case is allowed in an identifier, and
then names no attribute; a doubled quote in a string stands for one. Where the grammar would read
`1 +2` as two integers and refuse it, the sign is an operator here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from triggers.cesql.errors import ParseError

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "Attribute",
    "Binary",
    "Call",
    "Exists",
    "In",
    "Like",
    "Literal",
    "Logic",
    "Node",
    "Unary",
    "Value",
    "parse",
    "parts",
]

MAX_BYTES = 2048
"""Of an expression, in UTF-8."""
MAX_DEPTH = 32
"""Of parentheses, arguments and unary operators in each other."""

Value = str | int | bool


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    value: Value


@dataclass(frozen=True, slots=True)
class Attribute:
    """The value of an attribute."""

    name: str


@dataclass(frozen=True, slots=True)
class Exists:
    """Whether an attribute is there."""

    name: str


@dataclass(frozen=True, slots=True)
class Unary:
    """`NOT x` or `-x`."""

    operator: str
    operand: "Node"


@dataclass(frozen=True, slots=True)
class Binary:
    """A comparison or arithmetic."""

    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Logic:
    """`a AND b OR c`: the operands, and the operators between them; it groups to the right."""

    operands: "tuple[Node, ...]"
    operators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """`x LIKE pattern`; the pattern is the literal with its escapes."""

    operand: "Node"
    pattern: str
    negated: bool


@dataclass(frozen=True, slots=True)
class In:
    """`x IN (a, b)`."""

    operand: "Node"
    items: "tuple[Node, ...]"
    negated: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function's value; its name in upper case."""

    name: str
    arguments: "tuple[Node, ...]"


Node = Literal | Attribute | Exists | Unary | Binary | Logic | Like | In | Call


def parts(node: Node) -> Iterator[Node]:
    """A tree's nodes, the root first."""
    yield node
    match node:
        case Unary(_, operand) | Like(operand):
            below: tuple[Node, ...] = (operand,)
        case Binary(_, left, right):
            below = (left, right)
        case Logic(operands):
            below = operands
        case In(operand, items):
            below = (operand, *items)
        case Call(_, arguments):
            below = arguments
        case _:
            below = ()
    for part in below:
        yield from parts(part)


_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
    (?P<word>[A-Za-z0-9][A-Za-z0-9_]*)
    |(?P<string>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")
    |(?P<sign><>|<=|>=|!=|[-+*/%=<>(),])
    |(?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_COMPARISONS = frozenset(("=", "!=", "<>", "<", "<=", ">", ">="))
_LOGIC = frozenset(("AND", "OR", "XOR"))
_KEYWORDS = _LOGIC | {"NOT", "LIKE", "EXISTS", "IN", "TRUE", "FALSE"}
_LEVELS = (_COMPARISONS, frozenset("+-"), frozenset("*/%"))
"""Binary operators that group to the left, those that bind least first."""


class _Token(NamedTuple):
    kind: str
    """`word`, `number`, `keyword`, `string`, `sign` or `end`."""
    text: str
    at: int


def _scan(text: str) -> list[_Token]:
    tokens = []
    at = 0
    while True:
        found = _TOKEN.match(text, at)
        if found is None:
            start = at + len(text[at:]) - len(text[at:].lstrip(" \t\r\n"))
            what = "a string that does not end" if text[start] in "'\"" else repr(text[start])
            raise ParseError(f"unexpected {what}", start)
        kind, at = found.lastgroup or "end", found.end()
        word = found.group(kind)
        if kind == "word" and word.isdecimal():
            kind = "number"
        elif kind == "word" and word.upper() in _KEYWORDS:
            kind, word = "keyword", word.upper()
        tokens.append(_Token(kind, word, found.start(found.lastgroup or "end")))
        if kind == "end":
            return tokens


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.next = 0
        self.depth = 0

    def peek(self, *texts: str) -> bool:
        """Whether the next token is one of these signs or keywords."""
        token = self.tokens[self.next]
        return token.kind in ("sign", "keyword") and token.text in texts

    def take(self) -> _Token:
        token = self.tokens[self.next]
        self.next += 1
        return token

    def need(self, text: str) -> None:
        if not self.peek(text):
            raise self.wrong(f"expected {text!r}")
        self.next += 1

    def wrong(self, expected: str) -> ParseError:
        token = self.tokens[self.next]
        found = "the end" if token.kind == "end" else repr(token.text)
        return ParseError(f"{expected}, found {found}", token.at)

    def expression(self) -> Node:
        """Operands of AND, OR and XOR."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ParseError(f"nested more than {MAX_DEPTH} deep", self.tokens[self.next].at)
        operands, operators = [self.level(0)], []
        while self.peek(*_LOGIC):
            operators.append(self.take().text)
            operands.append(self.level(0))
        self.depth -= 1
        return Logic(tuple(operands), tuple(operators)) if operators else operands[0]

    def level(self, level: int) -> Node:
        """A chain of binary operators that bind as level `level` of _LEVELS."""
        if level == len(_LEVELS):
            return self.matched()
        left = self.level(level + 1)
        while self.peek(*_LEVELS[level]):
            operator = self.take().text
            left = Binary("!=" if operator == "<>" else operator, left, self.level(level + 1))
        return left

    def matched(self) -> Node:
        """An operand with its LIKE and IN."""
        operand = self.unary()
        while True:
            if self.peek("NOT"):
                self.next += 1
                if not self.peek("LIKE", "IN"):
                    raise self.wrong("expected LIKE or IN after NOT")
                negated = True
            elif self.peek("LIKE", "IN"):
                negated = False
            else:
                return operand
            if self.take().text == "LIKE":
                if self.tokens[self.next].kind != "string":
                    raise self.wrong("expected a string literal after LIKE")
                operand = Like(operand, _unquoted(self.take().text), negated)
            else:
                self.need("(")
                operand = In(operand, self.listed(), negated)

    def unary(self) -> Node:
        if not self.peek("NOT", "-"):
            return self.primary()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ParseError(f"nested more than {MAX_DEPTH} deep", self.tokens[self.next].at)
        operator = self.take().text
        operand: Node
        if operator == "-" and self._touching("number"):
            operand = self.integer(-1)
        else:
            operand = Unary(operator, self.unary())
        self.depth -= 1
        return operand

    def primary(self) -> Node:
        if self.peek("("):
            self.next += 1
            inner = self.expression()
            self.need(")")
            return inner
        if self.peek("+"):
            self.next += 1
            if not self._touching("number"):
                raise self.wrong("expected digits right after '+'")
            return self.integer(1)
        token = self.tokens[self.next]
        if token.kind == "number":
            return self.integer(1)
        if token.kind == "string":
            self.next += 1
            return Literal(_unquoted(token.text))
        if self.peek("TRUE", "FALSE"):
            return Literal(self.take().text == "TRUE")
        if self.peek("EXISTS"):
            self.next += 1
            return Exists(self.identifier())
        if token.kind == "word" and self.tokens[self.next + 1][:2] == ("sign", "("):
            return self.call()
        return Attribute(self.identifier())

    def _touching(self, kind: str) -> bool:
        """Whether the next token is of that kind, with nothing between it and the last."""
        last, token = self.tokens[self.next - 1], self.tokens[self.next]
        return token.kind == kind and token.at == last.at + len(last.text)

    def integer(self, sign: int) -> Literal:
        token = self.take()
        value = sign * int(token.text) if len(token.text) <= 20 else 2**31
        if not -(2**31) <= value < 2**31:
            raise ParseError(f"{token.text[:20]} is beyond 32 bits", token.at)
        return Literal(value)

    def identifier(self) -> str:
        token = self.tokens[self.next]
        if token.kind not in ("word", "number") or "_" in token.text:
            raise self.wrong("expected a value or an attribute's name")
        self.next += 1
        return token.text

    def call(self) -> Call:
        token = self.take()
        if any(letter.isdecimal() for letter in token.text):
            raise ParseError(f"{token.text!r} is no function's name", token.at)
        self.next += 1
        if self.peek(")"):
            self.next += 1
            return Call(token.text.upper(), ())
        return Call(token.text.upper(), self.listed())

    def listed(self) -> tuple[Node, ...]:
        """Expressions up to the closing parenthesis, at least one."""
        items = [self.expression()]
        while self.peek(","):
            self.next += 1
            items.append(self.expression())
        self.need(")")
        return tuple(items)


def _unquoted(text: str) -> str:
    """A string literal's value: its own quote is escaped or doubled, and no other escape is one
    (LIKE has two of its own)."""
    quote = text[0]
    return re.sub(
        rf"\\(.)|{quote}{quote}",
        lambda found: found[0] if found[1] and found[1] != quote else quote,
        text[1:-1],
        flags=re.DOTALL,
    )


def parse(text: str) -> Node:
    """An expression's tree. Raises ParseError."""
    if len(text) > MAX_BYTES or len(text.encode(errors="replace")) > MAX_BYTES:
        raise ParseError(f"longer than {MAX_BYTES} bytes", MAX_BYTES)
    parser = _Parser(_scan(text))
    tree = parser.expression()
    if parser.tokens[parser.next].kind != "end":
        raise parser.wrong("expected an operator or the end")
    return tree
