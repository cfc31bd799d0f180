"""What the tunnel wants of its TCP socket."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
from typing import Final

# Missing from Python's socket module on some systems where the kernel has it (linux/tcp.h).
_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if hasattr(socket, "TCP_QUICKACK") else None)

_SIOCOUTQNSD: Final = 0x894B  # linux/sockios.h


def set_no_delay(transport: asyncio.BaseTransport) -> None:
    """The driver coalesces by itself; Nagle's algorithm would only hold back the last frame."""
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def set_kernel_unsent(transport: asyncio.BaseTransport, size: int) -> None:
    """Bounds the bytes that the kernel holds beyond the congestion window: nothing overtakes them there."""
    raw = transport.get_extra_info("socket")
    if raw is not None and _NOTSENT_LOWAT is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, size)


def kernel_unsent(transport: asyncio.BaseTransport) -> int:
    """Bytes that the kernel holds and has not sent once; 0 where it does not tell."""
    raw = transport.get_extra_info("socket")
    if raw is None or not sys.platform.startswith("linux") or raw.fileno() < 0:
        return 0
    return int.from_bytes(fcntl.ioctl(raw.fileno(), _SIOCOUTQNSD, bytes(4)), sys.byteorder)


def peer_address(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""
