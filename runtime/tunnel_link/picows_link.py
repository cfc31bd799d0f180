"""Links on picows and aiofastnet: the fast ones.

aiofastnet is not optional: on asyncio's own transports picows 2.3 corrupts messages over 8 KiB that wait.
"""

from __future__ import annotations

import asyncio
import logging
import ssl as ssl_module
from collections.abc import Mapping
from typing import Any, Final, cast

import aiofastnet  # noqa: F401 - missing, this whole module must be: see above
from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_connect,
    ws_create_server,
)

from runtime.tunnel_link.link import (
    BACKLOG,
    CLOSE_TIMEOUT_S,
    MAX_PINGS,
    PAD,
    STATUS_PROTOCOL_ERROR,
    UPGRADE_TIMEOUT_S,
    LinkFailed,
    LinkOwner,
    Listener,
    OnRequest,
    UpgradeRequest,
    asks_for_tunnel,
    close_reason,
)
from runtime.tunnel_link.sockets import kernel_unsent, peer_address, set_kernel_unsent, set_no_delay
from tunnel_protocol import SUBPROTOCOL

_log = logging.getLogger("towline.tunnel_link")

# picows reports what peers do as errors; the driver logs the same once, with a code. An adapter, since
# of a plain logger picows makes a child for every connection.
_quiet = logging.getLogger("towline.tunnel_link.picows")
_quiet.setLevel(logging.CRITICAL)
_QUIET: Final = logging.LoggerAdapter(_quiet, {})

_BINARY: Final = int(WSMsgType.BINARY.value)
_PING: Final = int(WSMsgType.PING.value)
_PONG: Final = int(WSMsgType.PONG.value)
_CLOSE: Final = int(WSMsgType.CLOSE.value)
_PAD_SIZE: Final = len(PAD)
# picows' least. Every idle tunnel pays for it, and it grows by itself, once, when messages do not fit.
_READ_BUFFER: Final = 2_048


