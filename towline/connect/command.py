"""What `towline connect` does from its first line to its exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from runtime.process import Shutdown
from runtime.tasks import TaskOwner
from runtime.tcp_door import DoorClose
from towline.connect.door import DoorClosed, SessionOver, ended_session
from towline.connect.join import Local, LocalBroke, LocalConnection, join
from towline.connect.session import TcpSession, end_session, open_session
from towline.connect.site import READ_BYTES
from towline.connect.standard_streams import StandardStreams
from towline.errors import TowlineError
from towline.gateway_client import GatewayClient

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
LOCAL_HOST: Final = "127.0.0.1"  # never another address: whoever reaches the port has the session
MAX_LOCAL: Final = 64  # local connections at once; a device takes 256 streams of all its visitors
# Nobody cuts an entrance that has no connection: it asks, as often as a cut may take.
WATCH_S: Final = 2.0
EXPIRY_SLACK_S: Final = 5.0  # the tunnel server says first that the time is over, and why
CLOSE_S: Final = 5.0  # for our tasks, at the end


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command line. ``port`` 0: a free one; ``stdio``: no port at all."""

    device: str
    service: str
    port: int
    stdio: bool
    duration_s: int
    ca: str | None


def connect(gateway: GatewayClient, wanted: Wanted) -> int:
    """Run until a signal, the session's end or (stdio) the connection's end; the exit code."""
    return asyncio.run(_connect(gateway, wanted))


async def _connect(gateway: GatewayClient, wanted: Wanted) -> int:
    shutdown = Shutdown().install()
    # ssh ends its ProxyCommand with it, a closed terminal its programs.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, shutdown.request)
    session = await open_session(
        gateway, wanted.device, wanted.service, duration_s=wanted.duration_s, ca=wanted.ca
    )
    entrance = Entrance(gateway, session, shutdown)
    try:
        if wanted.stdio:
            await entrance.pass_standard_streams()
        else:
            await entrance.listen(wanted.port)
        async with asyncio.timeout(wanted.duration_s + EXPIRY_SLACK_S):
            await shutdown.requested.wait()
    except TimeoutError:
        entrance.failure = SessionOver("the session has expired")
    finally:
        ended = await entrance.close()
    if entrance.failure is not None:
        raise entrance.failure
    return EXIT_OK if ended else EXIT_FAILED


class Entrance:
    """The near end of one session. ``failure`` is set when it ended before anybody asked for it."""

    def __init__(self, gateway: GatewayClient, session: TcpSession, shutdown: Shutdown) -> None:
        self.failure: TowlineError | None = None
        self._gateway = gateway
        self._session = session
        self._shutdown = shutdown
        self._tasks = TaskOwner("connect")
        self._server: asyncio.Server | None = None
        self._here = 0  # local connections

    async def listen(self, port: int) -> None:
        """Take local connections, and say where."""
        try:
            server = await asyncio.start_server(self._accept, LOCAL_HOST, port, limit=READ_BYTES)
        except OSError as error:
            why = (
                os.strerror(error.errno) if error.errno else str(error)
            )  # asyncio's text names the address again
            raise TowlineError(
                f"cannot listen on {LOCAL_HOST}:{port}: {why}; without --port a free one is taken"
            ) from None
        self._server = server
        self._tasks.start(self._watch(), "watch")
        session = self._session
        host, bound = server.sockets[0].getsockname()
        print(
            f"{host}:{bound} leads to {session.service} of {session.device} until {session.expires_at}; "
            "Ctrl-C ends it",
            flush=True,
        )
        if session.service == "ssh":
            print(f"  ssh -p {bound} USER@{host}      scp -P {bound} FILE USER@{host}:", flush=True)

    async def pass_standard_streams(self) -> None:
        """One connection, and the end of the command with it."""
        self._tasks.start(self._pass(await StandardStreams.open()), "standard streams")

    async def close(self) -> bool:
        """Cut what is open, and end the session for everybody; False: the gateway could not be told."""
        if self._server is not None:
            self._server.close()
        await self._tasks.close(CLOSE_S)
        if isinstance(self.failure, SessionOver):
            return True
        try:
            await end_session(self._gateway, self._session.id)
        except TowlineError as error:
            say(f"the session could not be ended, and ends at {self._session.expires_at}: {error}")
            return False
        return True

    # One connection

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        local = LocalConnection(reader, writer)
        if self._here >= MAX_LOCAL:
            say(f"a connection was refused: {MAX_LOCAL} are open")
            local.abort()
        else:
            self._here += 1
            self._tasks.start(self._serve(local), "connection")

    async def _serve(self, local: LocalConnection) -> None:
        try:
            await self._carry(local)
        except SessionOver as error:
            self._end(error)
        except TowlineError as error:
            say(str(error))
        finally:
            self._here -= 1

    async def _pass(self, streams: StandardStreams) -> None:
        try:
            await self._carry(streams)
            self._end(None)
        except TowlineError as error:
            self._end(error)
        finally:
            streams.close()

    async def _carry(self, local: Local) -> None:
        try:
            door = await self._session.open()
        except BaseException:
            local.abort()
            raise
        try:
            await join(local, door)
        except LocalBroke:
            return  # whoever was here has gone, and knows it
        except DoorClosed as closed:
            raise await self._reason(closed) from None

    async def _reason(self, closed: DoorClosed) -> TowlineError:
        """A cut that said nothing of itself may be the session's end: the gateway knows."""
        if closed.code != DoorClose.FAILED or await self._is_live():
            return closed
        return self._gone()

    async def _watch(self) -> None:
        """Until the session ends while no connection is open; those that are hear it from their node."""
        while True:
            await asyncio.sleep(WATCH_S)
            if not self._here and not await self._is_live():
                self._end(self._gone())
                return

    async def _is_live(self) -> bool:
        """Whether the gateway lists the session; True while nobody can tell."""
        try:
            live = await asyncio.to_thread(self._gateway.items, "/v1/sessions")
        except TowlineError:
            return True
        return any(one["id"] == self._session.id for one in live)

    def _gone(self) -> SessionOver:
        """What a session that the gateway lists no more is told to have died of."""
        over = datetime.now(UTC) >= datetime.fromisoformat(self._session.expires_at)
        return ended_session("expired" if over else "ended")

    def _end(self, failure: TowlineError | None) -> None:
        self.failure = self.failure or failure
        self._shutdown.request()


def say(text: str) -> None:
    """A line for the person; standard output may be the connection itself."""
    print(f"towline: {text}", file=sys.stderr, flush=True)
