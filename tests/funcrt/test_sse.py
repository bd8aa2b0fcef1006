"""Topics tailed over HTTP by server-sent events, from a real host."""

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from funcrt.gateway import tail
from tests.funcrt.gateway_fakes import gateway
from tests.funcrt.test_gateway_call import run
from tests.serving import Serving

CE = {"ce-specversion": "1.0", "ce-source": "/s", "content-type": "application/json"}
SSE = {"accept": "text/event-stream"}
NOTHING = "def handler(event): pass"


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    one = Serving(tmp_path / "data", none=NOTHING)
    yield one
    if one.process.poll() is None:
        one.stop(signal.SIGKILL)


def publish(url: str, *numbers: int, kind: str = "n", size: int = 0) -> None:
    for number in numbers:
        headers = {**CE, "ce-id": str(number), "ce-type": kind}
        body = json.dumps({"n": number, "pad": "x" * size})
        assert (
            httpx.post(f"{url}/topics/t/events", headers=headers, content=body).status_code == 202
        )


def events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, event) of each, as a browser reads them."""
    assert answer.status_code == 200, answer.read()
    assert answer.headers["content-type"] == "text/event-stream"
    last, data = "", ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            last = value
        elif name == "data":
            data = value
        elif not line and data:
            yield last, json.loads(data)
            data = ""


def test_a_tail_is_resumed_exactly_over_a_kill_of_the_host(
    serving: Serving, tmp_path: Path
) -> None:
    publish(serving.url, *range(5))
    url = f"{serving.url}/topics/t/events?from=earliest"
    got, last = [], ""
    with httpx.stream("GET", url, headers=SSE, timeout=20) as answer:
        more = threading.Timer(0.3, publish, (serving.url, *range(5, 8)))
        more.start()
        found = events(answer)
        while len(got) < 7:
            last, event = next(found)
            got.append(event["data"]["n"])
        more.join()
    serving.stop(signal.SIGKILL)
    after = Serving(tmp_path / "data", none=NOTHING)
    try:
        publish(after.url, 8)
        # `from` is what the browser asked for at first; the last id counts.
        url, headers = f"{after.url}/topics/t/events?from=earliest", {**SSE, "last-event-id": last}
        with httpx.stream("GET", url, headers=headers, timeout=20) as answer:
            for _, event in events(answer):
                got.append(event["data"]["n"])
                if len(got) == 9:
                    break
        assert got == [*range(9)]
    finally:
        assert after.stop(signal.SIGTERM) == 0


def test_it_ends_whole_when_the_host_drains(serving: Serving) -> None:
    publish(serving.url, 1)
    url = f"{serving.url}/topics/t/events?from=earliest"
    with httpx.stream("GET", url, headers=SSE, timeout=20) as answer:
        found = events(answer)
        assert next(found)[1]["id"] == "1"
        started = time.monotonic()
        serving.process.send_signal(signal.SIGTERM)
        assert list(found) == []  # a response that was cut off would raise
    assert serving.ended() == 0
    assert time.monotonic() - started < 15  # and not after the drain's 30 s


def test_a_client_that_reads_nothing_costs_no_memory_and_no_other_waits(serving: Serving) -> None:
    publish(serving.url, *range(40), size=900_000)

    def resident() -> int:
        text = Path(f"/proc/{serving.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) * 1024

    before = resident()
    slow = []
    for _ in range(8):
        client = socket.create_connection(("127.0.0.1", serving.port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(
            b"GET /topics/t/events?from=earliest HTTP/1.1\r\nHost: localhost\r\n"
            b"Accept: text/event-stream\r\n\r\n"
        )
        slow.append(client)
    url = f"{serving.url}/topics/t/events?from=earliest"
    with httpx.stream("GET", url, headers=SSE, timeout=30) as answer:
        found = events(answer)
        assert [next(found)[1]["data"]["n"] for _ in range(40)] == [*range(40)]
    # Eight times the 36 MB of the topic would be 288.
    assert resident() - before < 150 << 20
    for client in slow:
        client.close()


def test_types_and_starts() -> None:
    async def test() -> None:
        async with gateway() as (_, client):
            for number, kind in enumerate(("a", "b", "a", "c"), 1):
                headers = {**CE, "ce-id": str(number), "ce-type": kind}
                await client.post("/topics/t/events", headers=headers, content=b"1")

            async def first(query: str, **headers: str) -> str:
                async with client.stream(
                    "GET", f"/topics/t/events?{query}", headers={**SSE, **headers}
                ) as answer:
                    assert answer.status_code == 200
                    async for line in answer.aiter_lines():
                        if line.startswith("data: "):
                            return json.loads(line[6:])["id"]
                raise AssertionError("it ended")

            assert await first("from=earliest&type=b&type=c") == "2"
            page = (await client.get("/topics/t/events?from=earliest")).json()["events"]
            assert await first("", **{"last-event-id": page[2]["position"]}) == "4"
            assert await first(f"from=@{page[1]['position']}&type=a") == "3"
            for query, headers in (
                ("from=@x", {}),
                *(("", {"last-event-id": last}) for last in ("a b", "@abc", b"\xb2", "9" * 5000)),
            ):
                wrong = await client.get(f"/topics/t/events?{query}", headers={**SSE, **headers})
                assert wrong.status_code == 400
                assert wrong.headers["content-type"] == "application/problem+json"
                if headers:
                    assert "is no number of at most 18 digits, such as @12" in wrong.text

    run(test())


def test_a_comment_keeps_it_alive_and_an_id_goes_with_what_was_left_out(monkeypatch) -> None:
    monkeypatch.setattr(tail, "KEEPALIVE_S", 0.1)

    async def test() -> None:
        async with gateway() as (_, client):
            url = "/topics/t/events?from=earliest&type=b"
            async with client.stream("GET", url, headers=SSE) as answer:
                lines = answer.aiter_lines()
                assert [await anext(lines) for _ in range(4)] == ["retry: 1000", "", ":", ""]
                headers = {**CE, "ce-id": "1", "ce-type": "a"}
                (row,) = (
                    await client.post("/topics/t/events", headers=headers, content=b"1")
                ).json()["receipts"]
                while not (line := await anext(lines)).startswith("id"):
                    assert line in ("", ":")
                assert line == f"id: {row['position']}"

    run(test())


def test_no_more_than_so_many_and_a_client_that_leaves_makes_room() -> None:
    async def test() -> None:
        async with gateway(tails=2) as (_, client):
            async with (
                client.stream("GET", "/topics/t/events", headers=SSE) as one,
                client.stream("GET", "/topics/t/events", headers=SSE) as other,
            ):
                assert (one.status_code, other.status_code) == (200, 200)
                third = await client.get("/topics/t/events", headers=SSE)
                assert (third.status_code, third.json()["type"]) == (
                    429, "urn:funcrt:problem:admission",
                )  # fmt: skip
                assert "retry-after" in third.headers
            for _ in range(100):
                async with client.stream("GET", "/topics/t/events", headers=SSE) as again:
                    if again.status_code == 200:
                        return
            raise AssertionError("there was no room again")

    run(test())


def test_topics_come_in_pages() -> None:
    async def test() -> None:
        async with gateway() as (_, client):
            headers = {**CE, "ce-id": "1", "ce-type": "a"}
            for name in ("c", "a", "e", "b", "d"):
                await client.post(f"/topics/{name}/events", headers=headers, content=b"1")
            found, after = [], ""
            while after is not None:
                page = (await client.get(f"/topics?limit=2&after={after}")).json()
                found.append([*page["topics"]])
                after = page["next"]
            assert found == [["a", "b"], ["c", "d"], ["e"]]
            assert (await client.get("/topics?limit=1001")).status_code == 400

    run(test())
