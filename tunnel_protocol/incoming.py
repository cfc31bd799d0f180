"""What each control frame must look like and what it does. DATA is not here: it has its own short path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from struct import Struct
from typing import TYPE_CHECKING, Final

from tunnel_protocol.codes import (
    GRANT_ID_SIZE,
    HEADER_SIZE,
    MAX_AUTH_MESSAGE,
    MAX_CONTROL_PAYLOAD,
    MAX_HELLO_PAYLOAD,
    PING_SIZE,
    FrameType,
    Side,
    close_code,
    refused_code,
    reset_code,
)
from tunnel_protocol.errors import ProtocolViolation
from tunnel_protocol.events import (
    AuthReceived,
    ChallengeReceived,
    GrantReceived,
    GrantRevoked,
    PeerReady,
    StreamAccepted,
    StreamFinished,
    StreamRefused,
    StreamRequested,
    StreamReset,
)
from tunnel_protocol.fields import decode_auth, decode_hello
from tunnel_protocol.frames import (
    CODE,
    frame,
    parse_challenge,
    parse_goaway,
    parse_grant,
    parse_open,
    parse_refused,
)
from tunnel_protocol.states import FRAMES_ALLOWED

if TYPE_CHECKING:
    from tunnel_protocol.connection import Connection
    from tunnel_protocol.stream import Stream

_OFFSET: Final = Struct(">Q")
Handle = Callable[["Connection", int, bytes, float], None]


@dataclass(frozen=True, slots=True)
class FrameRule:
    kind: FrameType
    on_stream: bool | None  # None: both 0 and a stream id will do
    shortest: int  # payload bytes
    longest: int
    handle: Handle


def _challenge(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    nonce, server_name = parse_challenge(payload)
    connection.advance(FrameType.CHALLENGE)
    connection.nonce, connection.server_name = nonce, server_name
    connection.emit(ChallengeReceived(nonce, server_name))


def _auth(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    auth = decode_auth(payload)
    connection.advance(FrameType.AUTH)
    connection.emit(AuthReceived(replace(auth, transcript=connection.transcript(auth))))


def _hello(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    hello = decode_hello(payload, key_list_allowed=connection.side is Side.DEVICE)
    connection.advance(FrameType.HELLO)
    connection.peer_said_hello(hello, now)
    connection.emit(PeerReady(hello))


def _grant(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    connection.emit(GrantReceived(*parse_grant(payload)))


def _revoke(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    connection.emit(GrantRevoked(payload))


def _open(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    grant_id, device, service = parse_open(payload)
    stream = connection.peer_opens(stream_id, now)
    if stream is not None:
        connection.emit(StreamRequested(stream, device, service, grant_id))


def _live(connection: Connection, stream_id: int, kind: FrameType) -> Stream | None:
    """The stream, moved on by the frame; None when it is over, which is no error."""
    stream = connection.find_stream(stream_id)
    if stream is None:
        if not connection.was_opened(stream_id):
            raise ProtocolViolation(f"{kind.name}: the stream was never opened")
        return None
    if not stream.advance(kind):
        raise ProtocolViolation(f"{kind.name}: not allowed in the stream's state")
    return stream


def _opened(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    stream = _live(connection, stream_id, FrameType.OPENED)
    if stream is not None:
        connection.emit(StreamAccepted(stream))


def _refused(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    code, message = parse_refused(payload)
    stream = _live(connection, stream_id, FrameType.REFUSED)
    if stream is not None:
        connection.emit(StreamRefused(stream, refused_code(code), message))
        connection.stream_over(stream)


def _fin(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    stream = _live(connection, stream_id, FrameType.FIN)
    if stream is not None:
        if not stream.waits_for_accept:
            connection.emit(StreamFinished(stream))
        if stream.over:
            connection.stream_over(stream)


def _reset(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    stream = _live(connection, stream_id, FrameType.RESET)
    if stream is not None:
        connection.emit(StreamReset(stream, reset_code(CODE.unpack(payload)[0])))
        connection.stream_over(stream)


def _credit(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    if not stream_id or _live(connection, stream_id, FrameType.CREDIT) is not None:
        connection.credited(stream_id, _OFFSET.unpack(payload)[0])


def _ping(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    connection.outbox.add_pong(frame(FrameType.PONG, payload))


def _pong(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    connection.liveness.pong(payload, now)


def _goaway(connection: Connection, stream_id: int, payload: bytes, now: float) -> None:
    last_id, retry_after_ms, code, reason = parse_goaway(payload)
    connection.peer_goes(last_id, retry_after_ms, close_code(code), reason)


_AUTH_LONGEST: Final = MAX_AUTH_MESSAGE - 8

_RULES: Final = (
    FrameRule(FrameType.CHALLENGE, False, 33, MAX_CONTROL_PAYLOAD, _challenge),
    FrameRule(FrameType.AUTH, False, 0, _AUTH_LONGEST, _auth),
    FrameRule(FrameType.HELLO, False, 0, MAX_HELLO_PAYLOAD, _hello),
    FrameRule(FrameType.GRANT, False, GRANT_ID_SIZE + 1, MAX_CONTROL_PAYLOAD, _grant),
    FrameRule(FrameType.REVOKE, False, GRANT_ID_SIZE, GRANT_ID_SIZE, _revoke),
    FrameRule(FrameType.OPEN, True, GRANT_ID_SIZE + 4, MAX_CONTROL_PAYLOAD, _open),
    FrameRule(FrameType.OPENED, True, 0, 0, _opened),
    FrameRule(FrameType.REFUSED, True, 2, MAX_CONTROL_PAYLOAD, _refused),
    FrameRule(FrameType.FIN, True, 0, 0, _fin),
    FrameRule(FrameType.RESET, True, 2, 2, _reset),
    FrameRule(FrameType.CREDIT, None, 8, 8, _credit),
    FrameRule(FrameType.PING, False, PING_SIZE, PING_SIZE, _ping),
    FrameRule(FrameType.PONG, False, PING_SIZE, PING_SIZE, _pong),
    FrameRule(FrameType.GOAWAY, False, 10, MAX_CONTROL_PAYLOAD, _goaway),
)

CONTROL_FRAMES: Final[dict[int, FrameRule]] = {int(rule.kind): rule for rule in _RULES}


def receive_control(
    connection: Connection, kind: int, stream_id: int, payload: memoryview, around: int, now: float
) -> None:
    """Check one control frame and do what it says; `around`: bytes of its message beside the payload.

    ProtocolViolation for one that may not stand here, or not so.
    """
    rule = CONTROL_FRAMES.get(kind)
    if rule is None or rule.kind not in FRAMES_ALLOWED[connection.side, connection.state]:
        raise ProtocolViolation(
            f"a frame of type {kind} is not allowed in state {connection.state.name.lower()}"
        )
    if not rule.shortest <= len(payload) <= rule.longest:
        raise ProtocolViolation(f"{rule.kind.name}: wrong length")
    if rule.on_stream is not None and rule.on_stream != (stream_id != 0):
        raise ProtocolViolation(f"{rule.kind.name}: wrong stream id")
    if rule.kind is FrameType.AUTH and around != HEADER_SIZE:
        raise ProtocolViolation("AUTH: not alone in its message")
    rule.handle(connection, stream_id, bytes(payload), now)
