"""One request of a visitor and its answer: from the parsed head to the last byte, or a page that says why."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tunnel_protocol import RefusedCode, ResetCode
from tunnel_server.edge import gateway_calls, pages, reserved, tcp_door
from tunnel_server.edge.upstream import UpstreamStream
from tunnel_server.policy import origin, retry
from tunnel_server.policy.cookies import DuplicateCookie, split_cookie
from tunnel_server.policy.request_head import RequestHead
from tunnel_server.policy.upstream_head import upstream_head

if TYPE_CHECKING:
    from tunnel_server.control.request_log import Passing
    from tunnel_server.edge.raw_splice import RawSplice
    from tunnel_server.edge.visitor import VisitorConnection
    from tunnel_server.policy.hosts import Site
    from tunnel_server.sessions import Session
    from tunnel_server.tunnels.registry import DeviceTunnels

RESERVED = b"/.towline/"

_REFUSED_PAGES = {
    RefusedCode.UNREACHABLE: pages.UNREACHABLE,
    RefusedCode.UNKNOWN_SERVICE: pages.UNKNOWN_SERVICE,
    RefusedCode.NO_TIME: pages.NO_TIME,
    RefusedCode.NOT_HERE: pages.DEVICE_OFFLINE,
    RefusedCode.DRAINING: pages.DEVICE_OFFLINE,
    RefusedCode.TOO_MANY_STREAMS: pages.DEVICE_BUSY,
    RefusedCode.NO_GRANT: pages.GRANT_REFUSED,
    RefusedCode.GRANT_INVALID: pages.GRANT_REFUSED,
    # The session is alive here, so it is the device's clock that is ahead.
    RefusedCode.GRANT_EXPIRED: pages.NO_TIME,
    RefusedCode.GRANT_REVOKED: pages.SESSION_ENDED,
}
# The device did not look at these: they may go out again whatever the method.
_UNSERVED = frozenset({RefusedCode.DRAINING, RefusedCode.TOO_MANY_STREAMS, RefusedCode.NOT_HERE})
# A newer grant may pass: the gateway has other keys by now, or the device lost or outlived the one it had.
_NEEDS_GRANT = frozenset({RefusedCode.NO_GRANT, RefusedCode.GRANT_INVALID, RefusedCode.GRANT_EXPIRED})


class Exchange:
    """Everything about one request lives here and ends with it.

    ``upstream`` is set while a stream serves it. ``session`` is set once the cookie was found. ``done`` turns
    True once, when the visitor has its whole answer or never will.
    """

    __slots__ = (
        "_attempts",
        "_body_sent",
        "_cookie",
        "_grant_number",
        "_grant_renewed",
        "_held_body",
        "_request",
        "_waits_in",
        "asks_gateway",
        "cookie_hash",
        "done",
        "head",
        "local_body",
        "passing",
        "queue_deadline",
        "request_done",
        "response_started",
        "session",
        "site",
        "started",
        "started_at",
        "status",
        "upstream",
        "visitor",
        "visitor_keeps",
        "wants_kind",
    )

    def __init__(self, visitor: VisitorConnection, head: RequestHead) -> None:
        self.visitor = visitor
        self.head = head
        self.session: Session | None = None
        self.site: Site | None = None
        self.upstream: UpstreamStream | None = None
        self.visitor_keeps = not visitor.visitor_says_close(head)
        self.started = False
        self.started_at = 0.0
        self.request_done = False
        self.response_started = False
        self.done = False
        self.status = 0
        self.local_body: bytearray | None = None  # set while a reserved address collects its POST
        self.queue_deadline = 0.0  # monotonic; set while it waits for a stream
        self.asks_gateway = False  # a call to the gateway decides what comes next
        self.cookie_hash: bytes | None = None  # of our own cookie; at the TCP door, of the bearer
        self.wants_kind = "web"  # of service; a session of another kind opens nothing here
        self._cookie: bytes | None = None
        self._grant_number = 0  # of the session's grants, the one that the stream was opened with
        self._grant_renewed = False
        self._held_body: list[bytes] | None = None  # body that came before there was a stream
        self._request = b""
        self.passing: Passing | None = None  # its entry in the request log; of support sessions alone
        self._attempts = 0
        self._body_sent = False
        self._waits_in: DeviceTunnels | None = None

    # Who asks, and for what

    def start(self) -> None:
        """Its turn has come: decide, and send it on its way."""
        self.started = True
        visitor, head = self.visitor, self.head
        edge = visitor.edge
        self.started_at = now = edge.monotonic()
        visitor.deadline = now + edge.limits.body_idle_s
        site = self.site = edge.sites.find(head.host)  # type: ignore[arg-type]  # finish() saw to it
        if site is None:
            self.fail(pages.WRONG_HOST)
            return
        try:
            own, self._cookie = (
                (None, None) if head.cookie is None else split_cookie(head.cookie, edge.cookie_name)
            )
        except DuplicateCookie:
            self.fail(pages.DUPLICATE_COOKIE)
            return
        if own is not None:
            self.cookie_hash = hashlib.sha256(own).digest()
        if head.target.startswith(RESERVED):
            reserved.serve(self)
        elif self.cookie_hash is None:
            self.fail(pages.NO_SESSION)
        else:
            self.find_session(self.cookie_hash)

    def find_session(self, cookie_hash: bytes) -> None:
        """Go on with the session of this secret, known here or asked for at the gateway."""
        edge, site, now = self.visitor.edge, self.site, self.started_at
        assert site is not None
        self.cookie_hash = cookie_hash
        session = edge.sessions.find(cookie_hash, site.label, now)
        if session is not None:
            self.with_session(session)
        elif edge.sessions.why_ended(cookie_hash) is not None:
            self.fail(pages.SESSION_ENDED)
        elif edge.unknown_cookies.is_known_bad(cookie_hash, now):
            self.fail(pages.NO_SESSION)
        elif not edge.accepts_sessions():
            self.fail(pages.CONTROL_LOST)
        elif not edge.may_ask_gateway(self.client):
            self.fail(pages.TOO_MANY)
        else:
            gateway_calls.ask(self, gateway_calls.resolve(self, site.label, cookie_hash), "resolve")

    def with_session(self, session: Session) -> None:
        """The session is known: check where the request comes from, then send it to the device."""
        visitor, head, site = self.visitor, self.head, self.site
        assert site is not None
        edge = visitor.edge
        facts = session.facts
        if facts.service_kind != self.wants_kind:
            self.fail(pages.WRONG_KIND)
            return
        if not origin.is_allowed(
            head.method,
            upgrade=head.websocket_key is not None,
            fetch_site=head.fetch_site,
            fetch_mode=head.fetch_mode,
            fetch_dest=head.fetch_dest,
            origin=head.origin,
            own_origin=site.origin,
        ):
            edge.metrics.foreign_origin.inc()
            self.fail(pages.FOREIGN_ORIGIN)
            return
        if self.wants_kind == tcp_door.KIND and not tcp_door.has_room(self, session):
            self.fail(pages.SESSION_FULL)
            return
        self.session = session
        session.exchanges.add(self)
        if facts.act is not None:
            self.passing = self._logged(session)
        device = edge.registry.find(facts.device_id)
        if device is None:
            self.fail(pages.DEVICE_OFFLINE)
            return
        service = device.services.get(facts.service)
        if service is None or service.kind != self.wants_kind:
            self.fail(pages.UNKNOWN_SERVICE)
            return
        if self.wants_kind == "web":
            self._request = upstream_head(
                head, site, service, cookie=self._cookie, scheme=edge.scheme, client=self.client
            )
        self._send(device, session)

    def _logged(self, session: Session) -> Passing:
        """Its entry in the log of the support session."""
        log, facts = self.visitor.edge.request_log, session.facts
        if self.wants_kind == tcp_door.KIND:
            return log.tcp(facts.sid, facts.service)
        passing = log.web(facts.sid, self.head.method, self.head.target)
        passing.received = sum(map(len, self._held_body or ()))  # what came while the gateway was asked
        return passing

    @property
    def client(self) -> str:
        """The visitor's address, behind trusted proxies too."""
        visitor = self.visitor
        return visitor.edge.client_address(visitor.address, self.head.forwarded_for)

    # To the device

    def _send(self, device: DeviceTunnels, session: Session) -> None:
        """Over a pooled stream when it may be risked, else a fresh one, else in the queue for one."""
        head = self.head
        if head.websocket_key is not None and device.is_open() and not device.has_room_for_live():
            self.fail(pages.DEVICE_LIVE_LIMIT)
            return
        upstream = None
        if not self._attempts and retry.may_use_pooled(head.method, has_body=head.has_body):
            upstream = session.idle.take()
        if upstream is None:
            upstream = device.open(session, UpstreamStream)
        if upstream is not None:
            self._send_over(upstream)
        elif not device.may_wait():
            self.fail(pages.DEVICE_OFFLINE)
        elif device.enqueue(self, session):
            self._waits_in = device
            self.visitor.deadline = 0.0  # the queue has its own
            self.visitor.update_reading()
        else:
            self.fail(pages.DEVICE_BUSY)

    def take_stream(self, device: DeviceTunnels) -> bool:
        """Its turn in the queue; False when there is no stream after all."""
        assert self.session is not None
        upstream = device.open(self.session, UpstreamStream)
        if upstream is None:
            return False
        self._send_over(upstream)
        return True

    def _send_over(self, upstream: UpstreamStream) -> None:
        """OPEN, head, and whatever of the body is here leave in one message."""
        self._waits_in = None
        self._attempts += 1
        self._grant_number = upstream.session.grant_number
        self.upstream = upstream
        upstream.begin(self)
        upstream.send(self._request)
        held, self._held_body = self._held_body, None
        if held:
            for data in held:
                self._send_body(data)
        if self.request_done:
            self._end_request()
        self._next_deadline()
        if self.visitor.reading_paused:
            self.visitor.update_reading()

    def request_body(self, data: bytes) -> None:
        """Body bytes from the visitor, without their framing."""
        if self.passing is not None:
            self.passing.received += len(data)
        if self.local_body is not None:
            reserved.collect(self, data)
        elif self.done:
            return  # answered already; the rest is read and forgotten
        elif self.upstream is None:
            if self._held_body is None:
                self._held_body = []
            self._held_body.append(data)
            self.visitor.update_reading()
        else:
            self._send_body(data)
            self._next_deadline()

    def _send_body(self, data: bytes) -> None:
        upstream = self.upstream
        if upstream is None:
            return  # it failed under our hands
        self._body_sent = True
        if self.head.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if not upstream.send(data):
            self.visitor.update_reading()

    def request_complete(self) -> None:
        """The visitor sent all of it."""
        self.request_done = True
        if self.local_body is not None:
            reserved.complete(self)
        elif self.upstream is not None and self.head.has_body:
            self._end_request()
            self._next_deadline()

    def _end_request(self) -> None:
        if self.head.chunked and self.upstream is not None:
            self._body_sent = True
            self.upstream.send(b"0\r\n\r\n")

    def blocks_reading(self) -> bool:
        """Whether the visitor's next bytes have nowhere to go yet."""
        if self.done or not self.started:
            return False
        if self.upstream is not None:
            return self.upstream.blocked
        return self._held_body is not None

    # From the device

    def upstream_refused(self, code: RefusedCode) -> None:
        """The device did not open the stream."""
        self.upstream = None
        if code in _UNSERVED and not self._body_sent and self._attempts < retry.MAX_ATTEMPTS:
            self.again()
            return
        what, session = _REFUSED_PAGES.get(code, pages.BAD_GATEWAY), self.session
        if code not in _NEEDS_GRANT or self._body_sent or self._grant_renewed or session is None:
            self.fail(what)
            return
        self._grant_renewed = True
        gateway_calls.ask(
            self, gateway_calls.renew_grant(self, session, self._grant_number, what), "renew_grant"
        )

    def upstream_failed(self) -> None:
        """The stream broke, or the answer is no HTTP: once more, or an error the visitor sees."""
        self._once_more_or(pages.BAD_GATEWAY)

    def upstream_lost(self) -> None:
        """The tunnel is gone: another one of the device may serve it, else it is offline."""
        self._once_more_or(pages.DEVICE_OFFLINE)

    def _once_more_or(self, what: pages.Notice) -> None:
        self.upstream = None
        if retry.may_retry(
            self.head.method,
            attempts=self._attempts,
            response_started=self.response_started,
            body_sent=self._body_sent,
        ):
            self.again()
        else:
            self.fail(what)

    def again(self) -> None:
        """Send it once more: no byte of its answer has come, and nothing was sent that is gone."""
        session = self.session
        assert session is not None
        device = self.visitor.edge.registry.find(session.facts.device_id)
        if device is None:
            self.fail(pages.DEVICE_OFFLINE)
            return
        self.visitor.edge.metrics.retries.inc()
        self._send(device, session)

    def response_done(self, *, keep: bool) -> None:
        """The whole answer is with the visitor's transport."""
        self.upstream = None
        self._finish()
        self.visitor.exchange_done(self, keep=keep)

    def switched(self, splice: RawSplice) -> None:
        """The device's valid 101: from here on the stream belongs to the visitor's connection."""
        self.upstream = None
        self.status = 101
        if self.passing is not None:
            splice.passing, self.passing = self.passing, None
            splice.passing.status = 101
        self._finish()
        self.visitor.edge.metrics.upgrades.inc()

    def opened(self) -> None:
        """The device accepted the stream."""
        if self.wants_kind == tcp_door.KIND:
            tcp_door.enter(self)
        else:
            self._next_deadline()

    def _next_deadline(self) -> None:
        """The limit of what is waited for now."""
        visitor, upstream = self.visitor, self.upstream
        if upstream is None or self.done:
            return
        edge = visitor.edge
        limits = edge.device_limits
        if upstream.blocked or visitor.write_paused:
            limit = edge.limits.stall_s
        elif not self.request_done:
            limit = edge.limits.body_idle_s
        elif not upstream.is_open:
            limit = limits.open_s
        elif not self.response_started:
            limit = limits.response_head_s
        elif upstream.has_length:
            limit = limits.response_idle_s
        else:
            visitor.deadline = 0.0  # an event stream may be quiet for ever
            return
        visitor.deadline = edge.monotonic() + limit

    progressed = _next_deadline

    # Ends

    def fail(self, what: pages.Notice) -> None:
        """Answer with a page, or cut what has begun: a cut body must not look complete."""
        if self.done:
            return
        if self.response_started:
            self.abort()
            return
        visitor = self.visitor
        keep = self.visitor_keeps and self.request_done_or_bodyless and not visitor.edge.draining
        head, body = pages.notice(what, self.head.accept, keep=keep, target=self.head.target)
        visitor.edge.metrics.own_answers.labels(what.code).inc()
        self.answer(what.status, head, body, keep=keep)

    @property
    def request_done_or_bodyless(self) -> bool:
        """Whether no byte of this request can still come."""
        return self.request_done or not self.head.has_body

    def answer(self, status: int, head: bytes, body: bytes, *, keep: bool) -> None:
        """One of our own answers."""
        if self.done:
            return
        self.status = status
        self.response_started = True
        if self.passing is not None and self.head.method != b"HEAD":
            self.passing.sent += len(body)
        self.visitor.transport.write(head if self.head.method == b"HEAD" else head + body)
        self._release()
        self._finish()
        self.visitor.exchange_done(self, keep=keep)

    def abort(self) -> None:
        """Cut the visitor off."""
        self._release()
        self._finish()
        self.visitor.edge.metrics.cut_answers.inc()
        self.visitor.abort()

    def visitor_gone(self) -> None:
        """The visitor's connection ended."""
        self._release()
        self._finish()

    def session_ended(self, session: Session) -> None:
        """Not one byte more may pass."""
        self.fail(pages.SESSION_ENDED)

    def deadline_passed(self, now: float) -> None:
        """What is waited for did not come."""
        if self.visitor.write_paused:
            self.abort()
        elif self.asks_gateway:
            self.fail(pages.CONTROL_LOST)
        elif self.upstream is None or not self.request_done_or_bodyless:
            self.visitor_keeps = False
            self.fail(pages.REQUEST_TIMEOUT)
        else:
            self.fail(pages.GATEWAY_TIMEOUT)

    def queue_expired(self) -> None:
        """No stream of the device came free in time."""
        self._waits_in = None
        self.fail(pages.DEVICE_BUSY)

    def device_lost(self) -> None:
        """The device went away while this waited for a stream of it."""
        self._waits_in = None
        self.fail(pages.DEVICE_OFFLINE)

    def _release(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon(ResetCode.CANCELLED)
        waits_in, self._waits_in = self._waits_in, None
        if waits_in is not None:
            waits_in.forget(self)

    def _finish(self) -> None:
        if self.done:
            return
        self.done = True
        self._held_body = None
        session = self.session
        if session is not None:
            session.exchanges.discard(self)
        if self.passing is not None:
            self.passing.status = self.status
            self.passing.end()
        if self.started:
            edge = self.visitor.edge
            edge.metrics.request_ended(self.status, edge.monotonic() - self.started_at)

    # The visitor's transport

    def visitor_paused(self) -> None:
        """The visitor takes no more for now."""
        self._next_deadline()

    def visitor_resumed(self) -> None:
        """The visitor takes bytes again: the device gets its credit back."""
        if self.upstream is not None:
            self.upstream.visitor_resumed()
        self._next_deadline()