class PicowsLink(WSListener):
    """A Link."""

    __slots__ = ("_closing", "_owner", "_pings", "_reason", "_status", "_transport", "paused")

    def __init__(self, owner: LinkOwner) -> None:
        self._owner = owner
        self._transport: WSTransport | None = None  # set when the upgrade is done
        self._closing: asyncio.TimerHandle | None = (
            None  # set once we closed: aborts a peer that does not answer
        )
        self._status: int | None = None
        self._reason = ""
        self._pings = 0
        self.paused = False

    # What picows calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        transport.request.headers.clear()  # picows would keep both sets for the link's whole life
        transport.response.headers.clear()
        set_no_delay(transport.underlying_transport)
        self._call(self._owner.link_open, self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = cast(int, frame.msg_type)  # an int at run time, whatever the stub says
        if kind == _BINARY and frame.fin:
            if self._closing is None:
                self._pings = 0
                self._call(self._owner.link_message, self, frame.get_payload_as_memoryview())
        elif kind == _CLOSE:
            self._peer_closes(frame)
        elif kind == _PING:
            self._answer_ping(frame)
        elif kind != _PONG:
            self._violation("only unfragmented binary messages are allowed")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._closing is not None:
            self._closing.cancel()
        handshake = transport.close_handshake
        if self._status is None and handshake is not None and handshake.sent is not None:
            self._reason = str(handshake.sent.reason)  # picows itself closed: the peer broke RFC 6455
        self._call(self._owner.link_closed, self, self._status, self._reason)

    def pause_writing(self) -> None:
        self.paused = True
        self._call(self._owner.link_paused, self)

    def resume_writing(self) -> None:
        self.paused = False
        self._call(self._owner.link_resumed, self)

    def _call(self, method: Any, *arguments: Any) -> None:
        """picows would log a failing owner and go on; such a link is dropped instead."""
        try:
            method(*arguments)
        except Exception:
            _log.exception("a link's owner failed")
            self.abort()

    def _answer_ping(self, frame: WSFrame) -> None:
        self._pings += 1
        if self._pings > MAX_PINGS:
            self._violation("too many WebSocket pings")
        elif self._transport is not None:
            self._transport.send_pong(frame.get_payload_as_bytes())

    def _peer_closes(self, frame: WSFrame) -> None:
        if self._status is None:
            self._status = int(cast(int, frame.get_close_code())) or None
            self._reason = frame.get_close_reason() or ""
        if self._transport is not None:
            if not self._transport.is_close_frame_sent:
                self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    def _violation(self, reason: str) -> None:
        self.close(STATUS_PROTOCOL_ERROR, reason)

    # What the owner calls

    @property
    def peer_address(self) -> str:
        return peer_address(self._transport.underlying_transport) if self._transport is not None else ""

    @property
    def unsent(self) -> int:
        return (
            self._transport.underlying_transport.get_write_buffer_size() if self._transport is not None else 0
        )

    @property
    def kernel_unsent(self) -> int:
        return kernel_unsent(self._transport.underlying_transport) if self._transport is not None else 0

    def send(self, message: bytearray) -> None:
        if self._transport is not None:
            self._transport.send_reuse_external_bytearray(WSMsgType.BINARY, message, _PAD_SIZE)

    def set_buffers(self, high_water: int, kernel_unsent: int) -> None:
        if self._transport is not None:
            underlying = self._transport.underlying_transport
            underlying.set_write_buffer_limits(high_water, high_water // 4)
            set_kernel_unsent(underlying, kernel_unsent)

    def close(self, status: int, reason: str) -> None:
        if self._transport is None or self._closing is not None or self._transport.is_disconnected:
            return
        if self._status is None:
            self._status, self._reason = status, reason
        self._transport.send_close(cast(WSCloseCode, status), close_reason(reason))
        self._closing = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self.abort)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.disconnect(graceful=False)


async def dial(
    url: str,
    owner: LinkOwner,
    *,
    ssl: ssl_module.SSLContext | None,
    max_message: int,
    timeout_s: float,
    server_hostname: str | None = None,
) -> PicowsLink:
    """Opens a link to `url` (ws:// or wss://). Raises LinkFailed, also after `timeout_s`."""

    def make(request: WSUpgradeRequest, response: WSUpgradeResponse) -> PicowsLink:
        if response.headers.get("sec-websocket-protocol") != SUBPROTOCOL:
            raise LinkFailed(f"the server does not speak {SUBPROTOCOL}")
        if "sec-websocket-extensions" in response.headers:
            raise LinkFailed("the server wants a WebSocket extension that was not offered")
        return PicowsLink(owner)

    options: dict[str, Any] = {} if server_hostname is None else {"server_hostname": server_hostname}
    try:
        async with asyncio.timeout(timeout_s):
            _, link = await ws_connect(
                make,
                url,
                ssl_context=ssl,
                websocket_handshake_timeout=timeout_s,
                logger_name=_QUIET,
                enable_auto_pong=False,
                max_frame_size=max_message,
                extra_headers={"Sec-WebSocket-Protocol": SUBPROTOCOL},
                max_redirects=0,
                read_buffer_init_size=_READ_BUFFER,
                use_aiofastnet=True,
                **options,
            )
    except TimeoutError:
        raise LinkFailed(f"no answer within {timeout_s:g} s") from None
    except (OSError, WSError, ValueError) as error:
        raise LinkFailed(str(error) or type(error).__name__) from error
    return cast(PicowsLink, link)


async def listen(
    host: str, port: int, on_request: OnRequest, *, ssl: ssl_module.SSLContext | None, max_message: int
) -> Listener:
    """Listens for links. Raises OSError when the address cannot be had."""

    def make(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        headers = _lower(request.headers)
        if not asks_for_tunnel(headers):
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(400), None)
        answer = on_request(UpgradeRequest(request.path.decode("latin-1"), headers))
        if isinstance(answer, int):
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(answer), None)
        response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": SUBPROTOCOL})
        return WSUpgradeResponseWithListener(response, PicowsLink(answer))

    server = await ws_create_server(
        make,
        host,
        port,
        websocket_handshake_timeout=UPGRADE_TIMEOUT_S,
        logger_name=_QUIET,
        enable_auto_pong=False,
        max_frame_size=max_message,
        read_buffer_init_size=_READ_BUFFER,
        use_aiofastnet=True,
        backlog=BACKLOG,
        ssl=ssl,
    )
    return Listener(server)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
