"""One HTTP listener: uvicorn on a socket that we bound, started and ended by us, without its signals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from gateway.connection import BoundedProtocol, EventSocketProtocol
from runtime.addresses import Address, parse_address
from runtime.tasks import TaskOwner

# Idle connections of browsers, agents and nodes; longer than the 60 s that proxies in front keep theirs.
KEEP_ALIVE_S = 75
# Requests in flight at the end of the process; the slowest is a password check behind others.
GRACE_S = 5
# Bounds the memory that connections can take; a flood beyond it gets 503 at once.
CONNECTIONS_MAX = 4096
BACKLOG = 1024  # agents that all return at once knock here together
START_TIMEOUT_S = 10.0
# A node shakes hands in milliseconds; as long as visitors and agents get at a node.
TLS_HANDSHAKE_S = 10.0
# Followers of events have nothing to say.
WEBSOCKET_MESSAGE_MAX = 1024
WEBSOCKET_PING_S = 20.0  # under the minute after which proxies cut a silent connection
_TICKS_PER_S = 10  # how uvicorn counts in on_tick
# Of the loop, in which idle connections are told to close and do.
_CLOSING_TURNS = 5


class Listener:
    """Serves `app` at `listen` (host:port; port 0: any). `tls` None: plain HTTP."""

    def __init__(
        self,
        app: ASGIApp,
        listen: str,
        tasks: TaskOwner,
        *,
        name: str,
        tls: ssl.SSLContext | None = None,
        protocol: type[BoundedProtocol] = BoundedProtocol,
        websockets: bool = False,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=protocol,
            ws=EventSocketProtocol if websockets else "none",
            ws_max_size=WEBSOCKET_MESSAGE_MAX,
            ws_max_queue=1,
            ws_per_message_deflate=False,  # a dictionary of 32 KB a stream, for messages of 200 bytes
            ws_ping_interval=WEBSOCKET_PING_S,
            ws_ping_timeout=WEBSOCKET_PING_S,
            lifespan="off",
            log_config=None,
            # Its lines on WebSockets have the query, at debug the headers too. The edge says what is wanted.
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # the edge does this itself, against its own list of proxies
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
            limit_concurrency=CONNECTIONS_MAX,
            backlog=BACKLOG,
        )
        config.load()
        config.ssl = tls
        self._server = _Server(config)
        self._listen = parse_address(listen)
        self._tasks = tasks
        self._name = name
        self._task: asyncio.Task[Any] | None = None
        self.address = self._listen
        """Where it listens; the real port once started."""

    async def start(self) -> None:
        """Returns when connections are accepted; OSError when the address is taken."""
        bound = _bind(self._listen)
        host, port = bound.getsockname()[:2]
        self.address = Address(host, port)
        self._task = self._tasks.start(self._server.serve(sockets=[bound]), self._name)
        async with asyncio.timeout(START_TIMEOUT_S):
            await self._server.accepting.wait()

    async def close(self) -> None:
        """Let requests in flight finish (GRACE_S), then end."""
        self._server.stop()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=GRACE_S + START_TIMEOUT_S)


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves the signals to the process and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End the main loop now."""
        self.should_exit = True
        self._stopped.set()

    async def main_loop(self) -> None:
        # uvicorn's own wakes ten times a second to look at a flag; its Date header needs one.
        counter = 0
        while not await self.on_tick(counter):
            counter += _TICKS_PER_S
            try:
                async with asyncio.timeout(1.0):
                    await self._stopped.wait()
            except TimeoutError:
                continue

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own leaves who dawdles in the TLS handshake to the loop, which waits a minute."""
        config, loop = self.config, asyncio.get_running_loop()

        def connection() -> asyncio.Protocol:
            made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        wait_s = None if config.ssl is None else TLS_HANDSHAKE_S
        self.servers = [
            await loop.create_server(
                connection,
                sock=one,
                ssl=config.ssl,
                ssl_handshake_timeout=wait_s,
                backlog=config.backlog,
            )
            for one in sockets or ()
        ]
        self.started = True
        self.accepting.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own takes a tenth of a second also when nobody is there; restarts and tests are many."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        for _ in range(_CLOSING_TURNS):
            await asyncio.sleep(0)
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # Named, because asyncio sends at once (TCP_NODELAY) only on a socket that says it is TCP: the second
    # write of an answer would wait 40 ms for the client's acknowledgement of the first.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address.host, address.port))
    except OSError:
        bound.close()
        raise
    return bound
