"""A connection that sends too slowly or too much is closed; nobody else notices."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from starlette.types import Receive, Scope, Send

from gateway import connection
from gateway.connection import HEAD_MAX
from gateway.listener import Listener
from runtime.tasks import TaskOwner

WAIT_S = 10.0  # only a failure reaches it
GET = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the names of the headers and the body."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    answer = b" ".join(name for name, _ in scope["headers"]) + b"|" + body
    head = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": answer})


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    tasks = TaskOwner("test")
    served = Listener(echo, "127.0.0.1:0", tasks, name="test")
    await served.start()
    yield served
    await served.close()
    await tasks.close(WAIT_S)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> bytes:
        """Head and body."""
        async with asyncio.timeout(WAIT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            return head + await self.reader.readexactly(length)

    async def was_cut(self) -> bool:
        try:
            async with asyncio.timeout(WAIT_S):
                return await self.reader.read(1) == b""
        except ConnectionResetError:
            return True


async def connect(listener: Listener) -> Client:
    return Client(*await asyncio.open_connection(listener.address.host, listener.address.port))


async def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_first_bytes(listener: Listener) -> None:
    client = await connect(listener)
    client.writer.write(GET)
    await client.answer()
    (served,) = listener._server.server_state.connections
    accepted = served.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    client.writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: ga",
        b"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\nhalf",
        GET + b"G",
    ],
    ids=["nothing", "half a head", "half a body", "half of the next head"],
)
async def test_a_request_that_does_not_end_is_cut(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.5)
    client = await connect(listener)
    client.writer.write(sent)
    if sent.startswith(GET):
        await client.answer()
    assert await client.was_cut()
    client.writer.close()


@pytest.mark.parametrize("line", [b"X-%d: y\r\n" % 1, b"x"], ids=["many headers", "one header"])
async def test_a_head_without_an_end_is_refused(listener: Listener, line: bytes) -> None:
    client = await connect(listener)
    client.writer.write(b"GET / HTTP/1.1\r\nHost: gateway\r\nX: ")
    for _ in range(20):
        client.writer.write(line * (HEAD_MAX // 10 // len(line)))
    assert b" 400 " in (await client.answer()).splitlines()[0]
    client.writer.close()


async def test_a_kept_connection_serves_on_and_trailers_are_no_headers(listener: Listener) -> None:
    client = await connect(listener)
    client.writer.write(GET)
    assert (await client.answer()).endswith(b"\r\n\r\nhost|")
    client.writer.write(b"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.writer.write(b"2\r\nhi\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert (await client.answer()).endswith(b"\r\n\r\nhost transfer-encoding|hi")
    client.writer.write(GET)
    assert (await client.answer()).endswith(b"\r\n\r\nhost|")
    client.writer.close()
