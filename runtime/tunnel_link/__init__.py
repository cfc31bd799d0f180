"""A tunnel over a real network: the WebSocket that carries it, and the driver that joins both."""

from __future__ import annotations

import asyncio
import ssl as ssl_module

from runtime.tunnel_link.door import Door, Turned
from runtime.tunnel_link.driver import StreamOwner, TunnelDriver
from runtime.tunnel_link.link import (
    NO_FRONT,
    PAD,
    Front,
    Link,
    LinkFailed,
    LinkOwner,
    Listener,
    OnRequest,
    UpgradeRequest,
)
from runtime.tunnel_link.ticker import Ticker
from runtime.tunnel_link.tls_failures import quiet_failed_handshakes

try:
    from runtime.tunnel_link import picows_link as _links
except ImportError:  # picows has no wheel for this machine (32-bit ARM)
    from runtime.tunnel_link import websockets_link as _links  # type: ignore[no-redef]

__all__ = [
    "NO_FRONT",
    "PAD",
    "Door",
    "Front",
    "Link",
    "LinkFailed",
    "LinkOwner",
    "Listener",
    "OnRequest",
    "StreamOwner",
    "Ticker",
    "TunnelDriver",
    "Turned",
    "UpgradeRequest",
    "dial",
    "listen",
    "quiet_failed_handshakes",
]


async def dial(
    url: str,
    owner: LinkOwner,
    *,
    ssl: ssl_module.SSLContext | None,
    max_message: int,
    timeout_s: float,
    server_hostname: str | None = None,
) -> Link:
    """Opens a link to `url` (ws:// or wss://). Raises LinkFailed, also after `timeout_s`.

    `max_message`: the largest message that will be taken, as Limits.max_message. `server_hostname`: the name
    that the certificate must carry when it is not the URL's host.
    """
    if ssl is not None:
        quiet_failed_handshakes(asyncio.get_running_loop())  # LinkFailed says it
    return await _links.dial(
        url, owner, ssl=ssl, max_message=max_message, timeout_s=timeout_s, server_hostname=server_hostname
    )


async def listen(
    host: str,
    port: int,
    on_request: OnRequest,
    *,
    ssl: ssl_module.SSLContext | None,
    max_message: int,
    front: Front = NO_FRONT,
    door: Door | None = None,
) -> Listener:
    """Listens for links; port 0 takes any free one. Raises OSError when the address cannot be had.

    Who comes waits for a place at `door`, before TLS; owners give it back by Link.settled.
    """
    if ssl is not None:
        quiet_failed_handshakes(asyncio.get_running_loop())
    return await _links.listen(
        host, port, on_request, ssl=ssl, max_message=max_message, front=front, door=door
    )
