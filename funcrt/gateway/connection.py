"""One HTTP connection: uvicorn's protocol with the limits and timeouts that it does not have.

uvicorn's httptools protocol bounds neither the size of a request's head, nor trailers, nor how many
requests a client may send ahead, nor the time that any of it takes.
"""

from collections.abc import Sequence
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from funcrt.gateway.limits import GatewayConfig, Send
from funcrt.gateway.problem import HttpProblem, retry_after

__all__ = ["Connection", "answered"]

Headers = Sequence[tuple[bytes, bytes]]

SLICE = 4096
"""Bytes parsed at once: about as many requests may be parsed ahead as it holds."""
SPARED_UNUSED_S = 0.05
"""To make room, a connection is ended that has sent nothing for longer than this,"""
SPARED_S = 1.0
"""or nothing for longer than this since its last request or within a head,"""
SPARED_BODY_S = 5.0
"""or within a body."""
RAW_FACTOR = 4
"""Bytes on the wire for a byte of the largest body: chunks of a byte, endless extensions."""
MOST_TOGETHER = 1 << 16
LINGER_S = 2.0
"""How long a client that was refused may go on sending before its connection is cut."""


class _Together:
    """A transport that sends what is written in one turn of the loop, a response's head and its
    body, with one system call."""

    def __init__(self, transport: Any, loop: Any) -> None:
        self._transport = transport
        self._loop = loop
        self.is_closing = transport.is_closing  # asked for with every response
        self._parts: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > MOST_TOGETHER:
            self._flush()

    def _flush(self) -> None:
        if self._parts:
            data, self._parts, self._size = b"".join(self._parts), [], 0
            self._transport.write(data)

    def get_write_buffer_size(self) -> int:
        return self._size + int(self._transport.get_write_buffer_size())

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()


def answered(send: Send, status: int, headers: Headers, body: bytes) -> bool:
    """Send a response that is whole, `headers` naming its length, with one call: uvicorn's two
    look at each header by itself, which takes longer than reading an event. False where it was
    not sent, as all but the common case is uvicorn's to send."""
    cycle = getattr(send, "__self__", None)
    if (
        not isinstance(cycle, RequestResponseCycle)
        or cycle.response_started
        or cycle.disconnected
        or not cycle.keep_alive
        or cycle.flow.write_paused
        or cycle.scope["method"] == "HEAD"
    ):
        return False
    lines = [STATUS_LINE[status]]
    lines += [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
    head = b"".join(lines)
    # What a function returned splits no response.
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"%b\r\n%b" % (head, body))
    cycle.message_event.set()
    cycle.on_response()
    return True


