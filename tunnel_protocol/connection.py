"""One tunnel connection: messages in, events out; calls in, messages out. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from tunnel_protocol.codes import (
    DRAINING_CODES,
    GRANT_ID_SIZE,
    HEADER_SIZE,
    MAX_HELLO_PAYLOAD,
    MAX_MESSAGE_BEFORE_HELLO,
    MAX_STREAM_ID,
    WEBSOCKET_STATUS_BASE,
    CloseCode,
    FrameType,
    RefusedCode,
    Side,
    close_code,
)
from tunnel_protocol.credit import IDLE_UNDER_PRESSURE_S, PRESSURE_INTERVAL_S, WindowBudget, grown_window
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
from tunnel_protocol.fields import Auth, Hello, auth_transcript, encode_auth, encode_hello
from tunnel_protocol.frames import (
    HEADER,
    challenge_frame,
    credit_frame,
    frame,
    goaway_frame,
    grant_frame,
    open_frame,
)
from tunnel_protocol.incoming import CONTROL_FRAMES
from tunnel_protocol.limits import Limits
from tunnel_protocol.liveness import Liveness, Verdict
from tunnel_protocol.scheduler import Outbox
from tunnel_protocol.states import FRAMES_ALLOWED, HANDSHAKE, Call, ConnectionState, StreamState, Trigger
from tunnel_protocol.stream import Stream

_DATA: Final = int(FrameType.DATA)
_unpack_header = HEADER.unpack_from


class Connection:
    """A machine for one side. `now` is monotonic seconds everywhere.

    wake(connection) is called when there is output or a pending event where there was neither.
    """

    __slots__ = (
        "_drain_wanted",
        "_events",
        "_lost_as",
        "_max_message",
        "_next_id",
        "_on_wake",
        "_own_streams",
        "_peer_streams",
        "_peer_top_id",
        "_receive_limit",
        "_received",
        "_return_at",
        "_streams",
        "_waiting",
        "budget",
        "hello",
        "limits",
        "live",
        "liveness",
        "nonce",
        "outbox",
        "peer_max_streams",
        "peer_stream_window",
        "server_name",
        "side",
        "state",
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
        self.side = side
        self.limits = limits
        self.hello = hello  # what a device will say; authenticate() may set it too
        self.state = ConnectionState.STARTING if side is Side.SERVER else ConnectionState.AWAITING_CHALLENGE
        self.live = False  # OPEN or DRAINING
        self.liveness = Liveness(now, now + limits.handshake_timeout_s)
        self.outbox = Outbox(self._wake, self._overflow)
        self._on_wake = wake
        self._events: list[Event] = []
        self._lost_as: tuple[Fault, CloseCode, str] = (
            "peer",
            CloseCode.NORMAL,
            "",
        )  # how a drained connection ends
        self._drain_wanted = False
        self.nonce = b""
        self.server_name = ""
        self._streams: dict[int, Stream] = {}
        self._next_id = 1 if side is Side.SERVER else 2
        self._peer_top_id = 0  # highest id that the peer opened
        self._own_streams = 0
        self._peer_streams = 0
        self._waiting: dict[Stream, None] | None = None  # streams that want Writable
        self.peer_stream_window = 0
        self.peer_max_streams = 0
        self._max_message = MAX_MESSAGE_BEFORE_HELLO
        self._received = 0
        self._receive_limit = limits.connection_window
        self._return_at = max(limits.connection_window // 2, 1)
        self.budget = WindowBudget(limits.window_budget)

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
                self._receive_data(stream_id, message[start:position], length)
            else:
                self._receive_control(kind, stream_id, message[start:position], size - length, now)

    def _check_size(self, size: int) -> None:
        if not size:
            raise ProtocolViolation("an empty message")
        if size > self._max_message:
            raise ProtocolViolation(f"a message of {size} bytes is over the limit of {self._max_message}")

    def _receive_data(self, stream_id: int, data: memoryview, length: int) -> None:
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
        elif not self.was_opened(stream_id):
            raise ProtocolViolation("DATA: the stream was never opened")
        if self._received >= self._return_at:
            self._return_credit()

    def _return_credit(self) -> None:
        window = self.limits.connection_window
        self._return_at = self._received + max(window // 2, 1)
        self._receive_limit = self._received + window
        self.outbox.add_control(credit_frame(0, self._receive_limit))

    def _receive_control(
        self, kind: int, stream_id: int, payload: memoryview, around: int, now: float
    ) -> None:
        rule = CONTROL_FRAMES.get(kind)
        if rule is None or rule.kind not in FRAMES_ALLOWED[self.side, self.state]:
            raise ProtocolViolation(
                f"a frame of type {kind} is not allowed in state {self.state.name.lower()}"
            )
        if not rule.shortest <= len(payload) <= rule.longest:
            raise ProtocolViolation(f"{rule.kind.name}: wrong length")
        if rule.on_stream is not None and rule.on_stream != (stream_id != 0):
            raise ProtocolViolation(f"{rule.kind.name}: wrong stream id")
        if rule.kind is FrameType.AUTH and around != HEADER_SIZE:
            raise ProtocolViolation("AUTH: not alone in its message")
        rule.handle(self, stream_id, bytes(payload), now)

    def handle_timer(self, now: float) -> list[Event]:
        """To be called at or after next_timer()."""
        if now >= self.liveness.timer_at and self.state is not ConnectionState.CLOSED:
            if self.live:
                self._keep_alive(now)
            else:
                self._lose("timeout", CloseCode.HANDSHAKE_TIMEOUT, "the handshake did not end in time")
        return self.take_events()

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
        if self.budget.used:
            self._park_idle(lambda stream: stream.swept_bytes == stream.consumed_bytes)

    def link_closed(self, status: int | None, reason: str) -> list[Event]:
        """The WebSocket is gone; `status` is its close status, None when it broke without one."""
        code = (
            close_code(status - WEBSOCKET_STATUS_BASE) if status and status >= WEBSOCKET_STATUS_BASE else None
        )
        if self.state is not ConnectionState.CLOSED:
            self._end("peer", code, reason or "the link broke")
            self.outbox.purge(control=True)
        return self.take_events()

    def take_events(self) -> list[Event]:
        """What happened by calls rather than by input (Writable, early data, Drained, ConnectionLost)."""
        events = self._events
        if events:
            self._events = []
        return events

    # Handshake

    def challenge(self, nonce: bytes, server_name: str) -> None:
        """Server, first of all: `nonce` is 32 fresh random bytes, `server_name` the host as dialled."""
        challenge = challenge_frame(nonce, server_name)
        self._advance(Call.CHALLENGE)
        self.nonce, self.server_name = nonce, server_name
        self.outbox.add_control(challenge)

    def authenticate(
        self, device: str, instance: bytes, key_id: bytes, signature: bytes, hello: Hello | None = None
    ) -> None:
        """Device, after ChallengeReceived: `signature` is r ‖ s over auth_transcript(…), 64 bytes."""
        auth = encode_auth(Auth(device, instance, key_id, signature))
        self.hello = self._own_hello(hello or self.hello or Hello())
        self._advance(Call.AUTHENTICATE)
        self._max_message = HEADER_SIZE + MAX_HELLO_PAYLOAD
        self.outbox.add_control(frame(FrameType.AUTH, auth))

    def transcript(self, auth: Auth) -> bytes:
        return auth_transcript(self.nonce, self.server_name, auth.device, auth.instance)

    def admit(self, hello: Hello) -> None:
        """Server, after AuthReceived: the device is who it says. PeerReady follows its HELLO."""
        payload = encode_hello(self._own_hello(hello))
        if self.state is ConnectionState.CLOSED:
            return  # the device went away while it was checked
        self._advance(Call.ADMIT)
        self._max_message = self.limits.max_message
        self.outbox.add_control(frame(FrameType.HELLO, payload))

    def refuse_peer(self, code: CloseCode, reason: str, retry_after_ms: int = 0) -> None:
        """Either side, during the handshake: GOAWAY and the end."""
        self.close(code, reason, retry_after_ms)

    def _own_hello(self, hello: Hello) -> Hello:
        limits = self.limits
        return replace(
            hello,
            max_frame=limits.max_frame,
            max_message=limits.max_message,
            stream_window=limits.stream_window,
            connection_window=limits.connection_window,
            max_streams=limits.max_streams,
            keepalive_ms=limits.keepalive_ms,
        )

    def peer_said_hello(self, hello: Hello, now: float) -> None:
        """For the frame rules: the handshake is over."""
        if self.side is Side.DEVICE:
            self._max_message = self.limits.max_message
            self.outbox.add_control(frame(FrameType.HELLO, encode_hello(self.hello or Hello())))
        self.outbox.open(hello.max_frame, hello.max_message, hello.connection_window)
        self.peer_stream_window = hello.stream_window
        self.peer_max_streams = hello.max_streams
        self.live = True
        keepalive_ms = max(hello.keepalive_ms, self.limits.keepalive_ms)
        self.outbox.add_control(frame(FrameType.PING, self.liveness.start(now, keepalive_ms / 1000)))

    def _advance(self, call: Call) -> None:
        try:
            self.state = HANDSHAKE[self.side, self.state, call]
        except KeyError:
            raise Misuse(f"{call.value}: not in state {self.state.name}") from None

    def advance(self, trigger: Trigger) -> None:
        """For the frame rules, which have checked FRAMES_ALLOWED."""
        self.state = HANDSHAKE[self.side, self.state, trigger]

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

    def stream_over(self, stream: Stream, *, fin_in_batch: bool = False) -> None:
        """For streams and frame rules: takes an ended stream out."""
        self.outbox.forget(stream)
        stream.mark_over()
        if self._streams.pop(stream.id, None) is None:
            return
        self.budget.used -= stream.window - self.limits.stream_window
        self.budget.parked -= stream.parked
        if self._waiting is not None:
            self._waiting.pop(stream, None)
        if self.is_own_id(stream.id):
            self._own_streams -= 1
            self.outbox.unsent_ends += fin_in_batch
        else:
            self._peer_streams -= 1
        self.end_if_drained()

    # Windows and room

    def adapt_window(self, stream: Stream, now: float) -> None:
        """A half of the stream's window was consumed: grows it when that was quick."""
        budget = self.budget
        if stream.parked:
            still = max(stream.receive_limit - stream.consumed_bytes - stream.window, 0)
            budget.parked -= max(stream.parked - still, 0)
            stream.parked = min(stream.parked, still)
        drained_in_s = now - stream.returned_at
        wanted = grown_window(stream.window, self.limits.stream_window_max, drained_in_s, self.liveness.rtt_s)
        more = wanted - stream.window
        if more > budget.spare and now - budget.looked_at > PRESSURE_INTERVAL_S:
            budget.looked_at = now
            self._park_idle(lambda other: other.is_idle(now, IDLE_UNDER_PRESSURE_S))
        if more <= budget.spare:
            budget.used += more
            stream.window = wanted

    def _park_idle(self, idle: Callable[[Stream], bool]) -> None:
        """Gives the growth of idle streams back to the budget."""
        for stream in self._streams.values():
            extra = stream.window - self.limits.stream_window
            if extra and idle(stream) and self.budget.may_park(extra):
                self.budget.used -= extra
                self.budget.parked += extra
                stream.parked += extra
                stream.window = self.limits.stream_window
            stream.swept_bytes = stream.consumed_bytes

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
            if self._waiting:
                self._waiting = {stream: None for stream in self._waiting if not stream.tell_room()}

    # Ends

    def close(self, code: CloseCode, reason: str, retry_after_ms: int = 0) -> None:
        """GOAWAY, then the end; ConnectionLost("local", …) comes by take_events."""
        self._lose("local", code, reason, retry_after_ms)

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
        """For the frame rules: the peer's GOAWAY."""
        self.emit(GoawayReceived(last_id, retry_after_ms, code, reason))
        if not self.live or code not in DRAINING_CODES:
            self._end("peer", code, reason)
            return
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

    def emit(self, event: Event) -> None:
        self._events.append(event)
        self.outbox.kick()

    def _wake(self) -> None:
        self._on_wake(self)

    # Output

    def next_message(self, max_bytes: int, reserve: bytes = b"") -> bytearray | None:
        """The next message to send, with `reserve` in front (not counted); None when nothing may leave now.

        At most `max_bytes`, unless a single frame is larger, and never more than the peer accepts.
        """
        return self.outbox.next_message(max_bytes, reserve)

    @property
    def has_output(self) -> bool:
        return self.outbox.has_output

    @property
    def has_events(self) -> bool:
        return bool(self._events)

    @property
    def blocked(self) -> bool:
        """Set by the driver while its transport is paused: send() then queues instead of framing at once."""
        return self.outbox.blocked

    @blocked.setter
    def blocked(self, value: bool) -> None:
        self.outbox.blocked = value

    @property
    def borrowed(self) -> bool:
        """The next message refers to a caller's buffer: flush (or keep_borrowed) before that changes."""
        return self.outbox.borrowed

    def keep_borrowed(self) -> None:
        self.outbox.keep_borrowed()

    @property
    def rtt_s(self) -> float | None:
        """Smallest round trip of the last minute or two, seconds."""
        return self.liveness.rtt_s

    @property
    def last_rtt_s(self) -> float | None:
        return self.liveness.last_rtt_s

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
