"""What the logbook keeps, forgets, and tells its followers."""

import asyncio

import pytest

from funcrt import logbook
from funcrt.logbook import Line, Logbook


def line(text: str = "x", level: str = "info", at: float = 1.0, *events: str) -> Line:
    return Line(at, level, text, 7, "v1", events)


def texts(book: Logbook, name: str = "f", **which: object) -> list[str]:
    return [each.text for each in book.read(name, **{"last": 5000, **which})[0]]  # type: ignore[arg-type]


def test_lines_are_chosen_by_level_event_and_age_and_the_last_of_them_come() -> None:
    book = Logbook()
    book.add("f", line("a", "debug", 1.0, "1"))
    book.add("f", line("b", "stdout", 2.0, "1", "2"))
    book.add("f", line("c", "stderr", 3.0))
    book.add("f", line("d", "error", 4.0, "2"))
    book.add("g", line("other"))
    assert texts(book) == ["a", "b", "c", "d"]
    assert texts(book, level="info") == ["b", "c", "d"]
    assert texts(book, level="warning") == ["c", "d"]
    assert texts(book, event="2") == ["b", "d"]
    assert texts(book, since=3.0) == ["c", "d"]
    assert texts(book, last=1, event="1") == ["b"]
    assert texts(book, "nobody") == []


def test_memory_is_bounded_by_line_by_function_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Logbook()
    for n in range(logbook.LINES + 10):
        book.add("f", line(str(n)))
    found, forgotten = book.read("f", last=5000)
    assert (len(found), forgotten, found[0].text) == (logbook.LINES, 10, "10")
    for _ in range(100):
        book.add("g", line("x" * 1_000_000))
    assert len(texts(book, "g")) == logbook.BYTES // (logbook.TEXT + logbook.OVERHEAD)
    assert {len(text) for text in texts(book, "g")} == {logbook.TEXT}
    monkeypatch.setattr(logbook, "ALL_BYTES", 1 << 20)
    for n in range(50):
        for _ in range(10):
            book.add(f"many{n}", line("x" * 10_000))
    held = sum(book._books[name].bytes for name in book._books)
    assert held == book._bytes <= 1 << 20
    assert texts(book, "many49")


def test_a_follower_that_is_slow_is_told_how_much_it_missed() -> None:
    async def body() -> None:
        book = Logbook()
        book.add("f", line("before"))
        quick, slow = book.follow("f"), book.follow("f")
        book.add("f", line("now"))
        assert [each.text for each in (await quick.take(1.0))[0]] == ["now"]
        for n in range(logbook.FOLLOWED + 5):
            book.add("f", line(str(n)))
        lines, dropped = await slow.take(1.0)
        assert (len(lines), dropped) == (logbook.FOLLOWED, 6)
        assert await slow.take(0.01) == ([], 0)
        book.leave("f", slow)
        book.add("f", line("later"))
        assert await slow.take(0.01) == ([], 0)

    asyncio.run(body())
