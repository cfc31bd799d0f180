"""What a connection is before its first stream: the handshake, its own events, its way out."""

from __future__ import annotations

from dataclasses import replace

from tunnel_protocol.codes import (
    HEADER_SIZE,
    MAX_HELLO_PAYLOAD,
    MAX_MESSAGE_BEFORE_HELLO,
    FrameType,
    Side,
)
from tunnel_protocol.errors import Misuse
from tunnel_protocol.events import Event
from tunnel_protocol.fields import Auth, Hello, auth_transcript, encode_auth, encode_hello
from tunnel_protocol.frames import challenge_frame, frame
from tunnel_protocol.limits import Limits
from tunnel_protocol.liveness import Liveness
from tunnel_protocol.scheduler import Outbox
from tunnel_protocol.states import HANDSHAKE, Call, ConnectionState, Trigger


class Handshake:
    """The part of a `Connection` that knows nothing of streams (specification, sections 3 to 5)."""

    __slots__ = (
        "_events",
        "_max_message",
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

    def __init__(self, side: Side, limits: Limits, now: float, outbox: Outbox, hello: Hello | None) -> None:
        self.side = side
        self.limits = limits
        self.hello = hello  # what a device will say; authenticate() may set it too
        self.state = ConnectionState.STARTING if side is Side.SERVER else ConnectionState.AWAITING_CHALLENGE
        self.live = False  # OPEN or DRAINING
        self.liveness = Liveness(now, now + limits.handshake_timeout_s)
        self.outbox = outbox
        self.nonce = b""
        self.server_name = ""
        self.peer_stream_window = 0
        self.peer_max_streams = 0
        self._events: list[Event] = []
        self._max_message = MAX_MESSAGE_BEFORE_HELLO

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
        if self.state is ConnectionState.CLOSED:
            return  # the message that held the challenge went on with what ended the connection
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

    # Events

    def emit(self, event: Event) -> None:
        self._events.append(event)
        self.outbox.kick()

    def take_events(self) -> list[Event]:
        """What happened by calls rather than by input (Writable, early data, Drained, ConnectionLost)."""
        events = self._events
        if events:
            self._events = []
        return events

    @property
    def has_events(self) -> bool:
        return bool(self._events)

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
