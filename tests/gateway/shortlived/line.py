"""A line to a server that can go dead: new connections are accepted and never answered, old ones silent."""

from __future__ import annotations

import asyncio
from types import TracebackType

from runtime.tasks import TaskOwner

CHUNK = 65_536
END_S = 5.0


class Line:
    """Forwards to 127.0.0.1:port from a port of its own (`port`, once entered)."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._tasks = TaskOwner("line")
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.accepted = 0
        """Connections so far."""

    async def __aenter__(self) -> Line:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._tasks.close(END_S)
        self.cut()

    def go_dead(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        """Forward again; the silent connections end."""
        self._open.set()
        self.cut()

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._tasks.start(self._join(reader, writer), "join")

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._open.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(far_writer)
            try:
                ends = [
                    self._tasks.start(self._copy(reader, far_writer), "there"),
                    self._tasks.start(self._copy(far_reader, writer), "back"),
                ]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._drop(far_writer)
        except OSError:
            return  # the server is gone: so is this connection
        finally:
            self._drop(writer)

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            return  # either end is gone; the other is ended by _join
