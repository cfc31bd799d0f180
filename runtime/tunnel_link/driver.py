"""A machine on a link: reads, writes, timers, and every event to the one it concerns."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Final, Protocol

from runtime.tunnel_link.link import PAD, Link
from runtime.tunnel_link.ticker import Ticker
from tunnel_protocol import (
    WEBSOCKET_STATUS_BASE,
    CloseCode,
    Connection,
    ConnectionLost,
    ConnectionState,
    DataReceived,
    Event,
    Hello,
    Limits,
    LinkPace,
    PeerReady,
    RefusedCode,
    ResetCode,
    Side,
    Stream,
    StreamAccepted,
    StreamFinished,
    StreamRefused,
    StreamReset,
    Writable,
)

_log = logging.getLogger("towline.tunnel_link")

HOLD_S: Final = 0.02  # how long a slow link's kernel is left alone between two looks at it

_STREAM_EVENTS: Final = (StreamAccepted, StreamRefused, StreamFinished, StreamReset, Writable)


class StreamOwner(Protocol):
    """What Stream.owner must be. After refused, reset or lost nothing more is called."""

    def accepted(self) -> None: ...

    def refused(self, code: RefusedCode, message: str) -> None: ...

    def data(self, data: memoryview) -> None:
        """`data` is valid only during the call; once it is taken, return its credit with Stream.consumed."""

    def finished(self) -> None: ...

    def reset(self, code: ResetCode) -> None: ...

    def writable(self) -> None: ...

    def lost(self, reason: str) -> None:
        """The connection ended under the stream."""


class TunnelDriver(ABC):
    """One tunnel connection. A LinkOwner; subclass it for a server's or an agent's side.

    Events of a stream go to its owner, all others to on_event. ConnectionLost comes last and exactly once,
    after the owners of all live streams were told; also when the link never opened (call failed then).
    """

    __slots__ = ("_dispatching", "_held", "_pace", "_unseen", "connection", "link", "ticker", "timer_at")

    def __init__(self, side: Side, limits: Limits, ticker: Ticker, hello: Hello | None = None) -> None:
        self.ticker = ticker
        self.link: Link | None = None  # None before link_open and after link_closed
        self.timer_at = 0.0
        self._pace = LinkPace()
        self._dispatching = False
        self._held = False  # waits for the kernel to send what it has
        self._unseen = 0  # bytes since the last look at the kernel
        self.connection = Connection(side, limits, ticker.now(), wake=self._wake, hello=hello)
        ticker.arm(self, self.connection.next_timer())

    # For subclasses

    def on_open(self) -> None:  # noqa: B027 - a device's side has nothing to say first
        """The link is open: the server's side calls connection.challenge here."""

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """Handles what concerns no stream's owner.

        ChallengeReceived, AuthReceived, PeerReady, GrantReceived, GrantRevoked, StreamRequested,
        GoawayReceived, Drained, ConnectionLost.
        """

    # For users

    def now(self) -> float:
        """What the machine's `now` arguments want."""
        return self.ticker.now()

    def flush(self) -> None:
        """Sends what may leave; happens by itself once a loop turn. Call it after a send that borrowed."""
        connection, link, pace = self.connection, self.link, self._pace
        if link is not None:
            while not connection.blocked:
                message = connection.next_message(pace.batch, PAD)
                if message is None:
                    break
                link.send(message)
                if pace.careful:
                    self._unseen += len(message)
                    if self._unseen > pace.batch // 2:
                        self._look(link)
        if connection.borrowed:
            connection.keep_borrowed()
        if connection.has_events:
            if self._dispatching:
                self.ticker.mark(
                    self
                )  # an owner flushes from within an event: the newer ones come after the older
            else:
                self._dispatch(connection.take_events())

    def failed(self, reason: str) -> None:
        """The link did not come about."""
        self._dispatch(self.connection.link_closed(None, reason))

    # LinkOwner

    def link_open(self, link: Link) -> None:
        self.link = link
        self._follow_pace()
        if self.connection.state is ConnectionState.CLOSED:
            link.close(WEBSOCKET_STATUS_BASE + CloseCode.NORMAL, "closed before it opened")
            return
        self.on_open()

    def link_message(self, link: Link, message: memoryview) -> None:
        events = self.connection.receive(message, self.ticker.now())
        if events:
            self._dispatch(events)

    def link_paused(self, link: Link) -> None:
        if not self._held:
            self.connection.blocked = True
            self._pace.paused(self.ticker.now(), link.unsent)

    def link_resumed(self, link: Link) -> None:
        if not self._held:
            self._go_on(link.unsent)

    def link_closed(self, link: Link, status: int | None, reason: str) -> None:
        self.link = None
        self._dispatch(self.connection.link_closed(status, reason))

    # Ticked

    def tick(self, now: float) -> None:
        if self.link is not None:
            self.connection.heard(now - self.link.silence_s)
        events = self.connection.handle_timer(now)
        self.ticker.arm(self, self.connection.next_timer())
        self._dispatch(events)

    def broke(self) -> None:
        if self.link is not None:
            self.link.abort()
        else:
            self.failed("this side failed")

    def _wake(self, connection: Connection) -> None:
        self.ticker.mark(self)

    # Pace

    def _look(self, link: Link) -> None:
        """On links not known to be fast: kernels may take far more than they send; nothing passes that."""
        self._unseen = 0
        kernel, pace = link.in_kernel, self._pace
        if pace.is_full(kernel.held, kernel.unsent, kernel.rtt_s, kernel.min_rtt_s):
            if not link.paused:
                self._hold(kernel.held)
        elif not kernel.unsent and pace.full_batch_left(kernel.min_rtt_s):
            self._follow_pace()

    def _hold(self, backlog: int) -> None:
        self._held = self.connection.blocked = True
        self._pace.paused(self.ticker.now(), backlog)
        self.ticker.later(HOLD_S, self._release)

    def _release(self) -> None:
        self._held = False
        link = self.link
        if link is None:
            return
        kernel, pace = link.in_kernel, self._pace
        full = pace.stays_full(kernel.held, kernel.unsent, kernel.rtt_s, kernel.min_rtt_s)
        if full and not link.paused:
            self.ticker.later(HOLD_S, self._release)
        else:
            self._go_on(kernel.held)
            if link.paused:
                self.link_paused(link)

    def _go_on(self, backlog: int) -> None:
        self.connection.blocked = False
        if self._pace.resumed(self.ticker.now(), backlog):
            self._follow_pace()
        self.ticker.mark(self)

    def _follow_pace(self) -> None:
        batch = self._pace.batch
        self.connection.outbox.batch_limit = batch
        if self.link is not None:
            self.link.set_buffers(batch, 2 * batch)

    def _dispatch(self, events: list[Event]) -> None:
        self._dispatching = True
        try:
            for event in events:
                if type(event) is DataReceived:
                    owner = event.stream.owner
                    if owner is not None:  # None: its owner has reset it
                        try:
                            owner.data(event.data)
                        except Exception:
                            self._owner_failed(event.stream)
                elif isinstance(event, _STREAM_EVENTS):
                    self._tell_owner(event)
                else:
                    self._tell_user(event)
        finally:
            self._dispatching = False

    def _tell_user(self, event: Event) -> None:
        if isinstance(event, ConnectionLost):
            self._lost(event)
            return
        if isinstance(event, PeerReady):
            self.ticker.arm(self, self.connection.next_timer())
        self._tell(event)

    def _tell_owner(self, event: Event) -> None:
        assert isinstance(event, _STREAM_EVENTS)
        owner: StreamOwner | None = event.stream.owner
        if owner is None:  # reset by it, or asked for by the peer and ended before anyone accepted it
            return
        try:
            match event:
                case StreamAccepted():
                    owner.accepted()
                case StreamRefused():
                    owner.refused(event.code, event.message)
                case StreamFinished():
                    owner.finished()
                case StreamReset():
                    owner.reset(event.code)
                case Writable():
                    owner.writable()
        except Exception:
            self._owner_failed(event.stream)

    def _owner_failed(self, stream: Stream) -> None:
        _log.exception("a stream's owner failed", extra={"stream": stream.id})
        stream.reset(ResetCode.INTERNAL)

    def _tell(self, event: Event) -> None:
        try:
            self.on_event(event)
        except Exception:
            _log.exception("a tunnel's event failed", extra={"event": type(event).__name__})
            self.connection.close(CloseCode.INTERNAL, "the other side failed")

    def _lost(self, event: ConnectionLost) -> None:
        self.ticker.arm(self, float("inf"))
        self._say_goodbye(event)
        for stream in self.connection.streams():
            owner: StreamOwner | None = stream.owner
            if owner is not None:
                try:
                    owner.lost(event.reason)
                except Exception:
                    self._owner_failed(stream)
        self._tell(event)

    def _say_goodbye(self, event: ConnectionLost) -> None:
        """The last frames and the close leave even through a paused link: they are few, nothing follows."""
        if self.link is None:
            return
        while (message := self.connection.next_message(self._pace.batch, PAD)) is not None:
            self.link.send(message)
        code = CloseCode.NORMAL if event.code is None else event.code
        self.link.close(WEBSOCKET_STATUS_BASE + code, event.reason)
