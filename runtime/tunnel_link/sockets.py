"""What the tunnel wants of its TCP socket."""

from __future__ import annotations

import asyncio
import fcntl
import math
import socket
import struct
import sys
import termios
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

# Missing from Python's socket module on some systems where the kernel has it (linux/tcp.h).
_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if hasattr(socket, "TCP_QUICKACK") else None)

_SIOCOUTQ: Final = termios.TIOCOUTQ  # the same number by another name, tcp(7)
_RTO_MAX_MS: Final = 44  # linux/tcp.h, Linux 6.15
# The longest pause between two tries of a lost packet. TCP doubles it up to two minutes (RFC 6298), so that
# the 9 s of silence which end a tunnel hold two or three tries, too few where 30 % are lost each way. Not
# shorter: a line may have a queue of a second.
RETRY_MAX_MS: Final = 2_000
# struct tcp_info of linux/tcp.h: tcpi_last_data_recv, milliseconds ago; tcpi_rtt, in microseconds;
# tcpi_notsent_bytes and tcpi_min_rtt (Linux 4.6).
_LAST_DATA: Final = struct.Struct("=52xI")
_RTT: Final = struct.Struct("=68xI")
_NOTSENT_AND_MIN_RTT: Final = struct.Struct("=144xII")
_LEAST_S: Final = 1e-6


@dataclass(frozen=True, slots=True)
class InKernel:
    """What a socket's kernel holds. All 0 where the system does not tell."""

    held: int = 0  # bytes that the peer has not acknowledged, those never sent among them
    unsent: int = 0  # bytes never sent
    rtt_s: float = 0.0  # smoothed, as it is now
    min_rtt_s: float = 0.0  # the smallest of the last minutes: the line without a queue


_NOTHING: Final = InKernel()


def set_no_delay(transport: asyncio.BaseTransport) -> None:
    """The driver coalesces by itself; Nagle's algorithm would only hold back the last frame.

    And what was lost is sent again soon, where the kernel can be told so.
    """
    raw = transport.get_extra_info("socket")
    if raw is None or raw.family not in (socket.AF_INET, socket.AF_INET6):
        return
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform.startswith("linux"):
        with suppress(OSError):  # ENOPROTOOPT: before Linux 6.15 the pauses grow
            raw.setsockopt(socket.IPPROTO_TCP, _RTO_MAX_MS, RETRY_MAX_MS)


def set_kernel_unsent(transport: asyncio.BaseTransport, size: int) -> None:
    """Bounds the bytes that the kernel holds beyond the congestion window: nothing overtakes them there."""
    raw = transport.get_extra_info("socket")
    if raw is not None and _NOTSENT_LOWAT is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, size)


def in_kernel(transport: asyncio.BaseTransport) -> InKernel:
    """Two system calls; for links that are not known to be fast."""
    raw = transport.get_extra_info("socket")
    if raw is None or not sys.platform.startswith("linux") or raw.fileno() < 0:
        return _NOTHING
    if raw.family not in (socket.AF_INET, socket.AF_INET6):
        return _NOTHING
    held = int.from_bytes(fcntl.ioctl(raw.fileno(), _SIOCOUTQ, bytes(4)), sys.byteorder)
    info = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _NOTSENT_AND_MIN_RTT.size)
    if len(info) < _NOTSENT_AND_MIN_RTT.size:
        return _NOTHING
    unsent, min_rtt = _NOTSENT_AND_MIN_RTT.unpack(info)
    return InKernel(held, unsent, _RTT.unpack_from(info)[0] * _LEAST_S, min_rtt * _LEAST_S)


def silence_s(transport: asyncio.BaseTransport) -> float:
    """Seconds since any byte of the peer came in its order; inf where the system does not tell."""
    raw = transport.get_extra_info("socket")
    if raw is None or not sys.platform.startswith("linux") or raw.fileno() < 0:
        return math.inf
    if raw.family not in (socket.AF_INET, socket.AF_INET6):
        return math.inf
    info = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA.size)
    return float(_LAST_DATA.unpack(info)[0]) / 1000


def peer_address(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""
