"""What a link is: one WebSocket that carries tunnel messages, whatever library does it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from runtime.accepting import AcceptingSocket, Why
from runtime.client_address import TrustedProxies
from runtime.tunnel_link.sockets import InKernel
from tunnel_protocol import SUBPROTOCOL

# Room in front of every message for the WebSocket header, which picows writes there: one write carries both.
PAD: Final = bytes(14)
CLOSE_TIMEOUT_S: Final = 1.0  # for the peer's answer to our close; a dead peer must not hold up a shutdown
MAX_PINGS: Final = (
    64  # WebSocket PINGs between two messages; peers of ours send none, proxies one in many seconds
)
UPGRADE_TIMEOUT_S: Final = 5.0  # from the TCP connection to the end of its upgrade request
TLS_HANDSHAKE_S: Final = 10.0  # what a device has for its whole handshake
STATUS_PROTOCOL_ERROR: Final = 4001  # 4000 + CloseCode.PROTOCOL_ERROR
BACKLOG: Final = (
    1024  # connections the kernel holds: after a server's restart thousands of agents return at once
)


class LinkFailed(Exception):
    """No link came about: the host does not answer, TLS or the upgrade failed. The text says which."""


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """A WebSocket request that asks for our subprotocol. ``peer`` is the client's IP address."""

    path: str
    headers: Mapping[str, str]  # names in lower case
    peer: str

    @property
    def host(self) -> str:
        """The Host header as it came, with its port if there is one."""
        return self.headers.get("host", "")


class Link(Protocol):
    """One WebSocket. Messages that are sent while `paused` wait in memory without a bound: do not."""

    paused: bool

    @property
    def peer_address(self) -> str:
        """The peer's IP address, "" when it is unknown."""

    @property
    def unsent(self) -> int:
        """Bytes in the transport's buffer, the kernel's not counted."""

    @property
    def in_kernel(self) -> InKernel: ...

    @property
    def silence_s(self) -> float:
        """Seconds since any byte came, be it no whole message yet; inf where the system does not tell."""

    def send(self, message: bytearray) -> None:
        """Sends one binary message, and uses it up; its first len(PAD) bytes are not part of it."""

    def set_buffers(self, high_water: int, kernel_unsent: int) -> None:
        """Bytes in the transport's buffer at which it pauses, and bytes that the kernel may hold unsent."""

    def settled(self) -> None:
        """The peer has proved who it is: it no longer counts at the door."""

    def close(self, status: int, reason: str) -> None:
        """Closes with a WebSocket status; link_closed follows. Whatever was sent before still leaves."""

    def abort(self) -> None:
        """Drops the TCP connection; link_closed follows."""


class LinkOwner(Protocol):
    """Who uses a link. link_open comes first; link_closed comes last and exactly once."""

    def link_open(self, link: Link) -> None: ...

    def link_message(self, link: Link, message: memoryview) -> None:
        """`message` is valid only during the call."""

    def link_paused(self, link: Link) -> None: ...

    def link_resumed(self, link: Link) -> None: ...

    def link_closed(self, link: Link, status: int | None, reason: str) -> None:
        """`status` is the WebSocket close status; None when the connection broke without one."""


@dataclass(frozen=True, slots=True)
class Front:
    """The proxies in front of a listener: their X-Forwarded-For is believed, and, with ``proxy_protocol``,
    every connection begins with their PROXY header. ``refused`` is told of each that was closed for it."""

    proxies: TrustedProxies
    proxy_protocol: bool
    refused: Callable[[Why], None]

    def client(self, peer: str, headers: Mapping[str, str]) -> str:
        """The client's own address; ``peer`` is whom the connection, or its PROXY header, names."""
        return self.proxies.client(peer, headers.get("x-forwarded-for"))


NO_FRONT: Final = Front(TrustedProxies(()), proxy_protocol=False, refused=lambda why: None)

OnRequest = Callable[[UpgradeRequest], LinkOwner | int]
"""Decides on an upgrade request: the owner of the new link, or an HTTP status (≥ 400) to refuse it."""


class Listener:
    """A listening address."""

    __slots__ = ("_server",)

    def __init__(self, server: asyncio.Server | AcceptingSocket) -> None:
        self._server = server

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Stops listening; live links stay."""
        self._server.close()

    async def wait_closed(self) -> None:
        await self._server.wait_closed()


def asks_for_tunnel(headers: Mapping[str, str]) -> bool:
    offered = headers.get("sec-websocket-protocol", "")
    return SUBPROTOCOL in (name.strip() for name in offered.split(","))


def close_reason(reason: str) -> str:
    """At most 123 bytes of UTF-8: what a WebSocket close frame can hold (RFC 6455 section 5.5)."""
    return reason.encode(errors="replace")[:123].decode(errors="ignore")
