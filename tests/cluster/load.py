"""Visitors who never stop: small requests, uploads and downloads by their hashes, numbered WebSockets.

Everything goes through nginx. What failed is kept with its time; a test says what may have.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.typing import Origin

from runtime.tasks import TaskOwner
from testbed.people import Visitor
from tests.deployment.device import BLOCK

WAIT_S = 25.0  # for one exchange; only a hang reaches it
PAUSE_S = 0.02  # between two small requests of one visitor
DOWNLOAD_MIB = 4
UPLOAD_PIECES, PIECE = 12, 64 * 1024
SOCKET_LIFE_S = 2.0  # then its visitor goes, as people do; within a drain
MESSAGE_EVERY_S = 0.02
RETRY_S = 0.1  # a page's script that reconnects
_DOWNLOAD = hashlib.sha256(BLOCK * DOWNLOAD_MIB).hexdigest()


@dataclass
class Tally:
    """What came about. `failed`: (monotonic seconds, kind, what)."""

    done: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[float, str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)  # of the WebSockets that broke: until the next echo

    def fail(self, kind: str, what: object) -> None:
        self.failed.append((time.monotonic(), kind, repr(what)))


class Load:
    """The visitors given, each of `web` in four ways, each of `echo` with a numbered WebSocket."""

    def __init__(self, front: int, web: list[Visitor], echo: list[Visitor], *, lasting: bool = False) -> None:
        """`lasting`: WebSockets stay open, and come back when they break."""
        self.tally = Tally()
        self._front = front
        self._web, self._echo = web, echo
        self._lasting = lasting
        self._stopping = asyncio.Event()
        self._tasks = TaskOwner("load")
        self._running: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Tally]:
        """In the block they come and go; at its end each finishes what it has begun."""
        for visitor in self._web:
            for work in (self._get, self._post, self._download, self._upload):
                self._running.append(self._tasks.start(self._repeat(visitor, work), work.__name__))
        for visitor in self._echo:
            self._running.append(self._tasks.start(self._sockets(visitor), "sockets"))
        try:
            yield self.tally
        finally:
            self._stopping.set()
            await asyncio.wait(self._running, timeout=WAIT_S)
            await self._tasks.close(WAIT_S)
            for visitor in (*self._web, *self._echo):
                visitor.close()
        for task in self._running:
            task.result()

    async def _repeat(
        self, visitor: Visitor, work: Callable[[httpx.AsyncClient, Visitor], Awaitable[None]]
    ) -> None:
        kind = work.__name__.strip("_")
        headers = {"Host": visitor.origin.partition("//")[2], "Cookie": visitor.cookie}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self._front}", headers=headers, timeout=WAIT_S, trust_env=False
        ) as client:
            while not self._stopping.is_set():
                try:
                    await work(client, visitor)
                except httpx.HTTPError as error:
                    self.tally.fail(kind, error)
                await asyncio.sleep(PAUSE_S)

    async def _get(self, client: httpx.AsyncClient, visitor: Visitor) -> None:
        answer = await client.get("/page")
        self._judge("get", answer, b"the device")

    async def _post(self, client: httpx.AsyncClient, visitor: Visitor) -> None:
        body = os.urandom(200)
        answer = await client.post("/upload", content=body, headers={"Origin": visitor.origin})
        self._judge("post", answer, hashlib.sha256(body).hexdigest().encode())

    async def _download(self, client: httpx.AsyncClient, visitor: Visitor) -> None:
        answer = await client.get(f"/download/{DOWNLOAD_MIB}")
        if answer.status_code == 200 and hashlib.sha256(answer.content).hexdigest() != _DOWNLOAD:
            self.tally.wrong.append("download")
        self._judge("download", answer, None)

    async def _upload(self, client: httpx.AsyncClient, visitor: Visitor) -> None:
        seen, sent = hashlib.sha256(), 0

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in range(UPLOAD_PIECES):
                piece = os.urandom(PIECE)
                seen.update(piece)
                yield piece
                sent += 1
                await asyncio.sleep(PAUSE_S)

        answer = await client.post("/upload", content=pieces(), headers={"Origin": visitor.origin})
        self._judge("upload", answer, seen.hexdigest().encode())

    def _judge(self, kind: str, answer: httpx.Response, body: bytes | None) -> None:
        if answer.status_code != 200:
            self.tally.fail(kind, (answer.status_code, answer.text[:200]))
        elif body is not None and answer.content != body:
            self.tally.wrong.append(kind)
        else:
            self.tally.done[kind] += 1

    # WebSockets

    async def _sockets(self, visitor: Visitor) -> None:
        broke_at: float | None = None
        while not self._stopping.is_set():
            try:
                async with self._connect(visitor) as connection:
                    await self._converse(connection, broke_at)
            except (WebSocketException, OSError, TimeoutError) as error:
                kind = "handshake" if isinstance(error, InvalidHandshake) else "websocket"
                self.tally.fail(kind, error)
                broke_at = broke_at or time.monotonic()
                await asyncio.sleep(RETRY_S)
            else:
                broke_at = None
                self.tally.done["websocket"] += 1

    def _connect(self, visitor: Visitor) -> connect:
        return connect(
            f"ws://{visitor.origin.partition('//')[2]}/",
            host="127.0.0.1",
            port=self._front,
            origin=Origin(visitor.origin),
            additional_headers={"Cookie": visitor.cookie},
            open_timeout=WAIT_S,
            proxy=None,
        )

    async def _converse(self, connection: ClientConnection, broke_at: float | None) -> None:
        until = float("inf") if self._lasting else time.monotonic() + SOCKET_LIFE_S
        number = 0
        while time.monotonic() < until and not self._stopping.is_set():
            number += 1
            await connection.send(str(number))
            async with asyncio.timeout(WAIT_S):
                came = await connection.recv()
            if came != str(number):
                self.tally.wrong.append(f"websocket: {came!r} instead of {number}")
            if broke_at is not None:
                self.tally.gaps_s.append(time.monotonic() - broke_at)
                broke_at = None
            self.tally.done["message"] += 1
            await asyncio.sleep(MESSAGE_EVERY_S)
