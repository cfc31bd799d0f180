"""Links on picows and aiofastnet: the fast ones.

aiofastnet is not optional: on asyncio's own transports picows 2.3 corrupts messages over 8 KiB that wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl as ssl_module
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import aiofastnet  # missing, this whole module must be: see above
from picows import (
    WSAutoPingStrategy,
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
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # its stub leaves it out

from runtime.accepting import AcceptingSocket
from runtime.tasks import TaskOwner
from runtime.tunnel_link.door import Door, Pass
from runtime.tunnel_link.link import (
    BACKLOG,
    CLOSE_TIMEOUT_S,
    MAX_PINGS,
    NO_FRONT,
    PAD,
    STATUS_PROTOCOL_ERROR,
    TLS_HANDSHAKE_S,
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

# picows reports what peers do as errors; the driver logs the same once, with a code. An adapter, since
# of a plain logger picows makes a child for every connection.
_quiet = logging.getLogger("towline.tunnel_link.picows")
_quiet.setLevel(logging.CRITICAL)
_QUIET: Final = logging.LoggerAdapter(_quiet, {})
# A dialled link's last words with picows; each ends within a turn of the loop, so nobody need close them.
_ends: Final = TaskOwner("tunnel link")

_BINARY: Final = int(WSMsgType.BINARY.value)
_PING: Final = int(WSMsgType.PING.value)
_PONG: Final = int(WSMsgType.PONG.value)
_CLOSE: Final = int(WSMsgType.CLOSE.value)
_PAD_SIZE: Final = len(PAD)
# picows' least. Every idle tunnel pays for it, and it grows by itself, once, when messages do not fit.
_READ_BUFFER: Final = 2_048


class PicowsLink(WSListener):
    """A Link."""

    __slots__ = (
        "_closing",
        "_owner",
        "_peer",
        "_pings",
        "_place",
        "_reason",
        "_status",
        "_transport",
        "paused",
    )

    def __init__(self, owner: LinkOwner, peer: str | None = None, place: Pass | None = None) -> None:
        self._owner = owner
        self._peer = peer  # None: whoever the connection leads to
        self._place = place  # at the listener's door; None: it has none, or the peer is settled
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
        if frame.rsv1 or frame.rsv2 or frame.rsv3:  # picows leaves this to its user (RFC 6455 section 5.2)
            self._violation("no extension was agreed on")
        elif kind == _BINARY and frame.fin:
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
        if self._peer is None:
            _ends.start(_take_failure(transport), "end")

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
        if self._peer is not None:
            return self._peer
        return peer_address(self._transport.underlying_transport) if self._transport is not None else ""

    @property
    def unsent(self) -> int:
        return (
            self._transport.underlying_transport.get_write_buffer_size() if self._transport is not None else 0
        )

    @property
    def in_kernel(self) -> InKernel:
        return in_kernel(self._transport.underlying_transport) if self._transport is not None else InKernel()

    @property
    def silence_s(self) -> float:
        return silence_s(self._transport.underlying_transport) if self._transport is not None else math.inf

    def send(self, message: bytearray) -> None:
        if self._transport is not None:
            self._transport.send_reuse_external_bytearray(WSMsgType.BINARY, message, _PAD_SIZE)

    def set_buffers(self, high_water: int, kernel_unsent: int) -> None:
        if self._transport is not None:
            underlying = self._transport.underlying_transport
            underlying.set_write_buffer_limits(high_water, high_water // 4)
            set_kernel_unsent(underlying, kernel_unsent)

    def settled(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.leave()

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


async def _take_failure(transport: WSTransport) -> None:
    """picows keeps what ended a dialled link as a future's exception, and asyncio logs it, traceback and
    all, when nobody takes it: a hostile server would write that into a device's log at will.
    """
    try:
        await transport.wait_disconnected()
    except Exception as failure:
        _log.debug("a link broke the rules of WebSocket", extra={"error": str(failure)})


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
    host: str,
    port: int,
    on_request: OnRequest,
    *,
    ssl: ssl_module.SSLContext | None,
    max_message: int,
    front: Front = NO_FRONT,
    door: Door | None = None,
) -> Listener:
    """Listens for links. Raises OSError when the address cannot be had."""

    def upgraded(
        request: WSUpgradeRequest, connected: str, place: Pass | None
    ) -> WSUpgradeResponseWithListener:
        headers = _lower(request.headers)
        if not asks_for_tunnel(headers):
            return _refused(400)
        peer = front.client(connected, headers)
        answer = on_request(UpgradeRequest(request.path.decode("latin-1"), headers, peer))
        if isinstance(answer, int):
            return _refused(answer)
        response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": SUBPROTOCOL})
        return WSUpgradeResponseWithListener(response, PicowsLink(answer, peer, place))

    async def serve(connection: socket.socket, connected: str) -> None:
        place = None
        # Behind a proxy that ends TLS everybody has its address: who asks is known with the upgrade alone.
        if door is not None and (front.proxy_protocol or not front.proxies.trusts(connected)):
            try:
                place = await door.enter(connected)
            except asyncio.CancelledError:
                connection.close()
                raise
            if place is None:
                connection.close()
                return
        await handshake(connection, connected, place)

    async def handshake(connection: socket.socket, connected: str, place: Pass | None) -> None:
        served = False
        try:
            await aiofastnet.connect_accepted_socket(
                asyncio.get_running_loop(),
                lambda: _protocol(lambda request: upgraded(request, connected, place), max_message, place),
                connection,
                ssl=ssl,
                ssl_handshake_timeout=None if ssl is None else TLS_HANDSHAKE_S,
            )
            served = True
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            _log.debug("a TLS handshake failed", extra={"error": str(error), "peer": connected})
            connection.close()
        finally:
            if place is not None and not served:
                place.leave()

    accepting = AcceptingSocket(
        serve,
        name="tunnel_link",
        proxies=front.proxies if front.proxy_protocol else None,
        refused=front.refused,
    )
    await accepting.start(host, port, backlog=BACKLOG)
    return Listener(accepting)


class _ServerProtocol(WSProtocol):  # type: ignore[misc]
    """picows' own, which also gives back the connection's place at the door, upgraded or not."""

    __slots__ = ("place",)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.place is not None:
            self.place.leave()


def _protocol(
    make: Callable[[WSUpgradeRequest], WSUpgradeResponseWithListener], max_message: int, place: Pass | None
) -> asyncio.BufferedProtocol:
    """What picows' ws_create_server makes for a connection. It offers no way to serve one that was accepted
    elsewhere, and no way to learn who asks for an upgrade (picows 2.3)."""
    protocol = _ServerProtocol(
        None,  # host and port, for clients
        None,  # path, for clients
        False,  # is a client
        make,
        _QUIET,
        True,  # disconnect when our code raises
        UPGRADE_TIMEOUT_S,
        False,  # PING by itself: the tunnel has its own
        CLOSE_TIMEOUT_S,  # idle before such a PING: not used
        CLOSE_TIMEOUT_S,  # for its answer: not used
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # answer PING by itself: they are counted here
        max_message,
        None,  # headers, for clients
        _READ_BUFFER,
    )
    protocol.place = place
    return cast(asyncio.BufferedProtocol, protocol)


def _refused(status: int) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status), None)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Names in lower case; several lines of a name are one list (RFC 9110 section 5.3)."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        name = name.lower()
        found[name] = f"{found[name]},{value}" if name in found else value
    return found