class Connection(HttpToolsProtocol):
    """One connection, with the limits that uvicorn leaves out."""

    settings: GatewayConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.in_head = True
        self.head_size = 0
        self.piece = 0
        self.since = self.loop.time()  # the head began, or a piece of a body came
        self.began = self.since  # the head was whole
        self.raw = 0
        self.held = b""
        self.running: RequestResponseCycle | None = None
        self.unsent = 0
        self.moved = self.since
        self.refused: HttpProblem | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(_Together(transport, self.loop))  # type: ignore[arg-type]
        if len(self.connections) > self.settings.connections and not self.make_room():
            self.connections.discard(self)
            transport.abort()

    def make_room(self) -> bool:
        """End a connection that stands still, so that such cannot keep others out."""
        for other in self.connections:
            if isinstance(other, Connection) and other.stands_still(self.since):
                self.connections.discard(other)
                other.hang_up()
                return True
        return False

    def stands_still(self, now: float) -> bool:
        """Whether it is in no request, or in one of which nothing more comes."""
        cycle = self.cycle
        if cycle is None and not self.head_size:
            return now - self.since > SPARED_UNUSED_S
        if cycle is None or cycle.response_complete:
            return now - self.since > SPARED_S
        return cycle.more_body and not self.held and now - self.since > SPARED_BODY_S

    def hang_up(self, *, flush: bool = False) -> None:
        """Close it. What still runs for it is told, before it writes to a closed transport."""
        self.held = b""
        self.pipeline.clear()
        self.tell_running()
        if flush:
            self.transport.close()
        else:
            self.transport.abort()

    def tell_running(self) -> None:
        for cycle in (self.running, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.tell_running()  # uvicorn tells the last request that came, which need not run yet
        super().connection_lost(exc)

    # What comes

    def data_received(self, data: bytes) -> None:
        if self.refused is not None:
            return
        if self.held or self.pipeline or len(data) > SLICE:
            self.held += data
            self.feed_held()
        else:
            self.feed(data)

    def feed_held(self) -> None:
        """Parse what is held, a little at a time: requests that wait behind another stay bytes,
        as each would cost fifty times its size once parsed."""
        held, at = self.held, 0
        while at < len(held) and not self.pipeline and self.refused is None:
            self.held = b""
            self.feed(held[at : at + SLICE])
            at += SLICE
        self.held = held[at:] if self.refused is None else b""
        if self.held:
            self.flow.pause_reading()

    def feed(self, data: bytes) -> None:
        self.piece = len(data)
        if self.in_head:
            self.head_size += self.piece
        else:
            self.since = self.loop.time()
            self.raw += self.piece
            if self.raw > RAW_FACTOR * self.settings.batch_bytes:
                self.refuse(HttpProblem(413, "too-large", "the body is too large as it was sent"))
                return
        super().data_received(data)
        if self.in_head and self.head_size > self.settings.header_bytes and self.refused is None:
            self.refuse(self.head_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self.in_head:
            self.in_head = True
            self.since = self.loop.time()
        self.head_size = self.piece  # at most: the head begins somewhere in it

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers are dropped (RFC 9110 §6.5.1): they would come after the checks, without end.
        if self.in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.in_head = False
        self.began = self.since
        self.raw = 0
        limit = self.settings.header_bytes
        if self.head_size > limit:
            size = len(self.url) + sum(len(k) + len(v) + 4 for k, v in self.headers)
            if size > limit:
                self.refused = self.head_too_large()
                raise self.refused  # out of the parser, and back to us in send_400_response
        if self.url[:1] != b"/" and self.url != b"*":
            self.check_authority()
        super().on_headers_complete()

    def check_authority(self) -> None:
        """An absolute target (RFC 9112 §3.2.2) may not name another host than the Host header,
        which is the one that is checked."""
        found = httptools.parse_url(self.url)
        named = found.host or b""
        if b":" in named:
            named = b"[%s]" % named
        if found.port:
            named += b":%d" % found.port
        hosts = [value for name, value in self.headers if name == b"host"]
        if hosts != [named]:
            detail = "the target names another host than the Host header"
            self.refused = HttpProblem(400, "host", detail)
            raise self.refused

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """As uvicorn's, but that no timer is made for each response, and cancelled with the next
        request: the sweep ends what is idle."""
        self.server_state.total_requests += 1
        self.since = self.loop.time()
        if self.transport.is_closing():
            self.held = b""
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self.held and not self.pipeline:
            self.feed_held()
        if self.held or self.pipeline:
            self.flow.pause_reading()  # which uvicorn has just let go on

    # Refusing

    def head_too_large(self) -> HttpProblem:
        limit = self.settings.header_bytes
        return HttpProblem(431, "headers", f"the headers are over the limit of {limit} bytes")

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser has failed."""
        self.refuse(self.refused or HttpProblem(400, "http", "this is no valid HTTP request"))

    def refuse(self, problem: HttpProblem) -> None:
        """Answer before there is a request, or in its body, and hang up.

        Only our side is closed: closing both while the client still sends would reset the
        connection, and the answer with it. What it sends is dropped; the sweep ends it.
        """
        self.refused = problem
        self.since = self.loop.time()
        cycle = self.running
        if cycle is not None and not cycle.response_complete:
            if cycle is not self.cycle or cycle.response_started:
                self.hang_up(flush=True)  # another request's answer is on its way
                return
            self.tell_running()
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        start, body = problem.response(close=True)
        lines = [STATUS_LINE[problem.status]]
        lines += [b"%s: %s\r\n" % header for header in start["headers"]]
        self.transport.write(b"".join([*lines, b"\r\n", body["body"]]))
        self.transport.write_eof()

    def shutdown(self) -> None:
        """End it as soon as the request in it is answered; one that is not whole is not awaited."""
        cycle = self.cycle
        if self.refused is not None:
            self.hang_up(flush=True)
            return
        if cycle is not None and cycle is self.running and cycle.more_body:
            closing = HttpProblem(503, "closed", "the host is stopping", headers=retry_after(1))
            self.refuse(closing)
            return
        if self.running is not None:
            self.running.keep_alive = False
        super().shutdown()

    def sweep(self, now: float) -> None:
        """End this connection where its client is too slow."""
        quiet_s = now - self.since
        cycle = self.cycle
        waiting = self.transport.get_write_buffer_size()
        if not waiting or waiting != self.unsent:
            self.unsent, self.moved = waiting, now
        if self.refused is not None:
            if quiet_s > LINGER_S:
                self.hang_up()
        elif now - self.moved > self.settings.body_timeout_s:
            self.hang_up()  # it does not read what we answer
        elif cycle is not None and not cycle.response_complete:
            if (
                cycle.more_body
                and not self.held
                and (
                    quiet_s > self.settings.body_timeout_s
                    or now - self.began > self.settings.request_timeout_s
                )
            ):
                self.hang_up()
        elif self.in_head and (self.head_size or cycle is None):
            if quiet_s > self.settings.head_timeout_s:
                self.refuse(HttpProblem(408, "slow", "the request's headers took too long"))
        elif quiet_s > self.settings.keep_alive_s:
            self.transport.close()
