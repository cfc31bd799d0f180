"""Names and numbers of the TCP door (docs/protocol/tcp-door.md), for nodes and for `towline connect`."""

from __future__ import annotations

import enum
from typing import Final

PATH: Final = "/.towline/tcp"
SUBPROTOCOL: Final = "towline.tcp.v1"


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
