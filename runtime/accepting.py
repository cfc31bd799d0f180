"""A listening socket that tells who connected before anything of the connection is parsed, TLS included.

With ``proxies`` every connection must come from one of them and begin with a PROXY header
(runtime.proxy_protocol). Exactly the header's bytes are taken off the socket: what follows is TLS or HTTP.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from runtime.client_address import TrustedProxies, canonical
from runtime.logs import get_logger
from runtime.proxy_protocol import HEADER_MAX, ProxyHeader, ProxyProtocolError, parse
from runtime.tasks import TaskOwner

# A proxy sends its header with the connection's first bytes; only a lost packet takes longer.
HEADER_S = 5.0
# Connections whose header or handshake is not complete: 5,000 devices may come back in the same second. A
# flood beyond it is closed at once.
PENDING_MAX = 8_192
ACCEPTS_PER_TURN = 64  # so that a burst of new connections does not hold up the live ones
RETRY_S = 1.0  # without a free file descriptor accept() fails at once, again and again

Why = Literal["untrusted", "bad_header", "no_header", "too_many"]
Serve = Callable[[socket.socket, str], Coroutine[Any, Any, None]]
"""Takes over a connected non-blocking socket and the client's address; it closes the socket when it fails."""

_log = get_logger("runtime.accepting")


class AcceptingSocket:
    """Listens; hands every connection to ``serve``. ``refused`` is told of each that was closed here."""

    def __init__(
        self,
        serve: Serve,
        *,
        name: str,
        proxies: TrustedProxies | None = None,
        refused: Callable[[Why], None] = lambda why: None,
    ) -> None:
        self._serve = serve
        self._name = name
        self._proxies = proxies
        self._refused = refused
        self._tasks = TaskOwner(name)
        self._pending: set[asyncio.Task[None]] = set()
        self._silent: set[asyncio.Task[None]] = set()  # of them
        self._retries: set[asyncio.TimerHandle] = set()
        self.sockets: list[socket.socket] = []
        """Those that listen; empty before ``start`` and after ``close``."""

    async def bind(self, host: str, port: int) -> None:
        """Take every address that ``host`` has; who connects is refused still. OSError when one is taken."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                self.sockets.append(_bound(family, address[:2]))
        except OSError:
            self.close()
            raise

    def open(self, *, backlog: int) -> None:
        """Accept from now on."""
        loop = asyncio.get_running_loop()
        for listening in self.sockets:
            listening.listen(backlog)
            loop.add_reader(listening, self._accept, listening)

    async def start(self, host: str, port: int, *, backlog: int) -> None:
        """`bind` and `open`."""
        await self.bind(host, port)
        self.open(backlog=backlog)

    def stop(self) -> None:
        """Listen no more; connections that came before are still handed over."""
        loop = asyncio.get_running_loop()
        for listening in self.sockets:
            loop.remove_reader(listening)
            listening.close()
        self.sockets.clear()
        for retry in self._retries:
            retry.cancel()

    async def wait_handed_over(self) -> None:
        """Until every connection that came before `stop` is served or refused."""
        while self._pending:
            await asyncio.wait(self._pending)

    @contextmanager
    def silence(self) -> Iterator[None]:
        """For ``serve``, around waiting for a connection's first byte: `end_silent` cancels it."""
        task = asyncio.current_task()
        assert task is not None
        self._silent.add(task)
        try:
            yield
        finally:
            self._silent.discard(task)

    def end_silent(self) -> None:
        """End connections that have not said anything, or not what begins them: a scanner's, or a visitor's
        whose client has nothing to ask yet. None of them loses an answer.
        """
        for task in self._silent:
            task.cancel()

    def close(self) -> None:
        """Listen no more; connections that are not handed over yet end."""
        self.stop()
        for task in self._pending:
            task.cancel()

    async def wait_closed(self) -> None:
        """Until those connections have ended."""
        await self._tasks.close(HEADER_S)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                self._pause(listening, error)
                return
            connection.setblocking(False)
            self._begin(connection, canonical(str(address[0])))

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """Without file descriptors or memory: others may free some."""
        _log.error("cannot accept", extra={"listener": self._name, "error": str(error)})
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)

        def again() -> None:
            self._retries.discard(retry)
            loop.add_reader(listening, self._accept, listening)

        retry = loop.call_later(RETRY_S, again)
        self._retries.add(retry)

    def _begin(self, connection: socket.socket, peer: str) -> None:
        if self._proxies is not None and not self._proxies.trusts(peer):
            self._turn_away(connection, "untrusted", peer)
        elif len(self._pending) >= PENDING_MAX:
            self._turn_away(connection, "too_many", peer)
        else:
            task = self._tasks.start(self._hand_over(connection, peer), "connection")
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def _hand_over(self, connection: socket.socket, peer: str) -> None:
        handed = False
        try:
            client = peer if self._proxies is None else await self._client(connection, peer)
            if client is not None:
                handed = True
                await self._serve(connection, client)
        finally:
            if not handed:
                connection.close()

    async def _client(self, connection: socket.socket, peer: str) -> str | None:
        """Whom the header names; None after a refusal."""
        try:
            with self.silence():
                async with asyncio.timeout(HEADER_S):
                    header = await take_header(connection)
        except ProxyProtocolError as error:
            self._note("bad_header", peer, str(error))
        except (TimeoutError, OSError) as error:
            self._note("no_header", peer, str(error) or type(error).__name__)
        else:
            return peer if header.client is None else canonical(header.client)
        return None

    def _turn_away(self, connection: socket.socket, why: Why, peer: str) -> None:
        connection.close()
        self._note(why, peer, "")

    def _note(self, why: Why, peer: str, error: str) -> None:
        _log.debug("refused", extra={"listener": self._name, "why": why, "peer": peer, "error": error})
        self._refused(why)


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    # Named, because asyncio sends at once (TCP_NODELAY) only on a socket that says it is TCP, and who is
    # accepted here says what this one does. Else an answer's second write waits 40 ms for the first's ACK.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # its IPv4 twin has a socket of its own
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


async def take_header(connection: socket.socket) -> ProxyHeader:
    """Take the PROXY header, and no byte more, off a non-blocking socket.

    ProxyProtocolError when something else came, or the end; OSError when the connection broke.
    """
    taken = b""
    while True:
        try:
            seen = connection.recv(HEADER_MAX - len(taken), socket.MSG_PEEK)
        except BlockingIOError:
            await wait_readable(connection)
            continue
        if not seen:
            raise ProxyProtocolError("the connection ended before its header")
        header = parse(taken + seen)
        # As long as more is needed, all that was seen is the header's: taken off, it is not seen again.
        taken += connection.recv(len(seen) if header is None else header.size - len(taken))
        if header is not None:
            return header


async def wait_readable(connection: socket.socket) -> None:
    """Until a non-blocking socket that no transport has yet holds bytes, or its end."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)
