"""One visitor's TCP connection: HTTP/1.1 parsed strictly, one exchange at a time, the rest in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from runtime.client_address import canonical, group_of
from runtime.logs import get_logger
from tunnel_server.edge import pages
from tunnel_server.edge.exchange import Exchange
from tunnel_server.edge.full_transport import FullTransport
from tunnel_server.errors import BadRequest
from tunnel_server.policy.framing import HEAD_BYTES, unframed
from tunnel_server.policy.names import tokens
from tunnel_server.policy.request_head import RULES, RequestHead, begins_as_http, names_another_protocol

if TYPE_CHECKING:
    from tunnel_server.edge.context import Edge
    from tunnel_server.edge.raw_splice import RawSplice

_RULES = RULES.rules
_learn = RULES.learn

# struct linger: on, 0 s. The kernel answers close() with RST instead of FIN and drops what was not sent yet.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_NOTHING = memoryview(b"")

_log = get_logger("tunnel_server.edge")


def _size(head: RequestHead) -> int:
    """About the bytes of a head: what is told apart from ``lines`` is few and short, but for cookies."""
    return sum(map(len, head.lines)) + len(head.target) + len(head.cookie or b"") + len(head.referer or b"")


class VisitorConnection(asyncio.BufferedProtocol):
    """State of the connection alone; whatever belongs to a request lives in its Exchange.

    ``deadline`` is the monotonic time at which the present phase ends, looked at by the edge's sweep.
    """

    __slots__ = (
        "_begun",
        "_body_bytes",
        "_head",
        "_in_head",
        "_line_first",
        "_parser",
        "_read",
        "_receiving",
        "_unframed",
        "address",
        "closing",
        "current",
        "deadline",
        "edge",
        "finished_here",
        "finished_there",
        "group",
        "held",
        "last_request",
        "raw",
        "reading_paused",
        "transport",
        "waiting",
        "write_paused",
    )

    def __init__(self, edge: Edge, address: str = "") -> None:
        self.edge = edge
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)  # set by connection_made
        self.address = address  # the visitor's; "": whoever the connection leads to
        self.group = ""  # whom the address counts for; set by connection_made
        self.current: Exchange | None = None
        self.waiting: deque[Exchange] = deque()
        self.raw: RawSplice | None = None  # set once the connection is a WebSocket's bytes
        self.held = b""  # bytes behind an upgrade request, until it is decided
        self.finished_here = False  # the visitor's FIN came, raw alone
        self.finished_there = False  # the device's FIN went out, raw alone
        self.deadline = 0.0
        self.closing = False  # nothing more is read as a request
        self.last_request = False  # the visitor said that no other one follows
        self.reading_paused = False
        self.write_paused = False
        self._parser = httptools.HttpRequestParser(self)
        self._head = RequestHead()
        self._in_head = False
        self._begun = bytearray()  # earlier reads of a head that came in several
        self._receiving: Exchange | None = None
        self._read = _NOTHING  # the present one
        self._line_first = False  # a request line stands at its very begin, and was not looked at yet
        self._body_bytes = 0  # of the present read
        self._unframed = 0  # bytes of chunk extensions and trailers beyond what the body excuses

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        edge = self.edge
        if not self.address:
            peer = transport.get_extra_info("peername")
            self.address = canonical(str(peer[0])) if peer else ""
        self.group = group_of(self.address)
        self.transport.set_write_buffer_limits(high=edge.limits.write_high_bytes)
        edge.connections.add(self)
        count = edge.per_address[self.group] = edge.per_address.get(self.group, 0) + 1
        over = count > edge.limits.connections_per_address and not edge.proxies.trusts(self.address)
        if over or len(edge.connections) > edge.limits.connections:
            edge.metrics.visitors_refused.inc()
            self.abort()
            return
        # Also in a drain: it began before, and its first request is on its way, however slow its line.
        self.deadline = edge.monotonic() + edge.limits.head_s

    def connection_lost(self, exc: Exception | None) -> None:
        edge = self.edge
        self.closing = True
        edge.connections.discard(self)
        if not edge.connections:
            edge.emptied.set()
        left = edge.per_address.get(self.group, 1) - 1
        if left > 0:
            edge.per_address[self.group] = left
        else:
            edge.per_address.pop(self.group, None)
        raw, self.raw = self.raw, None
        current, self.current = self.current, None
        self.waiting.clear()
        if raw is not None:
            raw.visitor_gone()
        if current is not None:
            current.visitor_gone()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.edge.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self.edge.read_buffer[:nbytes]
        if self.raw is not None:
            self.raw.send(bytes(data))
        elif self.closing or self.last_request:
            return  # lingering: read so that our answer is not lost to a reset, and forget
        elif self.held or self._waits_for_upgrade():
            self._hold(bytes(data))
        else:
            self._feed(data)

    def eof_received(self) -> bool:
        if self.raw is None or self.finished_there or not self.transport.can_write_eof():
            return False  # TLS has no half-closed state here
        self.raw.finish()
        self.finished_here = True
        self.deadline = self.edge.monotonic() + self.edge.limits.stall_s
        return True

    def pause_writing(self) -> None:
        self.write_paused = True
        self.transport = cast(asyncio.Transport, FullTransport(self.transport))
        if self.raw is not None:
            self.deadline = self.edge.monotonic() + self.edge.limits.stall_s
        elif self.current is not None:
            self.current.visitor_paused()
        self.update_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        full = cast(FullTransport, self.transport)
        self.transport = full.transport
        full.flush()
        if self.write_paused:  # what was put together has filled it again
            return
        if self.raw is not None:
            if not (self.finished_here or self.finished_there):
                self.deadline = 0.0
            self.raw.visitor_resumed()
        elif self.current is not None:
            self.current.visitor_resumed()
        elif self.waiting and not self.closing:
            self._advance()
        self.update_reading()

    # Parsing

    def _feed(self, data: memoryview) -> None:
        """Parse; llhttp stops behind any request with Upgrade, and what follows is raw only after a 101."""
        rest = self._parse(data)
        while rest is not None and not self.closing:
            if self._waits_for_upgrade() or any(exchange.head.wants_upgrade for exchange in self.waiting):
                self._hold(bytes(rest))
                return
            rest = self._parse(rest)

    def _parse(self, data: memoryview) -> memoryview | None:
        """What is left behind a request with Upgrade, or None."""
        self._body_bytes = 0
        self._read = data
        self._line_first = self._receiving is None and not self._in_head
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parser = httptools.HttpRequestParser(self)
            rest = data[upgrade.args[0] :]
            return rest if len(rest) else None
        except httptools.HttpParserError as error:
            if not (self.closing or self.last_request):
                self._refuse(error)
            return None
        self._count(data)
        return None

    def _count(self, data: memoryview) -> None:
        """Bound what carries no body: heads without an end, chunk extensions, trailers."""
        if self._in_head:
            if self.current is None and not self._begun:
                self._await_request()
            self._begun += data
            if len(self._begun) > self.edge.limits.head_bytes:
                self._answer_error(BadRequest("the request head is too long", 431))
        elif self._receiving is not None:
            self._unframed = unframed(self._unframed, len(data), self._body_bytes)
            if self._unframed > self.edge.device_limits.framing_bytes:
                self._answer_error(BadRequest("the body's framing carries nothing", 400))

    def _waits_for_upgrade(self) -> bool:
        current = self.current
        return current is not None and current.head.wants_upgrade

    def _hold(self, data: bytes) -> None:
        self.held += data
        self.update_reading()

    def on_message_begin(self) -> None:
        if self.closing or self.last_request:
            raise BadRequest("nobody answers on this connection any more")  # and so nobody serves it
        if len(self.waiting) >= self.edge.limits.pipelined:
            raise BadRequest("too many requests at once", 429)
        self._head = RequestHead()
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        head = self._head
        head.target += url
        if len(head.target) > self.edge.limits.target_bytes:
            raise BadRequest("the target is too long", 414)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: nothing that may follow a body is of use to a device's UI
        try:
            rule = _RULES[name]
        except KeyError:
            rule = _learn(name)
        if rule is None:
            self._head.lines.append(b"%b: %b\r\n" % (name, value))
        else:
            rule(self._head, name, value)

    def on_headers_complete(self) -> None:
        head = self._head
        self._in_head = False
        self._body_bytes = HEAD_BYTES
        self._unframed = 0
        parser = self._parser
        head.method = parser.get_method()
        read = self._read
        size = len(read)
        if self._line_first and begins_as_http(read):
            self._line_first = False  # what else begins in this read does so further on
        else:
            size += len(self._begun)
            self._look_for_protocol(head)
        # Without Connection only HTTP/1.1 keeps alive; the version itself costs llhttp's binding a format().
        if head.connection is not None or not parser.should_keep_alive():
            version = parser.get_http_version()
            if version != "1.1":
                if version != "1.0":
                    raise BadRequest("this server speaks HTTP/1.1", 505)
                head.minor = 0
        limits = self.edge.limits
        if len(head.lines) > limits.headers:
            raise BadRequest("too many headers", 431)
        if size > limits.head_bytes and _size(head) > limits.head_bytes:
            raise BadRequest("the request head is too long", 431)
        head.finish()
        exchange = Exchange(self, head)
        self._receiving = exchange
        if self.current is None and not self.write_paused:
            self.current = exchange
            exchange.start()
        else:
            if self.current is None:
                self.deadline = self.edge.monotonic() + limits.head_s
            self.waiting.append(exchange)

    def _look_for_protocol(self, head: RequestHead) -> None:
        """The request line stands somewhere in what was read since the head began."""
        raw = b"".join((self._begun, self._read))
        if self._begun:
            self._begun = bytearray()
        if names_another_protocol(head.method, head.target, raw):
            raise BadRequest("its first line names another protocol than HTTP")

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        receiving = self._receiving
        if receiving is not None:
            receiving.request_body(data)

    def on_message_complete(self) -> None:
        receiving = self._receiving
        self._receiving = None
        if receiving is not None:
            if not receiving.visitor_keeps:
                self.last_request = True
            receiving.request_complete()
        if self.waiting:
            self.update_reading()

    # Errors

    def _refuse(self, error: httptools.HttpParserError) -> None:
        cause = error.__context__
        if isinstance(cause, BadRequest):
            self._answer_error(cause)
        elif cause is not None and isinstance(error, httptools.HttpParserCallbackError):
            _log.error("edge failed", exc_info=cause)
            self.abort()
        else:
            self._answer_error(BadRequest(f"it is no valid HTTP ({error})"))

    def _answer_error(self, error: BadRequest) -> None:
        """Answer in order: behind exchanges that are still running the connection is only closed."""
        self.edge.metrics.bad_requests.inc()
        current = self.current
        if current is not None and current is self._receiving and not current.response_started:
            current.fail(pages.bad_request(error.status, error.reason))
        elif current is not None:
            if current is self._receiving:
                current.abort()
            self.last_request = True
            self.waiting.clear()
            current.visitor_keeps = False
        elif self.waiting:
            self.close_lingering()  # the visitor takes no answers, and those before this one are owed first
        else:
            head, body = self._refusal(error)
            self.transport.write(head + body)
            self.close_lingering()

    def _refusal(self, error: BadRequest) -> tuple[bytes, bytes]:
        """To whoever sent a head that could not be read, as far as it was."""
        head = self._head
        what = pages.bad_request(error.status, error.reason)
        return pages.notice(what, head.accept, keep=False, target=head.target)

    # What exchanges ask for

    def finish_raw(self) -> None:
        """The device's FIN inside a WebSocket: the visitor may still say its last."""
        if self.finished_here or not self.transport.can_write_eof():
            self.closing = True
            self.transport.close()
        else:
            self.finished_there = True
            self._write_eof()
        self.deadline = self.edge.monotonic() + self.edge.limits.stall_s

    def exchange_done(self, exchange: Exchange, *, keep: bool) -> None:
        """The answer is written; go on with the next request or end."""
        if self.current is not exchange:
            return
        self.current = None
        if not keep:
            self.close_lingering()
        elif self.waiting:
            self._advance()
        elif self.edge.draining and self._came_late():
            self.close_lingering()  # its head left before the drain began, and said otherwise
        else:
            self._await_request()
            if self.held:
                held, self.held = self.held, b""
                self._feed(memoryview(held))
                self._read = _NOTHING  # else it would keep these bytes
            if self.reading_paused:
                self.update_reading()

    def _came_late(self) -> bool:
        """Whether the drain waits for no further request of this connection."""
        return self.edge.monotonic() >= self.edge.idle_until and not (self._in_head or self.held)

    def _await_request(self) -> None:
        """Nothing is in flight: set the end of this phase."""
        edge = self.edge
        now = edge.monotonic()
        if self._in_head:
            self.deadline = now + edge.limits.head_s
        else:
            self.deadline = min(now + edge.limits.idle_s, edge.idle_until)

    def _advance(self) -> None:
        """Serve the next one; but who takes no answers must not fill our memory with them."""
        if self.write_paused:
            self.deadline = self.edge.monotonic() + self.edge.limits.stall_s
            return
        self.current = self.waiting.popleft()
        # Not from here: a long row of local answers would recurse.
        asyncio.get_running_loop().call_soon(self._start_next, self.current)

    def _start_next(self, exchange: Exchange) -> None:
        if self.current is exchange and not exchange.started:
            exchange.start()
            self.update_reading()

    def become_raw(self, splice: RawSplice) -> None:
        """The device answered 101: from here on bytes are spliced."""
        self.raw = splice
        self.current = None
        self.deadline = self.edge.monotonic() + self.edge.limits.stall_s if self.write_paused else 0.0
        held, self.held = self.held, b""
        if held:
            splice.send(held)
        self.update_reading()

    def update_reading(self) -> None:
        """Read only what somebody takes: pause while requests wait, a device or the visitor takes no more."""
        current = self.current
        raw = self.raw
        pause = not self.closing and (
            bool(self.waiting)
            or (self.write_paused and raw is None and (current is None or self._receiving is not current))
            or bool(self.held)
            or (current is not None and current.blocks_reading())
            or (raw is not None and raw.blocked)
        )
        if pause is not self.reading_paused and not self.transport.is_closing():
            self.reading_paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def close_lingering(self) -> None:
        """End the connection so that the answer still arrives: a close with unread bytes would reset it."""
        if self.closing:
            return
        self.closing = True
        self.waiting.clear()
        if self._receiving is None and not self._in_head and not self.held:
            self.transport.close()
            self.deadline = self.edge.monotonic() + self.edge.limits.stall_s
            return
        self.linger()

    def linger(self) -> None:
        """Say no more, and read on for a moment what nobody wants: so the last words arrive."""
        self.closing = True
        self._receiving = None
        if self.transport.can_write_eof():
            self._write_eof()
        self.deadline = self.edge.monotonic() + self.edge.limits.linger_s
        self.update_reading()

    def _write_eof(self) -> None:
        with contextlib.suppress(OSError):  # reset while nothing was read: asyncio's loop says so here
            self.transport.write_eof()

    def abort(self) -> None:
        """End the connection at once: a body that was cut must not look complete.

        To an HTTP/1.0 visitor a body ends with the connection, so this end has to be a reset.
        """
        self.closing = True
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):  # the visitor reset it first
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()

    # Time and shutdown

    def deadline_passed(self, now: float) -> None:
        """The present phase took too long."""
        if self.closing:
            self.transport.abort()
        elif self.current is not None:
            self.current.deadline_passed(now)
        elif self.raw is not None:
            self.abort()
        elif self._in_head:
            self._answer_error(BadRequest("the request did not arrive in time", 408))
        else:
            self.closing = True
            self.transport.close()

    def drain(self) -> None:
        """The process ends. The next answer is the last; a connection without a request waits a little for
        one, since a proxy may have sent it already, and may not send it twice.
        """
        if self.raw is None and self.current is None and not self.closing:
            self._await_request()

    @property
    def needs_no_more(self) -> bool:
        """Whether no request of it, sent or still to come, waits for a stream."""
        current = self.current
        if self.closing or self.raw is not None:
            return True
        if current is None or current.upstream is None or self.waiting:
            return False
        # An answer that began before the drain has promised to keep the connection for another request.
        return not current.response_started or self.edge.monotonic() >= self.edge.idle_until

    def visitor_says_close(self, head: RequestHead) -> bool:
        """Whether the visitor ends the connection after this answer (RFC 9112 section 9.3)."""
        if head.connection is None:
            return head.minor == 0
        return head.minor == 0 or b"close" in tokens(head.connection)
