"""One tunnel connection: messages in, events out; calls in, messages out. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tunnel_protocol.allowance import ControlAllowance
from tunnel_protocol.codes import (
    DRAINING_CODES,
    GRANT_ID_SIZE,
    HEADER_SIZE,
    MAX_STREAM_ID,
    WEBSOCKET_STATUS_BASE,
    CloseCode,
    FrameType,
    RefusedCode,
    Side,
    close_code,
)
from tunnel_protocol.credit import WindowBudget, connection_window
from tunnel_protocol.errors import ConnectionDraining, Misuse, ProtocolViolation, StreamLimit
from tunnel_protocol.events import (
    ConnectionLost,
    DataReceived,
    Drained,
    Event,
    Fault,
    GoawayReceived,
    StreamRefused,
)
from tunnel_protocol.fields import Hello
from tunnel_protocol.frames import HEADER, credit_frame, frame, goaway_frame, grant_frame, open_frame
from tunnel_protocol.handshake import Handshake
from tunnel_protocol.incoming import receive_control
from tunnel_protocol.limits import Limits
from tunnel_protocol.liveness import Verdict
from tunnel_protocol.scheduler import Outbox
from tunnel_protocol.states import ConnectionState, StreamState
from tunnel_protocol.stream import Stream

_DATA: Final = int(FrameType.DATA)
_unpack_header = HEADER.unpack_from


class Connection(Handshake):
    """A machine for one side. `now` is monotonic seconds everywhere.

    wake(connection) is called when there is output or a pending event where there was neither.
    """

    __slots__ = (
        "_allowance",
        "_dead_data",
        "_drain_wanted",
        "_lost_as",
        "_next_id",
        "_on_wake",
        "_own_streams",
        "_peer_drains",
        "_peer_streams",
        "_peer_top_id",
        "_receive_limit",
        "_received",
        "_return_at",
        "_room_news",
        "_streams",
        "_waiting",
        "budget",
    )

    def __init__(
        self,
        side: Side,
        limits: Limits,
        now: float,
        *,
        wake: Callable[[Connection], None],
        hello: Hello | None = None,
    ) -> None:
        super().__init__(side, limits, now, Outbox(self._wake, self._overflow), hello)
        self._on_wake = wake
        self._lost_as: tuple[Fault, CloseCode, str] = ("peer", CloseCode.NORMAL, "")  # how a drain ends
        self._drain_wanted = False
        self._peer_drains = False  # a GOAWAY came that lets the live streams finish
        self._streams: dict[int, Stream] = {}
        self._next_id = 1 if side is Side.SERVER else 2
        self._peer_top_id = 0  # highest id that the peer opened
        self._own_streams = 0
        self._peer_streams = 0
        self._waiting: dict[Stream, None] | None = None  # streams that want Writable
        self._room_news = False  # connection credit came, which the waiting were not told of yet
        self._received = 0
        self._receive_limit = limits.connection_window
        self._return_at = max(limits.connection_window // 2, 1)
        self._dead_data = 0  # bytes that may still come for streams that we cut: their credit
        self._allowance = ControlAllowance(now)
        self.budget = WindowBudget(limits.window_budget, limits.stream_window, limits.stream_window_max)

    def __repr__(self) -> str:
        streams, queued = len(self._streams), self.outbox.queued
        return f"<Connection {self.side.value} {self.state.name} {streams=} {queued=}>"

    # Input

    def receive(self, message: bytes | memoryview, now: float) -> list[Event]:
        """The events of one WebSocket message. Never raises on what the peer sent."""
        self.liveness.last_inbound = now
        size = len(message)
        if self.live and not self._events and HEADER_SIZE < size <= self._max_message:
            kind, flags, length, stream_id = _unpack_header(message)
            if kind == _DATA and not flags and length == size - HEADER_SIZE:
                stream = self._streams.get(stream_id)
                if stream is not None and stream.flowing and length <= self.limits.max_frame:
                    received = stream.received + length
                    total = self._received + length
                    if received <= stream.receive_limit and total <= self._receive_limit:
                        stream.received = received
                        self._received = total
                        if total >= self._return_at:
                            self._return_credit()
                        view = message if type(message) is memoryview else memoryview(message)
                        return [DataReceived(stream, view[HEADER_SIZE:])]
        if self.state is not ConnectionState.CLOSED:
            try:
                self._receive_frames(memoryview(message), size, now)
            except ProtocolViolation as violation:
                self._lose("peer", violation.code, violation.reason)
        return self.take_events()

    def _receive_frames(self, message: memoryview, size: int, now: float) -> None:
        self._check_size(size)
        position = 0
        while position < size and self.state is not ConnectionState.CLOSED:
            start = position + HEADER_SIZE
            if start > size:
                raise ProtocolViolation("a frame header is cut short")
            kind, flags, length, stream_id = _unpack_header(message, position)
            position = start + length
            if position > size:
                raise ProtocolViolation("a frame is longer than its message")
            if flags:
                raise ProtocolViolation("flags are not 0")
            if kind == _DATA and self.live:
                self._receive_data(stream_id, message[start:position], length, now)
            else:
                self._spend(now)
                receive_control(self, kind, stream_id, message[start:position], size - length, now)
        if self._room_news:
            self._tell_waiting()

    def _check_size(self, size: int) -> None:
        if not size:
            raise ProtocolViolation("an empty message")
        if size > self._max_message:
            raise ProtocolViolation(f"a message of {size} bytes is over the limit of {self._max_message}")

    def _receive_data(self, stream_id: int, data: memoryview, length: int, now: float) -> None:
        if not 0 < length <= self.limits.max_frame:
            raise ProtocolViolation("DATA: empty or over max_frame")
        stream = self._streams.get(stream_id)
        self._received += length
        if self._received > self._receive_limit:
            raise ProtocolViolation("DATA: over the connection's credit", CloseCode.FLOW_CONTROL)
        if stream is not None:
            stream.received += length
            if stream.received > stream.receive_limit:
                raise ProtocolViolation("DATA: over the stream's credit", CloseCode.FLOW_CONTROL)
            if stream.flowing:
                self._events.append(DataReceived(stream, data))
            elif stream.advance(FrameType.DATA):
                stream.keep_early(data)
            else:
                raise ProtocolViolation("DATA: not allowed in the stream's state")
        elif self.was_opened(stream_id):
            if length <= self._dead_data:
                self._dead_data -= length
            else:
                self._spend(now)
        else:
            raise ProtocolViolation("DATA: the stream was never opened")
        if self._received >= self._return_at:
            self._return_credit()

    def _spend(self, now: float) -> None:
        """A frame came that carries nothing anybody takes."""
        allowance = self._allowance
        if allowance.left:
            allowance.left -= 1
        else:
            allowance.fill(now, self._next_id, self.outbox.sent)

    def _return_credit(self) -> None:
        window, step = connection_window(self.limits.connection_window, self.liveness.rtt_s)
        self._return_at = self._received + step
        if self._received + window > self._receive_limit:  # else more was promised while the peer seemed far
            self._receive_limit = self._received + window
            self.outbox.add_control(credit_frame(0, self._receive_limit))

    def handle_timer(self, now: float) -> list[Event]:
        """To be called at or after next_timer()."""
        if now >= self.liveness.timer_at and self.state is not ConnectionState.CLOSED:
            if self.live:
                self._keep_alive(now)
            else:
                self._lose("timeout", CloseCode.HANDSHAKE_TIMEOUT, "the handshake did not end in time")
        return self.take_events()

    def heard(self, at: float) -> None:
        """Bytes came, the last of them at `at`: also a part of a message proves life (section 10)."""
        if at > self.liveness.last_inbound:
            self.liveness.last_inbound = at

    def next_timer(self) -> float:
        """When to call handle_timer. Changes by handle_timer and with PeerReady; inf once lost."""
        return self.liveness.timer_at

    def _keep_alive(self, now: float) -> None:
        verdict = self.liveness.judge(now)
        if verdict is Verdict.DEAD:
            self._lose("timeout", CloseCode.KEEPALIVE_TIMEOUT, "nothing came in time")
            return
        if verdict is Verdict.ASK:
            self.outbox.add_control(frame(FrameType.PING, self.liveness.ping(now)))
        self.budget.park_unused(self._streams.values())

    def link_closed(self, status: int | None, reason: str) -> list[Event]:
        """The WebSocket is gone; `status` is its close status, None when it broke without one."""
        code = (
            close_code(status - WEBSOCKET_STATUS_BASE) if status and status >= WEBSOCKET_STATUS_BASE else None
        )
        if self.state is not ConnectionState.CLOSED:
            self._end("peer", code, reason or "the link broke")
            self.outbox.purge(control=True)
        return self.take_events()

    def peer_said_hello(self, hello: Hello, now: float) -> None:
        super().peer_said_hello(hello, now)
        self._allowance.open(hello.stream_window, hello.connection_window)

    # Streams and grants

    def grant(self, grant_id: bytes, token: bytes) -> None:
        """Server: must come before the first open_stream that names the grant."""
        if self.live:
            self.outbox.add_control(grant_frame(grant_id, token))

    def revoke(self, grant_id: bytes) -> None:
        """Server: the device ends the grant's streams."""
        if len(grant_id) != GRANT_ID_SIZE:
            raise Misuse("revoke: a grant id has 16 bytes")
        if self.live:
            self.outbox.add_control(frame(FrameType.REVOKE, grant_id))

    def open_stream(
        self, device: str, service: str, grant_id: bytes, owner: object, now: float | None = None
    ) -> Stream:
        """A new stream; it may send at once. Raises StreamLimit or ConnectionDraining."""
        if self.state is not ConnectionState.OPEN:
            raise ConnectionDraining(f"the connection is {self.state.name.lower()}")
        if self._own_streams + self.outbox.unsent_ends >= self.peer_max_streams:
            raise StreamLimit(f"all {self.peer_max_streams} streams are in use")
        stream_id = self._next_id
        if stream_id >= MAX_STREAM_ID:
            self.drain(0, "stream ids are used up", CloseCode.IDS_EXHAUSTED)
            raise ConnectionDraining("stream ids are used up")
        open_ = open_frame(stream_id, device, service, grant_id)
        self._next_id += 2
        self._own_streams += 1
        stream = self._new_stream(
            stream_id, StreamState.OPENING, self.liveness.last_inbound if now is None else now
        )
        stream.owner = owner
        self.outbox.add_control(open_)
        return stream

    def peer_opens(self, stream_id: int, now: float) -> Stream | None:
        """For the frame rules: the peer's OPEN. None: refused here."""
        if self.is_own_id(stream_id) or not self._peer_top_id < stream_id < MAX_STREAM_ID:
            raise ProtocolViolation("OPEN: the stream id does not rise or is of the wrong side")
        self._peer_top_id = stream_id
        stream = self._new_stream(stream_id, StreamState.REQUESTED, now)
        self._peer_streams += 1
        if self.state is not ConnectionState.OPEN:
            stream.refuse(RefusedCode.DRAINING)
        elif self._peer_streams > self.limits.max_streams:
            stream.refuse(RefusedCode.TOO_MANY_STREAMS)
        else:
            self._allowance.stream_came()
            return stream
        return None

    def _new_stream(self, stream_id: int, state: StreamState, now: float) -> Stream:
        stream = Stream(
            self, self.outbox, stream_id, state, self.peer_stream_window, self.limits.stream_window, now
        )
        self._streams[stream_id] = stream
        return stream

    def streams(self) -> Sequence[Stream]:
        """The live ones; after ConnectionLost those that it ended."""
        return list(self._streams.values())

    def find_stream(self, stream_id: int) -> Stream | None:
        return self._streams.get(stream_id)

    def is_own_id(self, stream_id: int) -> bool:
        return stream_id % 2 == (1 if self.side is Side.SERVER else 0)

    def was_opened(self, stream_id: int) -> bool:
        """Whether the id is over rather than new: ids rise, so all up to the highest of its side are."""
        return 0 < stream_id < (self._next_id if self.is_own_id(stream_id) else self._peer_top_id + 1)

    def cut(self, stream: Stream) -> None:
        """For streams: this side ends it, and the peer may not know that yet."""
        if not stream.peer_finished:
            self._dead_data += stream.receive_limit - stream.received
        self.stream_over(stream)

    def stream_over(self, stream: Stream, *, fin_in_batch: bool = False) -> None:
        """For streams and frame rules: takes an ended stream out."""
        self.outbox.forget(stream)
        stream.mark_over()
        if self._streams.pop(stream.id, None) is None:
            return
        self.budget.release(stream)
        if self._waiting is not None:
            self._waiting.pop(stream, None)
        if self.is_own_id(stream.id):
            self._own_streams -= 1
            self.outbox.unsent_ends += fin_in_batch
        else:
            self._peer_streams -= 1
        self.end_if_drained()

    # Credit

    def adapt_window(self, stream: Stream, now: float) -> None:
        """For streams: a half of this one's window was consumed."""
        self.budget.adapt(stream, self._streams.values(), now, self.liveness.rtt_s)

    def wait_for_room(self, stream: Stream) -> None:
        """For streams: this one wants Writable when credit comes."""
        if self._waiting is None:
            self._waiting = {}
        self._waiting[stream] = None

    def credited(self, stream_id: int, offset: int) -> None:
        """For the frame rules: the peer's CREDIT."""
        outbox = self.outbox
        if stream_id:
            stream = self._streams.get(stream_id)
            if stream is not None:
                stream.credited(offset)
                stream.tell_room()
        elif offset > outbox.send_limit:
            outbox.send_limit = offset
            if outbox.ready:
                outbox.kick()
            self._room_news = self._waiting is not None

    def _tell_waiting(self) -> None:
        """Once a message, however many CREDITs it holds: each look costs a walk over all that wait."""
        self._room_news = False
        if self._waiting:
            self._waiting = {stream: None for stream in self._waiting if not stream.tell_room()}

    # Ends

    def close(self, code: CloseCode, reason: str, retry_after_ms: int = 0) -> None:
        """GOAWAY, then the end; ConnectionLost("local", …) comes by take_events."""
        self._lose("local", code, reason, retry_after_ms)

    def refuse_peer(self, code: CloseCode, reason: str, retry_after_ms: int = 0) -> None:
        """Either side, during the handshake: GOAWAY and the end."""
        self.close(code, reason, retry_after_ms)

    def drain(self, retry_after_ms: int, reason: str, code: CloseCode = CloseCode.NORMAL) -> None:
        """GOAWAY; live streams finish; then Drained, ConnectionLost("local"). Before open: ends at once."""
        if not self.live:
            self._lose("local", code, reason, retry_after_ms)
        elif not self._drain_wanted:
            self._drain_wanted = True
            self._lost_as = ("local", code, reason)
            self.state = ConnectionState.DRAINING
            self.outbox.add_control(goaway_frame(self._peer_top_id, retry_after_ms, code, reason))
            self.end_if_drained()

    def peer_goes(self, last_id: int, retry_after_ms: int, code: CloseCode, reason: str) -> None:
        """For the frame rules: the peer's GOAWAY. One that only repeats itself says nothing new."""
        ends = not self.live or code not in DRAINING_CODES
        if ends or not self._peer_drains:
            self.emit(GoawayReceived(last_id, retry_after_ms, code, reason))
        if ends:
            self._end("peer", code, reason)
            return
        self._peer_drains = True
        self.state = ConnectionState.DRAINING
        if not self._drain_wanted:
            self._lost_as = ("peer", code, reason)
        for stream in self.streams():
            if self.is_own_id(stream.id) and stream.id > last_id:
                self.emit(StreamRefused(stream, RefusedCode.DRAINING, reason))
                self.stream_over(stream)
        self.end_if_drained()

    def end_if_drained(self) -> None:
        if self.state is ConnectionState.DRAINING and not self._streams:
            if self._drain_wanted:
                self.emit(Drained())
            self._end(*self._lost_as)

    def _overflow(self) -> None:
        self._lose("peer", CloseCode.OVERFLOW, "the peer asks for more answers than it takes")

    def _lose(self, fault: Fault, code: CloseCode, reason: str, retry_after_ms: int = 0) -> None:
        """Ends the connection from this side: a GOAWAY is the last thing that leaves."""
        if self.state is ConnectionState.CLOSED:
            return
        self._end(fault, code, reason)
        self.outbox.purge(control=fault != "local")
        self.outbox.add_control(goaway_frame(self._peer_top_id, retry_after_ms, code, reason))

    def _end(self, fault: Fault, code: CloseCode | None, reason: str) -> None:
        self.state = ConnectionState.CLOSED
        self.live = False
        self.liveness.timer_at = float("inf")
        self._waiting = None
        for stream in self._streams.values():
            self.outbox.forget(stream)
            stream.mark_over()
        self.emit(ConnectionLost(fault, code, reason))

    def _wake(self) -> None:
        self._on_wake(self)

    def statistics(self) -> dict[str, int | float | str | None]:
        return {
            "state": self.state.name.lower(),
            "streams": len(self._streams),
            "sent_bytes": self.outbox.sent,
            "received_bytes": self._received,
            "queued_bytes": self.outbox.queued,
            "control_frames": self.outbox.control_frames,
            "window_used": self.budget.used,
            "window_parked": self.budget.parked,
            "rtt_s": self.rtt_s,
        }
