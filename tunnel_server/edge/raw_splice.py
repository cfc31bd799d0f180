"""A stream after the device's valid 101: bytes pass as they are, both ways, until either side ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunnel_protocol import RefusedCode, ResetCode

if TYPE_CHECKING:
    from tunnel_protocol import Stream
    from tunnel_server.control.request_log import Passing
    from tunnel_server.edge.visitor import VisitorConnection
    from tunnel_server.sessions import Session
    from tunnel_server.tunnels.registry import DeviceTunnels
    from tunnel_server.tunnels.tunnel import Tunnel


class RawSplice:
    """Takes the stream over from its ``UpstreamStream``, with its place in the tunnel's counts.

    It counts among the device's long-lived streams already. ``blocked``: the device takes no more for now.
    """

    __slots__ = (
        "_device",
        "_over",
        "_session",
        "_stream",
        "_tunnel",
        "_unconsumed",
        "_visitor",
        "blocked",
        "passing",
    )

    def __init__(
        self,
        visitor: VisitorConnection,
        stream: Stream,
        *,
        device: DeviceTunnels,
        tunnel: Tunnel,
        session: Session,
        blocked: bool,
        unconsumed: int,
    ) -> None:
        self._visitor: VisitorConnection | None = visitor
        self._stream = stream
        self._device = device
        self._tunnel = tunnel
        self._session = session
        self._unconsumed = unconsumed
        self._over = False
        self.blocked = blocked
        self.passing: Passing | None = None  # its entry in the request log; of support sessions alone
        stream.owner = self
        session.exchanges.add(self)

    # The device's side (StreamOwner)

    def accepted(self) -> None:
        """It was, before its first byte."""

    def refused(self, code: RefusedCode, message: str) -> None:
        """No peer does this after a byte; the stream is over then."""
        self.reset(ResetCode.INTERNAL)

    def data(self, view: memoryview) -> None:
        if self._visitor is not None:
            self.relay(self._visitor, bytes(view), len(view))

    def relay(self, visitor: VisitorConnection, data: bytes, size: int) -> None:
        """``data`` to the visitor; ``size`` bytes of the stream are consumed once the visitor takes them."""
        visitor.transport.write(data)
        if self.passing is not None:
            self.passing.sent += size
        if visitor.write_paused:
            self._unconsumed += size
        else:
            self._stream.consumed(size, self._device.monotonic())

    def finished(self) -> None:
        if self._visitor is not None:
            self._visitor.finish_raw()

    def reset(self, code: ResetCode) -> None:
        self._count_out()
        self._device.stream_ended()
        self._lose_visitor()

    def writable(self) -> None:
        self.blocked = False
        if self._visitor is not None:
            self._visitor.update_reading()

    def lost(self, reason: str) -> None:
        self._count_out()
        self._lose_visitor()

    # The visitor's side

    def send(self, data: bytes) -> None:
        """Bytes of the visitor's WebSocket."""
        if self.passing is not None:
            self.passing.received += len(data)
        if self._over or self._stream.send(data, self._device.monotonic()):
            return
        self.blocked = True
        if self._visitor is not None:
            self._visitor.update_reading()

    def finish(self) -> None:
        """The visitor's FIN."""
        if not self._over:
            self._stream.finish()

    def visitor_resumed(self) -> None:
        """The visitor's transport has room again: return the credit that was held back."""
        held, self._unconsumed = self._unconsumed, 0
        if held:
            self._stream.consumed(held, self._device.monotonic())

    def visitor_gone(self) -> None:
        """The visitor's connection ended."""
        self._visitor = None
        self._leave_session()
        self._close(ResetCode.CANCELLED)

    def session_ended(self, session: Session) -> None:
        """Not one byte more may pass."""
        self._close(ResetCode.GRANT_ENDED)
        self._lose_visitor()

    # Ends

    def _leave_session(self) -> None:
        """Nothing passes any more."""
        self._session.exchanges.discard(self)
        if self.passing is not None:
            self.passing.end()

    def _lose_visitor(self) -> None:
        visitor, self._visitor = self._visitor, None
        self._leave_session()
        if visitor is not None:
            visitor.raw = None
            visitor.abort()

    def _close(self, code: ResetCode) -> None:
        if not self._over:
            self._stream.reset(code)
            self._count_out()
            self._device.stream_ended()

    def _count_out(self) -> None:
        if not self._over:
            self._over = True
            self._tunnel.in_use -= 1
            self._device.live_ended(self._tunnel)
