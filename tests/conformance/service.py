"""A device's web service that records every byte it is given and answers as a test says."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from dataclasses import dataclass, field
from typing import cast

import h11

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PIECES_APART_S = 0.02  # so that each is read by itself
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# What a head may consist of when nobody is lenient (RFC 9112 sections 3 and 5, RFC 9110 section 5.5).
STRICT_HEAD = re.compile(
    rb"[A-Z]+ [\x21-\x7e]+ HTTP/1\.1\r\n"
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+: (?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*)?)?\r\n)+\r\n"
)


@dataclass(frozen=True)
class Answer:
    """Bytes for one request, and what becomes of the connection: kept, ended by FIN, or reset.

    ``pieces`` follow ``data``, each in a write of its own, a little later.
    ``raw``: from here on the connection echoes.
    """

    data: bytes
    pieces: tuple[bytes, ...] = ()
    end: bool = False
    reset: bool = False
    raw: bool = False
    early: bool = False  # as soon as the request's head is there


@dataclass
class Seen:
    """One request as it arrived: parsed by h11, beside the raw bytes of its head."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    head: bytes
    connection: int  # the number of the connection it came on
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False


class RecordingService:
    """Answers ``answers[target]``, else OK. ``errors``: what a strict reader could not accept."""

    def __init__(self) -> None:
        self.answers: dict[bytes, Answer] = {}
        self.greeting = b""  # sent to whoever connects, before any request
        self.requests: list[Seen] = []
        self.errors: list[str] = []
        self.connections = 0  # how many ever came; each has its number
        self.open: dict[int, _Connection] = {}  # by number
        self._server: asyncio.Server

    async def start(self) -> str:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def forget(self) -> None:
        """Before each test."""
        self.answers.clear()
        self.greeting = b""
        self.requests.clear()
        self.errors.clear()

    def close(self) -> None:
        self._server.close()
        for connection in list(self.open.values()):
            connection.transport.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, service: RecordingService) -> None:
        self.service = service
        self.transport: asyncio.Transport
        self._parser = h11.Connection(h11.SERVER)
        self._bytes = b""  # of the present request
        self._seen: Seen | None = None
        self._answered = False
        self._raw = False
        self._number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.service.connections += 1
        self._number = self.service.connections
        self.service.open[self._number] = self
        if self.service.greeting:
            self.transport.write(self.service.greeting)

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.open.pop(self._number, None)

    def data_received(self, data: bytes) -> None:
        if self._raw:
            self.transport.write(data)
            return
        self._bytes += data
        self._parser.receive_data(data)
        try:
            while self._step():
                pass
        except h11.RemoteProtocolError as error:
            self.service.errors.append(f"{error}: {self._bytes[:200]!r}")
            self.transport.abort()

    def _step(self) -> bool:
        event = self._parser.next_event()
        if isinstance(event, h11.Request):
            self._began(event)
        elif isinstance(event, h11.Data):
            assert self._seen is not None
            self._seen.body += event.data
        elif isinstance(event, h11.EndOfMessage):
            self._ended()
        else:
            return False
        return not self._raw

    def _began(self, event: h11.Request) -> None:
        head, mark, _ = self._bytes.partition(b"\r\n\r\n")
        head += mark
        if not STRICT_HEAD.fullmatch(head):
            self.service.errors.append(f"not canonical: {head!r}")
        self._seen = Seen(event.method, event.target, list(event.headers), head, self._number)
        self.service.requests.append(self._seen)
        self._answered = False
        if self._parser.they_are_waiting_for_100_continue:
            self.transport.write(CONTINUE)
        answer = self.service.answers.get(event.target)
        if answer is not None and answer.early:
            self._answer(answer)

    def _ended(self) -> None:
        seen = self._seen
        assert seen is not None
        seen.complete = True
        rest, _ = self._parser.trailing_data
        if rest:
            self.service.errors.append(f"bytes behind a request that has no answer yet: {rest!r}")
        self._parser = h11.Connection(h11.SERVER)
        self._bytes = b""
        if not self._answered:
            self._answer(self.service.answers.get(seen.target, Answer(OK)))

    def _answer(self, answer: Answer) -> None:
        self._answered = True
        self._raw = answer.raw
        self.transport.write(answer.data)
        if answer.pieces:
            asyncio.get_running_loop().call_later(PIECES_APART_S, self._go_on, answer, answer.pieces)
        else:
            self._go_on(answer, ())

    def _go_on(self, answer: Answer, pieces: tuple[bytes, ...]) -> None:
        if self.transport.is_closing():
            return
        if pieces:
            self.transport.write(pieces[0])
            asyncio.get_running_loop().call_later(PIECES_APART_S, self._go_on, answer, pieces[1:])
        elif answer.reset:
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        elif answer.end:
            self.transport.close()
