"""Legal transitions, as two tables. What stands in neither is a protocol error, or Misuse by the caller."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final

from tunnel_protocol.codes import FrameType, Side


class ConnectionState(IntEnum):
    """Section 3. STARTING is the server's state before it said CHALLENGE."""

    STARTING = 0
    AWAITING_CHALLENGE = 1
    SIGNING = 2
    AWAITING_AUTH = 3
    VERIFYING = 4
    AWAITING_HELLO = 5
    OPEN = 6
    DRAINING = 7
    CLOSED = 8


class Call(Enum):
    """What the local side does, as far as it changes a state."""

    CHALLENGE = "challenge"
    AUTHENTICATE = "authenticate"
    ADMIT = "admit"
    DRAIN = "drain"
    ACCEPT = "accept"
    REFUSE = "refuse"
    FIN_LEFT = "fin_left"  # our FIN went into a message, behind all data of the stream
    RESET = "reset"


_S = ConnectionState
Trigger = FrameType | Call

HANDSHAKE: Final[dict[tuple[Side, ConnectionState, Trigger], ConnectionState]] = {
    (Side.SERVER, _S.STARTING, Call.CHALLENGE): _S.AWAITING_AUTH,
    (Side.SERVER, _S.AWAITING_AUTH, FrameType.AUTH): _S.VERIFYING,
    (Side.SERVER, _S.VERIFYING, Call.ADMIT): _S.AWAITING_HELLO,
    (Side.SERVER, _S.AWAITING_HELLO, FrameType.HELLO): _S.OPEN,
    (Side.DEVICE, _S.AWAITING_CHALLENGE, FrameType.CHALLENGE): _S.SIGNING,
    (Side.DEVICE, _S.SIGNING, Call.AUTHENTICATE): _S.AWAITING_HELLO,
    (Side.DEVICE, _S.AWAITING_HELLO, FrameType.HELLO): _S.OPEN,
    (Side.SERVER, _S.OPEN, FrameType.GOAWAY): _S.DRAINING,
    (Side.DEVICE, _S.OPEN, FrameType.GOAWAY): _S.DRAINING,
    (Side.SERVER, _S.OPEN, Call.DRAIN): _S.DRAINING,
    (Side.DEVICE, _S.OPEN, Call.DRAIN): _S.DRAINING,
    (Side.SERVER, _S.DRAINING, FrameType.GOAWAY): _S.DRAINING,
    (Side.DEVICE, _S.DRAINING, FrameType.GOAWAY): _S.DRAINING,
    # Before open a GOAWAY ends the connection at once; a device may hear it, and a server once it said HELLO.
    (Side.SERVER, _S.AWAITING_HELLO, FrameType.GOAWAY): _S.CLOSED,
    (Side.DEVICE, _S.AWAITING_CHALLENGE, FrameType.GOAWAY): _S.CLOSED,
    (Side.DEVICE, _S.SIGNING, FrameType.GOAWAY): _S.CLOSED,
    (Side.DEVICE, _S.AWAITING_HELLO, FrameType.GOAWAY): _S.CLOSED,
}

_BOTH_WAYS: Final = frozenset(FrameType) - {
    FrameType.CHALLENGE,
    FrameType.AUTH,
    FrameType.HELLO,
    FrameType.GRANT,
    FrameType.REVOKE,
}


def frames_allowed(side: Side, state: ConnectionState) -> frozenset[FrameType]:
    """The frames that may arrive at `side` in `state` (section 3's table)."""
    if state in (_S.OPEN, _S.DRAINING):
        return _BOTH_WAYS if side is Side.SERVER else _BOTH_WAYS | {FrameType.GRANT, FrameType.REVOKE}
    found = (key[2] for key in HANDSHAKE if key[:2] == (side, state))
    return frozenset(trigger for trigger in found if isinstance(trigger, FrameType))


FRAMES_ALLOWED: Final = {
    (side, state): frames_allowed(side, state) for side in Side for state in ConnectionState
}


class StreamState(IntEnum):
    """HERE and THERE say whose FIN has passed."""

    REQUESTED = 0  # the peer's OPEN waits for our answer
    REQUESTED_FINISHED_THERE = 1
    OPENING = 2  # our OPEN waits for the peer's answer
    OPENING_FINISHED_HERE = 3
    OPEN = 4
    FINISHED_HERE = 5
    FINISHED_THERE = 6
    OVER = 7


_T = StreamState

STREAM: Final[dict[tuple[StreamState, Trigger], StreamState]] = {
    (_T.REQUESTED, FrameType.DATA): _T.REQUESTED,
    (_T.REQUESTED, FrameType.FIN): _T.REQUESTED_FINISHED_THERE,
    (_T.REQUESTED, Call.ACCEPT): _T.OPEN,
    (_T.REQUESTED, Call.REFUSE): _T.OVER,
    (_T.REQUESTED_FINISHED_THERE, Call.ACCEPT): _T.FINISHED_THERE,
    (_T.REQUESTED_FINISHED_THERE, Call.REFUSE): _T.OVER,
    (_T.OPENING, FrameType.OPENED): _T.OPEN,
    (_T.OPENING, FrameType.REFUSED): _T.OVER,
    (_T.OPENING, Call.FIN_LEFT): _T.OPENING_FINISHED_HERE,
    (_T.OPENING_FINISHED_HERE, FrameType.OPENED): _T.FINISHED_HERE,
    (_T.OPENING_FINISHED_HERE, FrameType.REFUSED): _T.OVER,
    (_T.OPEN, FrameType.DATA): _T.OPEN,
    (_T.OPEN, FrameType.FIN): _T.FINISHED_THERE,
    (_T.OPEN, Call.FIN_LEFT): _T.FINISHED_HERE,
    (_T.FINISHED_HERE, FrameType.DATA): _T.FINISHED_HERE,
    (_T.FINISHED_HERE, FrameType.FIN): _T.OVER,
    (_T.FINISHED_THERE, Call.FIN_LEFT): _T.OVER,
}
for _state in StreamState:
    if _state is not _T.OVER:
        STREAM[_state, FrameType.CREDIT] = _state
        STREAM[_state, FrameType.RESET] = _T.OVER
        STREAM[_state, Call.RESET] = _T.OVER
