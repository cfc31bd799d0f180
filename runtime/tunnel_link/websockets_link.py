"""Links on the sans-I/O half of `websockets`: slower, for machines where picows has no wheel."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl as ssl_module
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from runtime.tunnel_link.door import Door
from runtime.tunnel_link.link import (
    BACKLOG,
    CLOSE_TIMEOUT_S,
    MAX_PINGS,
    NO_FRONT,
    PAD,
    STATUS_PROTOCOL_ERROR,
    UPGRADE_TIMEOUT_S,
    Front,
    LinkFailed,
    LinkOwner,
    Listener,
    OnRequest,
    UpgradeRequest,
    asks_for_tunnel,
    close_reason,
)
from runtime.tunnel_link.sockets import (
    InKernel,
    in_kernel,
    peer_address,
    set_kernel_unsent,
    set_no_delay,
    silence_s,
)
from tunnel_protocol import SUBPROTOCOL

_log = logging.getLogger("towline.tunnel_link")
_quiet = logging.getLogger(
    "towline.tunnel_link.websockets"
)  # peers' errors; the driver logs them once, with a code
_quiet.setLevel(logging.CRITICAL)

_SUBPROTOCOLS: Final = [Subprotocol(SUBPROTOCOL)]
_PAD_SIZE: Final = len(PAD)


class WebsocketsLink(asyncio.Protocol, ABC):
    """A Link; also the asyncio protocol under it. `_owner` is None until the upgrade is done."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._owner: LinkOwner | None = None
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None  # of the upgrade, later of the close
        self._closing = False
        self._lost = False
        self._status: int | None = None
        self._reason = ""
        self._pings = 0
        self.paused = False

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by class
        set_no_delay(transport)
        self._set_deadline(UPGRADE_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        self._process()

    def _process(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event)
            else:
                self._upgrade(event)
        self._write()
        if self._protocol.state is State.CLOSED or self._protocol.close_expected():
            self._finish()

    def eof_received(self) -> None:
        self._protocol.receive_eof()  # a refusal's body ends here
        self._process()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._lost = True
        owner, self._owner = self._owner, None
        if owner is not None:
            if self._status is None and not self._reason:
                self._reason = self._protocol.close_reason or ""
            owner.link_closed(self, self._status, self._reason)

    def pause_writing(self) -> None:
        self.paused = True
        self._call("link_paused")

    def resume_writing(self) -> None:
        self.paused = False
        self._call("link_resumed")

    # Frames

    @abstractmethod
    def _upgrade(self, message: Request | Response) -> None:
        """The upgrade's other half came."""

    def _open(self, owner: LinkOwner) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._owner = owner
        self._write()
        self._call("link_open")

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY and frame.fin:
            if not self._closing:
                self._pings = 0
                self._call("link_message", memoryview(bytes(frame.data)))
        elif frame.opcode is Opcode.CLOSE:
            if self._status is None:
                code = self._protocol.close_rcvd.code if self._protocol.close_rcvd is not None else None
                self._status = None if code == 1005 else code
                self._reason = self._protocol.close_reason or ""
        elif frame.opcode is Opcode.PING:
            self._pings += 1
            if self._pings > MAX_PINGS:
                self.close(STATUS_PROTOCOL_ERROR, "too many WebSocket pings")
        elif frame.opcode is not Opcode.PONG:
            self.close(STATUS_PROTOCOL_ERROR, "only unfragmented binary messages are allowed")

    def _call(self, name: str, *arguments: Any) -> None:
        if self._owner is None:
            return
        try:
            getattr(self._owner, name)(self, *arguments)
        except Exception:
            _log.exception("a link's owner failed")
            self.abort()

    def _write(self) -> None:
        assert self._transport is not None
        for data in self._protocol.data_to_send():
            if data and not self._lost:
                self._transport.write(data)

    def _finish(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._set_deadline(CLOSE_TIMEOUT_S)

    def _set_deadline(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.abort)

    # What the owner calls

    @property
    def is_open(self) -> bool:
        """The upgrade is done and the connection not lost."""
        return self._owner is not None

    @property
    def peer_address(self) -> str:
        return peer_address(self._transport) if self._transport is not None else ""

    @property
    def unsent(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    @property
    def in_kernel(self) -> InKernel:
        return in_kernel(self._transport) if self._transport is not None else InKernel()

    @property
    def silence_s(self) -> float:
        return silence_s(self._transport) if self._transport is not None else math.inf

    def send(self, message: bytearray) -> None:
        if self._protocol.state is State.OPEN and not self._lost:
            self._protocol.send_binary(memoryview(message)[_PAD_SIZE:])
            self._write()

    def set_buffers(self, high_water: int, kernel_unsent: int) -> None:
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high_water, high_water // 4)
            set_kernel_unsent(self._transport, kernel_unsent)

    def settled(self) -> None:
        """Nothing to do: no door stands before this listener."""

    def close(self, status: int, reason: str) -> None:
        if self._closing or self._lost:
            return
        self._closing = True
        if self._status is None:
            self._status, self._reason = status, reason
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(status, close_reason(reason))
            self._write()
        self._set_deadline(CLOSE_TIMEOUT_S)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _ClientLink(WebsocketsLink):
    def __init__(self, protocol: ClientProtocol, owner: LinkOwner) -> None:
        super().__init__(protocol)
        self._client = protocol
        self._future_owner = owner
        self.upgraded: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._client.send_request(self._client.connect())
        self._write()

    def _upgrade(self, message: Request | Response) -> None:
        error = self._client.handshake_exc
        if error is None and self._client.subprotocol != SUBPROTOCOL:
            error = LinkFailed(f"the server does not speak {SUBPROTOCOL}")
        if error is None:
            self._open(self._future_owner)
            self._settle(None)
        else:
            self._settle(error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._settle(exc or LinkFailed("the server closed the connection during the upgrade"))

    def _settle(self, error: Exception | None) -> None:
        if self.upgraded.done():
            return
        if error is None:
            self.upgraded.set_result(None)
        else:
            self.upgraded.set_exception(error)


class _ServerLink(WebsocketsLink):
    def __init__(self, protocol: ServerProtocol, on_request: OnRequest) -> None:
        super().__init__(protocol)
        self._server = protocol
        self._on_request = on_request

    def _upgrade(self, message: Request | Response) -> None:
        assert isinstance(message, Request)
        headers = {name.lower(): value for name, value in message.headers.raw_items()}
        owner = self._decide(message.path, headers)
        if isinstance(owner, int):
            self._server.send_response(self._server.reject(owner, ""))
            return
        response = self._server.accept(message)
        self._server.send_response(response)
        if response.status_code == 101:
            self._open(owner)

    def _decide(self, path: str, headers: Mapping[str, str]) -> LinkOwner | int:
        if not asks_for_tunnel(headers):
            return 400
        peer = peer_address(self._transport) if self._transport is not None else ""
        return self._on_request(UpgradeRequest(path, headers, peer))


async def dial(
    url: str,
    owner: LinkOwner,
    *,
    ssl: ssl_module.SSLContext | None,
    max_message: int,
    timeout_s: float,
    server_hostname: str | None = None,
) -> WebsocketsLink:
    """Opens a link to `url` (ws:// or wss://). Raises LinkFailed, also after `timeout_s`."""
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    link: _ClientLink | None = None

    def make() -> _ClientLink:
        protocol = ClientProtocol(
            parse_uri(url), extensions=[], subprotocols=_SUBPROTOCOLS, max_size=max_message, logger=_quiet
        )
        return _ClientLink(protocol, owner)

    try:
        async with asyncio.timeout(timeout_s):
            _, link = await asyncio.get_running_loop().create_connection(
                make,
                parts.hostname or "",
                parts.port or (443 if secure else 80),
                ssl=(ssl or True) if secure else None,
                server_hostname=(server_hostname or parts.hostname) if secure else None,
            )
            await link.upgraded
    except TimeoutError:
        raise LinkFailed(f"no answer within {timeout_s:g} s") from None
    except (OSError, InvalidHandshake, InvalidURI, ValueError) as error:
        raise LinkFailed(str(error) or type(error).__name__) from error
    finally:
        if link is not None and not link.is_open:
            link.abort()
    return link


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
    """Listens for links. Raises OSError when the address cannot be had. Nodes run where picows is: nothing
    stands in front of this one, and nobody waits."""
    if front.proxy_protocol or front.proxies or door is not None:
        raise ValueError("a listener behind proxies or a door needs picows")

    def make() -> _ServerLink:
        protocol = ServerProtocol(
            extensions=[], subprotocols=_SUBPROTOCOLS, max_size=max_message, logger=_quiet
        )
        return _ServerLink(protocol, on_request)

    server = await asyncio.get_running_loop().create_server(make, host, port, ssl=ssl, backlog=BACKLOG)
    return Listener(server)
