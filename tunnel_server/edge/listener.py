"""The visitors' listening socket, and the sweep that ends phases which took too long."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Any

from runtime.accepting import AcceptingSocket, wait_readable
from runtime.addresses import Address, parse_address
from runtime.last_call import LAST_CALL_S, admit_no_more
from runtime.logs import get_logger
from runtime.tls_files import load_pair
from tunnel_server.edge.context import Edge
from tunnel_server.edge.visitor import VisitorConnection
from tunnel_server.settings import VisitorSettings

BACKLOG = 1_024  # a page opens six connections at once, and many people come back after a restart
TLS_HANDSHAKE_S = 10.0  # as long as a request head may take
# After SIGTERM: how long an open connection may still bring a request. A busy proxy's bring one within that
# time and learn by its answer that it was the last; an idle process has to be gone in 2 s.
DRAIN_IDLE_S = 0.75
DRAIN_LOOK_S = 0.02
SWEEP_S = 0.25  # deadlines are seconds: a quarter of one late does no harm
# A quiet WebSocket or event stream has no deadline, and holds one of its device's few streams: a visitor
# whose machine vanished is found after 60 s + 4 x 15 s of silence. Not by TCP_USER_TIMEOUT, which would also
# end one that is there and does not read. Some systems lack some of the names.
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
TCP_CLOSE = 7  # the first byte of tcp_info, tcpi_state (linux/tcp.h, net/tcp_states.h)


_log = get_logger("tunnel_server.edge")


class VisitorListener:
    """Accepts visitors into ``edge`` from ``open`` on. ``context`` is the TLS in use, None before ``bind`` or
    without TLS.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._address = parse_address(edge.settings.listen)
        self._server: asyncio.Server | AcceptingSocket | None = None
        self._accepting: AcceptingSocket | None = None  # the same, also while it drains
        self.context: ssl.SSLContext | None = None

    async def bind(self) -> None:
        """Take the address; who connects is refused still. OSError when it is taken."""
        self.context = visitor_context(self._edge.settings)
        if self._edge.settings.proxy_protocol or self.context is not None:
            self._server = self._accepting = await self._before_tls()
        else:
            self._server = await self._directly()
        for listening in self._server.sockets:
            find_dead_peers(listening)

    async def open(self) -> None:
        """Accept visitors from now on. OSError when another process took the address meanwhile."""
        server = self._server
        if server is None:
            return
        if isinstance(server, AcceptingSocket):
            server.open(backlog=BACKLOG)
        else:
            await server.start_serving()
        if not server.sockets or not all(map(accepts, server.sockets)):  # uvloop keeps that to itself
            raise OSError(errno.EADDRINUSE, f"{self._address} is taken")

    async def _directly(self) -> asyncio.Server:
        """Plain HTTP."""
        loop = asyncio.get_running_loop()
        host, port = self._address.host, self._address.port
        return await loop.create_server(
            lambda: VisitorConnection(self._edge), host, port, backlog=BACKLOG, start_serving=False
        )

    async def _before_tls(self) -> AcceptingSocket:
        """The visitor's address is known before the first byte of TLS, so that nobody takes all handshakes;
        behind proxies it stands there.
        """
        refused = self._edge.metrics.proxies_refused
        accepting = AcceptingSocket(
            self._serve,
            name="visitors",
            proxies=self._edge.proxies if self._edge.settings.proxy_protocol else None,
            refused=lambda why: refused.labels("visitors", why).inc(),
        )
        await accepting.bind(self._address.host, self._address.port)
        return accepting

    async def _serve(self, connection: socket.socket, address: str) -> None:
        with self._edge.handshake(address) as may:
            if not may:
                self._edge.metrics.visitors_refused.inc()
                connection.close()
                return
            await self._shake_hands(connection, address)

    async def _shake_hands(self, connection: socket.socket, address: str) -> None:
        tls = self.context is not None
        handed = False
        try:
            async with asyncio.timeout(TLS_HANDSHAKE_S):
                if tls:
                    await self._wait_hello(connection)
                # The loop's own TLS: aiofastnet 1.2, quicker at it, loses what it had read when reading is
                # paused and resumed (its resume asks the socket, which is empty), and uploads hang.
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: VisitorConnection(self._edge, address),
                    connection,
                    ssl=self.context,
                    ssl_handshake_timeout=TLS_HANDSHAKE_S if tls else None,
                )
                handed = True
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            _log.debug("a TLS handshake failed", extra={"error": str(error), "address": address})
        finally:
            if not handed:
                connection.close()

    async def _wait_hello(self, connection: socket.socket) -> None:
        """The handshake has begun: from here on a drain waits for its end."""
        assert self._accepting is not None
        with self._accepting.silence():
            await wait_readable(connection)

    @property
    def address(self) -> Address:
        """Where it listens, with the port the kernel chose for port 0."""
        if self._server is None:
            return self._address
        name: Any = self._server.sockets[0].getsockname()
        return Address(self._address.host, name[1])

    async def sweep(self) -> None:
        """End overdue phases until cancelled."""
        edge = self._edge
        while True:
            await asyncio.sleep(SWEEP_S)
            now = edge.monotonic()
            for connection in [c for c in edge.connections if 0 < c.deadline <= now]:
                connection.deadline_passed(now)
            # A WebSocket whose device takes no more is not read, and then no loop hears of its end.
            for connection in [c for c in edge.connections if c.reading_paused and c.raw is not None]:
                if is_over(connection.transport.get_extra_info("socket")):
                    connection.abort()
            edge.sessions.end_expired(now)
            edge.registry.sweep(now)

    async def drain(self) -> None:
        """Until nobody needs a tunnel's next stream: new connections are refused, those that are open get the
        answer to the request in flight, or to one that was on its way, and `Connection: close` with it.
        """
        edge = self._edge
        edge.draining = True
        edge.idle_until = edge.monotonic() + DRAIN_IDLE_S
        for connection in list(edge.connections):
            connection.drain()
        await self._last_call()
        # Many things end that need; a drain looks for them, so that requests need not tell it.
        while not all(one.needs_no_more for one in edge.connections):  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_LOOK_S)

    async def _last_call(self) -> None:
        """Close the listening socket without resetting who has just come through it."""
        server, self._server = self._server, None
        if server is None:
            return
        try:
            for listening in server.sockets:
                admit_no_more(listening.fileno())
            await asyncio.sleep(LAST_CALL_S)
        except OSError as error:
            _log.warning("who connects now may be cut", extra={"error": str(error)})
        try:
            if isinstance(server, AcceptingSocket):
                await _let_in(server)
        finally:
            server.close()

    def close(self) -> None:
        """Cut what is left."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._edge.connections):
            connection.abort()


async def _let_in(server: AcceptingSocket) -> None:
    """Hand over who came before the drain. A handshake that began may take its time: its visitor, on a slow
    line, would lose a connection that no other node knows of. Who said nothing yet has the time of one that
    brings no request.
    """
    server.stop()
    ending = asyncio.get_running_loop().call_later(DRAIN_IDLE_S, server.end_silent)
    try:
        await server.wait_handed_over()
    finally:
        ending.cancel()


def find_dead_peers(listening: socket.socket) -> None:
    """TCP keepalive (tcp(7)) for every connection that will be accepted here: they inherit it."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def accepts(listening: socket.socket) -> bool:
    """Whether the socket listens."""
    return bool(listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def is_over(connection: socket.socket | None) -> bool:
    """Whether the peer reset it, or keepalive gave it up. False where the system does not tell."""
    if connection is None or not hasattr(socket, "TCP_INFO"):
        return False
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE


def visitor_context(settings: VisitorSettings) -> ssl.SSLContext | None:
    """TLS 1.2 or newer, HTTP/1.1 alone; None behind a proxy and on plain loopback."""
    if settings.certificate is None or settings.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_pair(context, settings.certificate, settings.key, "visitors")
    return context
