"""A stream behind the TCP door: its bytes in binary messages, its ends as messages and close codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime import websocket_frames as frames
from runtime.tcp_door import BYTES_PER_FRAME, FRAMES_BURST, FRAMES_PER_S, DoorClose
from runtime.websocket_frames import (
    Close,
    EmptyMessage,
    FrameError,
    FrameEvent,
    FrameReader,
    Opcode,
    Payload,
    Ping,
    close_frame,
    frame,
    frame_head,
)
from tunnel_protocol import ResetCode, Stream
from tunnel_server.edge.raw_splice import RawSplice
from tunnel_server.policy.rates import TokenBucket

if TYPE_CHECKING:
    from tunnel_server.edge.visitor import VisitorConnection
    from tunnel_server.sessions import Session
    from tunnel_server.tunnels.registry import DeviceTunnels
    from tunnel_server.tunnels.tunnel import Tunnel

# Pings, pongs, empty frames: `towline connect` asks once in 20 s. Each costs us work, its sender 6 bytes.
HOLLOW_PER_S = 2.0
HOLLOW_BURST = 32.0

_RESETS = {
    ResetCode.UPSTREAM_RESET: (DoorClose.RESET, "the service broke the connection"),
    ResetCode.CANCELLED: (DoorClose.RESET, "the device gave the connection up"),
    ResetCode.GRANT_ENDED: (DoorClose.SESSION_ENDED, "ended at the device"),
    ResetCode.TIMEOUT: (DoorClose.TIMEOUT, "the device gave up waiting"),
}
_FAILED = (DoorClose.FAILED, "the device failed")


class TcpSplice(RawSplice):
    """``_ended_here``: the visitor's direction is over; ``_ended_there``: the device's is."""

    __slots__ = (
        "_earned_at",
        "_ended_here",
        "_ended_there",
        "_frames",
        "_hollow",
        "_hollow_seen",
        "_said_farewell",
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
        super().__init__(
            visitor,
            stream,
            device=device,
            tunnel=tunnel,
            session=session,
            blocked=blocked,
            unconsumed=unconsumed,
        )
        now = device.monotonic()
        self._frames = FrameReader(masked=True)
        self._frames.left = FRAMES_BURST
        self._earned_at = now  # frames, by time
        self._hollow = TokenBucket(HOLLOW_PER_S, HOLLOW_BURST, now)
        self._hollow_seen = 0
        self._ended_here = False
        self._ended_there = False
        self._said_farewell = False

    # The device's side

    def data(self, view: memoryview) -> None:
        if self._visitor is not None:
            size = len(view)
            self.relay(self._visitor, b"".join((frame_head(Opcode.BINARY, size), view)), size)

    def finished(self) -> None:
        self._ended_there = True
        if self._visitor is not None:
            self._visitor.transport.write(frame(Opcode.BINARY, b""))
            self._farewell_if_over()

    def writable(self) -> None:
        super().writable()
        self._farewell_if_over()  # it may be the visitor's last bytes that left

    def reset(self, code: ResetCode) -> None:
        self._count_out()
        self._device.stream_ended()
        self._say_close(*_RESETS.get(code, _FAILED))

    def lost(self, reason: str) -> None:
        self._count_out()
        self._say_close(DoorClose.DEVICE_LOST, "the device's tunnel ended")

    # The visitor's side

    def send(self, data: bytes) -> None:
        """Bytes of the visitor's WebSocket."""
        self._earn_frames(len(data))
        try:
            events = self._frames.feed(data)
        except FrameError as error:
            self._cut(error.code, error.reason)
            return
        while self._hollow_seen < self._frames.hollow:
            self._hollow_seen += 1
            if not self._hollow.take(self._device.monotonic()):
                self._cut(frames.POLICY, "too many frames without a payload")
                return
        for event in events:
            if self._visitor is None:
                return  # one of them ended it
            self._handle(self._visitor, event)

    def _earn_frames(self, size: int) -> None:
        """What time and the bytes of this read allow. The bytes' frames come with them, and none later."""
        now = self._device.monotonic()
        frames = self._frames
        earned = (now - self._earned_at) * FRAMES_PER_S
        frames.left = min(FRAMES_BURST, frames.left + earned) + size / BYTES_PER_FRAME
        self._earned_at = now

    def _handle(self, visitor: VisitorConnection, event: FrameEvent) -> None:
        if self._ended_here and isinstance(event, Payload | EmptyMessage):
            self._cut(frames.PROTOCOL_ERROR, "a message behind the end of its direction")
        elif isinstance(event, Payload):
            super().send(event.data)
        elif isinstance(event, EmptyMessage):
            self._ended_here = True
            if not self._over:
                self._stream.finish(tell=True)
            self._farewell_if_over()
        elif isinstance(event, Ping):
            if not visitor.write_paused:  # who takes no answers needs none
                visitor.transport.write(frame(Opcode.PONG, event.data))
        elif isinstance(event, Close):
            # Behind our farewell its answer; else the client broke it off.
            if self._said_farewell:
                self._leave(visitor)
                return
            self._cut(frames.NORMAL if event.code == frames.NO_STATUS else event.code, "")

    def finish(self) -> None:
        """The visitor's TCP ended without a Close: nobody is there any more."""
        visitor = self._visitor
        self._close(ResetCode.CANCELLED)
        if visitor is not None:
            self._lose_visitor()

    def session_ended(self, session: Session) -> None:
        """Not one byte more may pass."""
        self._close(ResetCode.GRANT_ENDED)
        visitor = self._visitor
        why = None if visitor is None else visitor.edge.sessions.why_ended(session.cookie_hash)
        self._say_close(DoorClose.SESSION_ENDED, why or "revoked")

    # Ends

    def _farewell_if_over(self) -> None:
        """Behind both ends: the Close that says so, in order behind the device's last bytes.

        The client may take those slowly, and its answer tells that it took them: until then the session's end
        still cuts. Our own transport cannot tell; under TLS it keeps bytes that it does not count.
        """
        visitor = self._visitor
        if visitor is None or self._said_farewell:
            return
        if self._ended_here and self._ended_there and self._stream.over:
            self._said_farewell = True
            self._close(ResetCode.CANCELLED)  # of the counts alone: it is over
            visitor.transport.write(close_frame(frames.NORMAL, ""))
            self.blocked = False  # its answer is to be read
            visitor.update_reading()
            if visitor.transport.can_write_eof():
                visitor.finish_raw()
            else:  # TLS has no half-closed state: the client's answer ends it
                visitor.finished_there = True
                visitor.deadline = self._device.monotonic() + visitor.edge.limits.stall_s

    def _leave(self, visitor: VisitorConnection) -> None:
        self._visitor = None
        self._leave_session()
        visitor.raw = None
        visitor.linger()

    def _cut(self, code: int, reason: str) -> None:
        self._close(ResetCode.CANCELLED)
        self._say_close(code, reason)

    def _say_close(self, code: int, reason: str) -> None:
        """The last frame, and time to read it: a close with unread bytes would reset it away."""
        visitor = self._visitor
        if visitor is None:
            self._leave_session()
        elif visitor.write_paused or self._said_farewell:
            self._lose_visitor()  # it reads nothing; what waits for it must not pass
        else:
            visitor.transport.write(close_frame(code, reason))
            self._leave(visitor)
