"""The client for the gateway's internal listener, against raw answers on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from runtime.internal_http import InternalHttp
from tests.tunnel_server.conftest import settings
from tunnel_server.control.gateway import HttpGateway
from tunnel_server.errors import GatewayRefused, GatewayUnavailable

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """A server whose ``serve`` the test sets; counts connections and keeps what came."""

    def __init__(self) -> None:
        self.serve: Serve | None = None
        self.connections = 0
        self.requests: list[bytes] = []
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            assert self.serve is not None
            await self.serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client or the test ended it
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")]
        body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
        self.requests.append(head + body)
        return head + body

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    started = Listener()
    await started.start()
    yield started
    await started.close()


def client(listener: Listener, **changes: object) -> InternalHttp:
    # Plain: what is looked at here are the bytes. The settings themselves take https:// alone.
    gateway = replace(settings(gateway=changes).gateway, internal_url=listener.url)
    return InternalHttp(gateway, calls_waiting=gateway.calls_waiting, answer_bytes=gateway.answer_bytes)


def answer(status: int, body: object) -> bytes:
    content = json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(content), content)


def repeating(listener: Listener, data: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await listener.request(reader)
            writer.write(data)

    return serve


async def test_calls_share_a_connection(listener: Listener) -> None:
    listener.serve = repeating(listener, answer(200, {"a": 1}))
    http = client(listener)
    for _ in range(3):
        assert await http.call("POST", "/x", {"b": 2}) == {"a": 1}
    assert listener.connections == 1
    assert listener.requests[0].startswith(b"POST /x HTTP/1.1\r\n")
    assert listener.requests[0].endswith(b'{"b":2}')
    http.close()


async def test_a_call_that_must_not_be_repeated_takes_a_fresh_connection(listener: Listener) -> None:
    listener.serve = repeating(listener, answer(200, {}))
    http = client(listener)
    await http.call("GET", "/x")
    await http.call("POST", "/burn", {}, fresh=True)
    assert listener.connections == 2
    http.close()


def answering_once(listener: Listener) -> Serve:
    """Each connection ends with its second call, whose fate its caller does not hear."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await listener.request(reader)
        writer.write(answer(200, {"n": listener.connections}))
        await reader.readexactly(1)  # the next call's first byte

    return serve


async def test_a_kept_connection_that_was_closed_is_replaced(listener: Listener) -> None:
    listener.serve = answering_once(listener)
    http = client(listener)
    assert [await http.call("GET", "/x") for _ in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]
    http.close()


async def test_a_call_that_may_rather_fail_is_not_sent_again(listener: Listener) -> None:
    listener.serve = answering_once(listener)
    http = client(listener)
    assert await http.call("POST", "/x", {}, again=False) == {"n": 1}
    with pytest.raises(GatewayUnavailable, match="kept connection"):
        await http.call("POST", "/x", {}, again=False)
    assert listener.connections == 1
    assert await http.call("POST", "/x", {}, again=False) == {"n": 2}
    http.close()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (answer(410, {"code": "link_used"}), "410 link_used"),
        (answer(404, "no problem document"), "404 unknown"),
        (answer(500, {"code": "x"}), "status 500"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "no JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\nabc", "cut"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"a" * 900_000, "too long"),
        (b"nonsense\r\n\r\n", "Expected HTTP"),
        (b"", "ended before"),
    ],
)
async def test_a_bad_answer_says_what_is_wrong(listener: Listener, data: bytes, error: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await listener.request(reader)
        writer.write(data)
        await writer.drain()

    listener.serve = serve
    http = client(listener)
    with pytest.raises((GatewayRefused, GatewayUnavailable), match=error):
        await http.call("POST", "/x", {})
    http.close()


async def test_no_answer_ends_in_time(listener: Listener) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    listener.serve = serve
    http = client(listener, call_s=0.1)
    with pytest.raises(GatewayUnavailable, match="in time"):
        await http.call("GET", "/x")
    http.close()


async def test_nobody_listening_is_unavailable(listener: Listener) -> None:
    await listener.close()
    http = client(listener)
    with pytest.raises(GatewayUnavailable):
        await http.call("GET", "/x")
    http.close()


async def test_the_feed_comes_line_by_line_and_its_silence_is_an_error(listener: Listener) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await listener.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b'{"a":', b'1}\n{"b":2}\n', b'{"c":3'):
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
        await reader.read()

    listener.serve = serve
    gateway = HttpGateway(client(listener))
    lines = gateway.revocations(after=7, silence_s=1.0)
    assert [await anext(lines), await anext(lines)] == [b'{"a":1}', b'{"b":2}']
    with pytest.raises(GatewayUnavailable, match="silent"):
        await anext(lines)
    assert listener.requests[0].startswith(b"GET /internal/v1/revocations?after=7 HTTP/1.1\r\n")


async def test_malformed_sessions_and_devices_are_no_answers(listener: Listener) -> None:
    listener.serve = repeating(listener, answer(200, {"sid": "no uuid"}))
    http = client(listener)
    gateway = HttpGateway(http)
    with pytest.raises(GatewayUnavailable, match="malformed session"):
        await gateway.resolve(label="a" * 26, cookie_hash=b"h" * 32)
    with pytest.raises(GatewayUnavailable, match="malformed device"):
        await gateway.authenticate(device_id="d", key_id=b"k" * 16)
    with pytest.raises(GatewayUnavailable, match="malformed key list"):
        await gateway.key_list()
    http.close()
