"""One stream to a device as the edge uses it: request bytes in, the device's answer parsed and relayed.

A stream serves one exchange at a time and is kept in its session's pool in between (DESIGN 3.7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import httptools

from runtime.logs import get_logger
from tunnel_protocol import RefusedCode, ResetCode, Stream
from tunnel_server.edge import pages
from tunnel_server.edge.raw_splice import RawSplice
from tunnel_server.errors import BadResponse
from tunnel_server.policy.framing import FRAMING_NAMES, HEAD_BYTES, unframed
from tunnel_server.policy.response_head import RULES, ResponseHead, rewritten_location
from tunnel_server.policy.status_lines import status_line
from tunnel_server.policy.websocket import accept_value

if TYPE_CHECKING:
    from tunnel_server.control.request_log import Passing
    from tunnel_server.edge.exchange import Exchange
    from tunnel_server.edge.visitor import VisitorConnection
    from tunnel_server.sessions import Session
    from tunnel_server.tunnels.registry import DeviceTunnels
    from tunnel_server.tunnels.tunnel import Tunnel

S = TypeVar("S", bound=RawSplice)

_RULES = RULES.rules
_learn = RULES.learn
# What devices get wrong and everybody forgives them (docs/decisions/0013): a bare LF as a line's end, blanks
# behind a chunk's size. Nothing of it goes on: the visitor gets the canonical form.
_FORGIVEN = {"lenient_optional_cr_before_lf": True, "lenient_spaces_after_chunk_size": True}
_CLOSE = b"Connection: close\r\n\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_LAST_CHUNK = b"0\r\n\r\n"

_log = get_logger("tunnel_server.edge")


class UpstreamStream:
    """``exchange`` is None while idle or over. After a 101 a ``RawSplice`` owns the stream.

    ``answered`` counts complete answers. ``blocked``: the device takes no more for now.
    """

    __slots__ = (
        "_body_bytes",
        "_chunk_out",
        "_complete",
        "_head",
        "_head_bytes",
        "_in_head",
        "_informational",
        "_interim",
        "_keep_stream",
        "_keep_visitor",
        "_live",
        "_monotonic",
        "_out",
        "_over",
        "_parser",
        "_passing",
        "_peer_finished",
        "_surplus",
        "_switching",
        "_unconsumed",
        "_unframed",
        "_until_eof",
        "answered",
        "blocked",
        "device",
        "exchange",
        "has_length",
        "is_open",
        "session",
        "stream",
        "tunnel",
    )

    stream: Stream  # set by the tunnel right after the OPEN

    def __init__(self, device: DeviceTunnels, tunnel: Tunnel, session: Session) -> None:
        self.device = device
        self.tunnel = tunnel
        self.session = session
        self.exchange: Exchange | None = None
        self._passing: Passing | None = None  # the exchange's entry in the request log
        self.answered = 0
        self.blocked = False
        self.is_open = False
        self.has_length = False
        self._monotonic = device.monotonic
        self._parser = self._new_parser()
        self._head = ResponseHead()
        self._out: list[bytes] = []
        self._over = False
        self._peer_finished = False
        self._live = False  # counted among the device's long-lived streams
        self._unconsumed = 0
        self._body_bytes = 0
        self._reset_answer()

    def _new_parser(self) -> httptools.HttpResponseParser:
        parser = httptools.HttpResponseParser(self)
        parser.set_dangerous_leniencies(**_FORGIVEN)
        return parser

    def _reset_answer(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        self._unframed = 0
        self._complete = False
        self._interim = False
        self._informational = 0
        self._surplus = False
        self._switching = False
        self._until_eof = False
        self._chunk_out = False
        self._keep_visitor = True
        self._keep_stream = True
        self.has_length = False

    # The exchange's side

    def begin(self, exchange: Exchange) -> None:
        """Serve this one now."""
        self.exchange = exchange
        self._passing = exchange.passing
        if self.answered:
            self._reset_answer()
            if self._head.chunked:
                self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)

    def send(self, data: bytes) -> bool:
        """Request bytes to the device; False: pause the visitor until writable()."""
        if not self.stream.send(data, self._monotonic()):
            self.blocked = True
            return False
        return True

    def abandon(self, code: ResetCode) -> None:
        """The exchange is over before its answer: the device stops working for nobody."""
        self.exchange = None
        self._close(code)

    def _close(self, code: ResetCode = ResetCode.CANCELLED) -> None:
        """End the stream; a device that finished already gets a FIN, any other a RESET."""
        if self._over:
            return
        if self._peer_finished and self.stream_is_clean():
            self.stream.finish()
        else:
            self.stream.reset(code)
        self._ended()

    def stream_is_clean(self) -> bool:
        """Whether both sides said all they had to say."""
        return self.exchange is None and self._complete

    def _ended(self) -> None:
        self._count_out()
        self.device.stream_ended()

    def _count_out(self) -> None:
        self._over = True
        self.tunnel.in_use -= 1
        if self._live:
            self._live = False
            self.device.live_ended(self.tunnel)

    def close_idle(self) -> None:
        """The pool does not keep it."""
        self._close()

    # StreamOwner: what the tunnel tells

    def accepted(self) -> None:
        self.is_open = True
        if self.exchange is not None:
            self.exchange.opened()

    def refused(self, code: RefusedCode, message: str) -> None:
        self._ended()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            _log.info(
                "device refused a stream",
                extra={"device": self.device.device_id, "code": code.name.lower(), "reason": message},
            )
            exchange.upstream_refused(code)

    def data(self, view: memoryview) -> None:
        size = len(view)
        exchange = self.exchange
        if exchange is None:
            self._idle_died()  # an answer that nobody asked for
            return
        if self.is_open is False:
            self.is_open = True
        self._body_bytes = 0
        try:
            self._parser.feed_data(view)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(exchange, bytes(view[upgrade.args[0] :]), size)
            return
        except httptools.HttpParserError as error:
            self._bad_answer(exchange, error)
            return
        if self.exchange is not exchange:
            return  # a callback ended it
        out = self._out
        if out:
            exchange.visitor.transport.write(out[0] if len(out) == 1 else b"".join(out))
            self._out = []
        self._account(exchange, size)

    def finished(self) -> None:
        self._peer_finished = True
        exchange = self.exchange
        if exchange is None:
            self._idle_died()
        elif self._until_eof and not self._in_head:
            if self._chunk_out:
                exchange.visitor.transport.write(_LAST_CHUNK)
            self._complete = True
            self._complete_if_taken(exchange)
        elif not self._complete:
            self._fail(exchange)

    def reset(self, code: ResetCode) -> None:
        self._ended()
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            self.session.idle.discard(self)
        elif code is ResetCode.GRANT_ENDED:
            exchange.fail(pages.SESSION_ENDED)
        elif self._complete:
            self._complete_without_stream(exchange)
        else:
            exchange.upstream_failed()

    def writable(self) -> None:
        self.blocked = False
        if self.exchange is not None:
            self.exchange.progressed()
            self.exchange.visitor.update_reading()

    def lost(self, reason: str) -> None:
        self._count_out()
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            self.session.idle.discard(self)
        elif self._complete:
            self._complete_without_stream(exchange)
        else:
            exchange.upstream_lost()

    def _complete_without_stream(self, exchange: Exchange) -> None:
        """The answer was whole; only its stream ended before the visitor took the last bytes."""
        exchange.response_done(keep=self._keep_visitor)

    def _idle_died(self) -> None:
        self.session.idle.discard(self)
        self._close()

    # httptools: the device's answer

    def on_message_begin(self) -> None:
        if self._complete:
            self._surplus = True
            return
        self._head = ResponseHead()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            if name.lower() in FRAMING_NAMES:
                self._keep_stream = False
            return  # a trailer
        try:
            rule = _RULES[name]
        except KeyError:
            rule = _learn(name)
        if rule is None:
            self._head.lines.append(b"%b: %b\r\n" % (name, value))
        else:
            rule(self._head, name, value)

    def on_headers_complete(self) -> None:
        exchange = self.exchange
        if self._complete or exchange is None:
            self._surplus = True
            return
        parser = self._parser
        self._in_head = False
        self._body_bytes = HEAD_BYTES
        status = parser.get_status_code()
        head = self._head
        minor = 1
        # Without Connection only HTTP/1.1 keeps alive; the version itself costs llhttp's binding a format().
        if head.connection is not None or not parser.should_keep_alive():
            version = parser.get_http_version()
            if version not in ("1.1", "1.0"):
                raise BadResponse("the device's HTTP version")
            minor = 0 if version == "1.0" else 1
        if len(head.lines) > self.device.limits.response_headers:
            raise BadResponse("too many headers")
        head.finish(minor=minor)
        if status < 100:
            raise BadResponse("no such status")
        if status < 200:
            self._interim_head(exchange, status, head)
        else:
            self._final_head(exchange, status, minor, head)

    def _interim_head(self, exchange: Exchange, status: int, head: ResponseHead) -> None:
        if status == 101:
            key = exchange.head.websocket_key
            if key is None or not head.switches_to_websocket(accept_value(key)):
                raise BadResponse("101 that nobody asked for")
            self._switching = True
            return
        self._interim = True
        self._informational += 1
        if self._informational > self.device.limits.informational:
            raise BadResponse("too many 1xx answers")
        if status == 100 and exchange.head.expect is not None and not exchange.request_done:
            self._out.append(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _final_head(self, exchange: Exchange, status: int, minor: int, head: ResponseHead) -> None:
        if status > 599:
            raise BadResponse("no such status")
        request = exchange.head
        if head.event_stream and not self._counted_live():
            exchange.fail(pages.DEVICE_LIVE_LIMIT)
            return
        out = [status_line(status)]
        out += head.lines
        if head.location is not None:
            out.append(b"Location: %b\r\n" % self._location(exchange, head.location))
        bodyless = status == 204 or status == 304 or request.method == b"HEAD"
        if head.content_length is not None and status != 204:
            out.append(b"Content-Length: %d\r\n" % head.content_length)
            self.has_length = not bodyless
        elif not bodyless:
            self._until_eof = not head.chunked
            if head.chunked:  # among chunks llhttp's leniency misreads sizes: there a bare LF is an error
                self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=False)
            self._chunk_out = request.minor == 1
            if self._chunk_out:
                out.append(_CHUNKED)
        self._keep_stream = not head.says_close(minor=minor) and not self._until_eof
        keep = (
            exchange.visitor_keeps
            and exchange.request_done_or_bodyless
            and (bodyless or self._chunk_out or self.has_length)
            and not exchange.visitor.edge.draining
        )
        self._keep_visitor = keep
        out.append(b"\r\n" if keep else _CLOSE)
        self._out.append(b"".join(out))
        exchange.status = status
        exchange.response_started = True
        if request.method == b"HEAD":
            self._complete = True  # llhttp does not know, and would wait for a body

    def _location(self, exchange: Exchange, value: bytes) -> bytes:
        site = exchange.site
        service = self.device.services.get(self.session.facts.service)
        if site is None or service is None:
            return value
        return rewritten_location(value, (*service.own_hosts, site.host), site.origin)

    def _counted_live(self) -> bool:
        if not self._live:
            self._live = self.device.live_began(self.tunnel)
        return self._live

    def on_body(self, data: bytes) -> None:
        if self._complete:
            self._surplus = True
            return
        self._body_bytes += len(data)
        if self._passing is not None:
            self._passing.sent += len(data)
        if self._chunk_out:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)

    def on_chunk_header(self) -> None:
        if self._complete:
            self._surplus = True

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        elif not self._switching and not self._complete:
            self._complete = True
            if self._chunk_out:
                self._out.append(_LAST_CHUNK)

    # Between parser and visitor

    def _account(self, exchange: Exchange, size: int) -> None:
        """Credit for what the visitor took, limits for what carried nothing, and the end of the answer."""
        if exchange.visitor.write_paused:
            self._unconsumed += size
            if self._complete:
                return  # visitor_resumed() completes it
        else:
            self.stream.consumed(size, self._monotonic())
            if self._complete:
                self._complete_now(exchange)
                return
        if self._in_head:
            self._head_bytes += size
            if self._head_bytes > self.device.limits.response_head_bytes:
                self._fail(exchange)
            return  # and no more time for it: a head that drips has the deadline of one that does not come
        self._unframed = unframed(self._unframed, size, self._body_bytes)
        if self._unframed > self.device.limits.framing_bytes and not exchange.done:
            self._fail(exchange)
            return
        exchange.progressed()

    def visitor_resumed(self) -> None:
        """The visitor's transport has room again: return the credit that was held back."""
        held, self._unconsumed = self._unconsumed, 0
        if held:
            self.stream.consumed(held, self._monotonic())
        if self._complete and self.exchange is not None:
            self._complete_now(self.exchange)

    def _complete_if_taken(self, exchange: Exchange) -> None:
        if not exchange.visitor.write_paused:
            self._complete_now(exchange)

    def _complete_now(self, exchange: Exchange) -> None:
        self.exchange = None
        self.answered += 1
        reusable = (
            self._keep_stream
            and exchange.request_done_or_bodyless
            and not self._surplus
            and not self._peer_finished
            and not self._over
        )
        if self._live:
            self._live = False
            self.device.live_ended(self.tunnel)
        if exchange.head.method == b"HEAD" and reusable:
            self._parser = self._new_parser()
        session = self.session
        idles = reusable and self.device.may_idle(session, self.tunnel)
        if not (idles and session.idle.put(self, self._monotonic())):
            self._close()
        exchange.response_done(keep=self._keep_visitor)

    def _whole_with_surplus(self, exchange: Exchange) -> None:
        """What came behind a whole answer is the device's mistake, and only costs it the stream."""
        self._surplus = True
        out, self._out = self._out, []
        exchange.visitor.transport.write(b"".join(out))
        self._complete_if_taken(exchange)

    def _bad_answer(self, exchange: Exchange, error: httptools.HttpParserError) -> None:
        if self._complete:
            self._whole_with_surplus(exchange)
            return
        cause = error.__context__
        if cause is not None and not isinstance(cause, BadResponse):
            _log.error("edge failed", exc_info=cause)
        reason = str(cause if isinstance(cause, BadResponse) else error)
        _log.info("bad answer of a device", extra={"device": self.device.device_id, "reason": reason})
        self.device.metrics.bad_answers.inc()
        self._keep_stream = False
        self._fail_for_good(exchange)

    def _fail(self, exchange: Exchange) -> None:
        """The stream broke: the exchange may go out again."""
        self.exchange = None
        self._close()
        exchange.upstream_failed()

    def _fail_for_good(self, exchange: Exchange) -> None:
        self.exchange = None
        self._out = []
        self._close()
        exchange.fail(pages.BAD_GATEWAY)

    # A 101

    def _switch(self, exchange: Exchange, rest: bytes, size: int) -> None:
        """A valid 101: splice from here on."""
        if self._complete:
            self._whole_with_surplus(exchange)
            return
        if not self._switching:
            self._fail_for_good(exchange)
            return
        visitor = exchange.visitor
        head = self._head
        accept = head.websocket_accept or b""
        answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        lines = b"".join(head.lines)
        splice = self.hand_over(visitor, RawSplice)
        if splice is None:
            exchange.fail(pages.DEVICE_LIVE_LIMIT)
            return
        exchange.switched(splice)
        if splice.passing is not None:
            splice.passing.sent += len(rest) - size  # relay counts all: what comes before is no message
        first = b"%b%bSec-WebSocket-Accept: %b\r\n\r\n%b" % (answer, lines, accept, rest)
        splice.relay(visitor, first, size)
        visitor.become_raw(splice)

    def hand_over(self, visitor: VisitorConnection, kind: type[S]) -> S | None:
        """The stream to a splice of this kind; None when the device has no room for one more of long life."""
        if not self._counted_live():
            return None
        self.exchange = None
        self._over = True  # for this object: the splice counts the stream from here on
        return kind(
            visitor,
            self.stream,
            device=self.device,
            tunnel=self.tunnel,
            session=self.session,
            blocked=self.blocked,
            unconsumed=self._unconsumed,
        )
