"""The numbers of the wire: sides, frame types, codes and the fixed sizes (docs/protocol/tunnel-v1.md)."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final


class Side(Enum):
    """Which end of the connection a machine is."""

    SERVER = "server"  # speaks first; opens odd stream ids
    DEVICE = "device"  # dialled; opens even stream ids

    @property
    def peer(self) -> Side:
        return Side.DEVICE if self is Side.SERVER else Side.SERVER


class FrameType(IntEnum):
    """First byte of a frame (section 2)."""

    CHALLENGE = 0x01
    AUTH = 0x02
    HELLO = 0x03
    GRANT = 0x04
    REVOKE = 0x05
    OPEN = 0x06
    OPENED = 0x07
    REFUSED = 0x08
    DATA = 0x09
    FIN = 0x0A
    RESET = 0x0B
    CREDIT = 0x0C
    PING = 0x0D
    PONG = 0x0E
    GOAWAY = 0x0F


class RefusedCode(IntEnum):
    """Why a stream was not opened (section 6)."""

    NO_GRANT = 1
    GRANT_INVALID = 2
    GRANT_EXPIRED = 3
    GRANT_REVOKED = 4
    NO_TIME = 5
    UNKNOWN_SERVICE = 6
    UNREACHABLE = 7
    TOO_MANY_STREAMS = 8
    NOT_HERE = 9
    DRAINING = 10
    INTERNAL = 11


class ResetCode(IntEnum):
    """Why a stream was cut (section 6)."""

    CANCELLED = 1
    UPSTREAM_RESET = 2
    GRANT_ENDED = 3
    TIMEOUT = 4
    INTERNAL = 5


class CloseCode(IntEnum):
    """Why a connection ends: GOAWAY's code, and the WebSocket status minus 4000 (section 6)."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    HANDSHAKE_TIMEOUT = 2
    AUTH_FAILED = 3
    REVOKED = 4
    REPLACED = 5
    KEEPALIVE_TIMEOUT = 6
    FLOW_CONTROL = 7
    OVERFLOW = 8
    IDS_EXHAUSTED = 9
    WRONG_SERVER_NAME = 10
    TRY_LATER = 11
    INTERNAL = 12


# After these the sender serves its live streams to their end; after any other code it has dropped everything.
DRAINING_CODES: Final = frozenset({CloseCode.NORMAL, CloseCode.IDS_EXHAUSTED})

WEBSOCKET_STATUS_BASE: Final = 4000  # RFC 6455 section 7.4.2: 4000-4999 is for private use
SUBPROTOCOL: Final = "towline.v1"

HEADER_SIZE: Final = 8
MAX_CONTROL_PAYLOAD: Final = 4096
MAX_HELLO_PAYLOAD: Final = 16_384
MAX_AUTH_MESSAGE: Final = 1024
MAX_MESSAGE_BEFORE_HELLO: Final = 4096
MAX_TOKEN: Final = 1536
MAX_REASON: Final = 256
NONCE_SIZE: Final = 32
GRANT_ID_SIZE: Final = 16
INSTANCE_SIZE: Final = 16
KEY_ID_SIZE: Final = 16
SIGNATURE_SIZE: Final = 64
PING_SIZE: Final = 8
MAX_SERVER_NAME: Final = 253  # a DNS name's greatest length
MAX_STREAM_ID: Final = 2**30
# One entry is one frame: a peer that makes us answer faster than it reads is cut before it costs real memory.
MAX_CONTROL_FRAMES: Final = 4096
MAX_QUEUED_PONGS: Final = 16
QUANTUM: Final = 16_384  # bytes of one stream before the next one's turn

MIN_KEEPALIVE_MS: Final = 4_000
MAX_KEEPALIVE_MS: Final = 300_000


def refused_code(value: int) -> RefusedCode:
    """The code for a number from the wire; an unknown one reads as INTERNAL, so that codes can be added."""
    try:
        return RefusedCode(value)
    except ValueError:
        return RefusedCode.INTERNAL


def reset_code(value: int) -> ResetCode:
    """The code for a number from the wire; an unknown one reads as INTERNAL."""
    try:
        return ResetCode(value)
    except ValueError:
        return ResetCode.INTERNAL


def close_code(value: int) -> CloseCode:
    """The code for a number from the wire; an unknown one reads as INTERNAL."""
    try:
        return CloseCode(value)
    except ValueError:
        return CloseCode.INTERNAL
