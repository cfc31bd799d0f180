"""The tunnel protocol, version 1: bytes in, events out. The contract is docs/protocol/tunnel-v1.md."""

from tunnel_protocol.codes import (
    SUBPROTOCOL,
    WEBSOCKET_STATUS_BASE,
    CloseCode,
    FrameType,
    RefusedCode,
    ResetCode,
    Side,
)
from tunnel_protocol.connection import Connection
from tunnel_protocol.errors import ConnectionDraining, Misuse, StreamLimit, TunnelProtocolError
from tunnel_protocol.events import (
    AuthReceived,
    ChallengeReceived,
    ConnectionLost,
    DataReceived,
    Drained,
    Event,
    Fault,
    GoawayReceived,
    GrantReceived,
    GrantRevoked,
    PeerReady,
    StreamAccepted,
    StreamFinished,
    StreamRefused,
    StreamRequested,
    StreamReset,
    Writable,
)
from tunnel_protocol.fields import Auth, Hello, Service, auth_transcript
from tunnel_protocol.limits import Limits
from tunnel_protocol.pacing import LinkPace
from tunnel_protocol.states import ConnectionState, StreamState
from tunnel_protocol.stream import Stream

__all__ = [
    "SUBPROTOCOL",
    "WEBSOCKET_STATUS_BASE",
    "Auth",
    "AuthReceived",
    "ChallengeReceived",
    "CloseCode",
    "Connection",
    "ConnectionDraining",
    "ConnectionLost",
    "ConnectionState",
    "DataReceived",
    "Drained",
    "Event",
    "Fault",
    "FrameType",
    "GoawayReceived",
    "GrantReceived",
    "GrantRevoked",
    "Hello",
    "Limits",
    "LinkPace",
    "Misuse",
    "PeerReady",
    "RefusedCode",
    "ResetCode",
    "Service",
    "Side",
    "Stream",
    "StreamAccepted",
    "StreamFinished",
    "StreamLimit",
    "StreamRefused",
    "StreamRequested",
    "StreamReset",
    "StreamState",
    "TunnelProtocolError",
    "Writable",
    "auth_transcript",
]
