"""Names and numbers of the TCP door (docs/protocol/tcp-door.md), for nodes and for `towline connect`."""

from __future__ import annotations

import enum
from typing import Final

PATH: Final = "/.towline/tcp"
SUBPROTOCOL: Final = "towline.tcp.v1"
# How many frames a client may send: so many at once, more with time, and one for each so many bytes on the
# wire. Who types, or asks a database small questions, never comes near it. A frame costs a node some 5 µs
# however little it carries: one frame a byte would keep it busy for the price of a thin uplink.
FRAMES_BURST: Final = 1_024
FRAMES_PER_S: Final = 2_000
BYTES_PER_FRAME: Final = 64


class DoorClose(enum.IntEnum):
    """WebSocket close codes of the door, beside those of RFC 6455."""

    RESET = 4001
    """The TCP connection broke: the service's, or (from the client) the local one."""
    DEVICE_LOST = 4002
    """The device's tunnel ended under the connection."""
    SESSION_ENDED = 4003
    """Expired, revoked, or its device was; the reason says which."""
    TIMEOUT = 4004
    """The device gave up waiting."""
    FAILED = 4005
    """The device or the node failed; their logs say why."""
