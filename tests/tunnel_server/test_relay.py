"""Requests through a real tunnel to a byte-recording service: bodies, streams, pooling, retries, cuts."""

from __future__ import annotations

import asyncio

import pytest

from tests.tunnel_server.conftest import Limits, Stage, running, settings
from tests.tunnel_server.doubles import Script, Upstream, answering
from tunnel_server.settings import DeviceLimits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello"


def once(answer: bytes, *, end: bool = True) -> Script:
    """Answers the first request head; then ends the connection, or keeps it silently."""

    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.head(reader)
        writer.write(answer)
        await writer.drain()
        if end:
            writer.write_eof()
        await reader.read()

    return script


async def test_a_get_reaches_the_device_and_its_answer_the_visitor(stage: Stage) -> None:
    upstream = await stage.serve(answering(OK))
    visitor = await stage.visitor()
    visitor.get("/a%2Fb//c?q=1&x=%7e", "Accept: text/html", "X-Mine: 1")
    head, body = await visitor.response()
    assert head == b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"
    assert body == b"hello"
    assert bytes(upstream.received) == (
        b"GET /a%2Fb//c?q=1&x=%7e HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/html\r\nX-Mine: 1\r\n\r\n"
    )


async def test_heads_that_come_apart_from_their_bodies_are_no_empty_framing(stage: Stage) -> None:
    filler = b"X-Fill: " + b"a" * 3_000 + b"\r\n"
    size = 5

    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await upstream.head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (filler * 8, size))
            upstream.reached.set()
            body = await upstream.body(reader, size)
            writer.write(body)

    upstream = await stage.serve(script)
    visitor = await stage.visitor()
    for _ in range(10):
        upstream.reached.clear()
        visitor.get(
            "/", *[f"X-Fill-{n}: " + "a" * 3_000 for n in range(8)], f"Content-Length: {size}", method="PUT"
        )
        async with asyncio.timeout(5):
            await upstream.reached.wait()
        assert b"Connection: close" in await visitor.head()
        visitor.send(b"hello")
        assert await visitor.exactly(size) == b"hello"
        visitor = await stage.visitor(visitor.cookie)


async def test_one_stream_serves_requests_one_after_another(stage: Stage) -> None:
    upstream = await stage.serve(answering(OK))
    visitor = await stage.visitor()
    for _ in range(5):
        visitor.get()
        assert (await visitor.response())[1] == b"hello"
    assert upstream.connections == 1
    assert len(stage.devices[0].grants) == 1


async def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            path = (await upstream.head(reader)).split()[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    await stage.serve(script)
    visitor = await stage.visitor()
    for number in range(20):
        visitor.get(f"/{number}")
    visitor.get("/.towline/nothing")
    assert [(await visitor.response())[1] for _ in range(20)] == [b"/%d" % number for number in range(20)]
    assert (await visitor.response())[0].startswith(b"HTTP/1.1 404")


async def test_too_many_pipelined_requests_end_the_connection(stage: Stage) -> None:
    await stage.serve(answering(OK))
    visitor = await stage.visitor()
    for _ in range(200):
        visitor.get()
    received = await visitor.was_cut()
    assert 1 <= received.count(b"HTTP/1.1 200") < 200


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 304 X\r\n\r\n"]
)
async def test_204_and_304_have_no_body_and_keep_the_connection(stage: Stage, answer: bytes) -> None:
    upstream = await stage.serve(answering(answer))
    visitor = await stage.visitor()
    for _ in range(2):
        visitor.get()
        head = await visitor.head()
        assert head == answer.split(b"\r\n")[0].replace(b"X", b"Not Modified") + b"\r\n\r\n"
    assert upstream.connections == 1


async def test_head_keeps_the_length_and_sends_no_body(stage: Stage) -> None:
    upstream = await stage.serve(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"))
    visitor = await stage.visitor()
    for _ in range(3):
        visitor.get(method="HEAD")
        assert await visitor.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    assert upstream.connections == 1


async def test_a_body_that_ends_with_the_connection_is_chunked_for_the_visitor(stage: Stage) -> None:
    await stage.serve(once(b"HTTP/1.0 200 OK\r\n\r\nabc"))
    visitor = await stage.visitor()
    visitor.get()
    assert b"Transfer-Encoding: chunked\r\n" in await visitor.head()
    assert await visitor.exactly(13) == b"3\r\nabc\r\n0\r\n\r\n"


async def test_http_1_0_gets_its_body_up_to_the_end_of_the_connection(stage: Stage) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    await stage.serve(answering(answer))
    visitor = await stage.visitor()
    visitor.get(version="1.0")
    assert await visitor.rest() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"


async def test_events_pass_at_once(stage: Stage) -> None:
    more = asyncio.Event()

    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await more.wait()
        writer.write(b"data: 2\n\n")
        await reader.read()

    await stage.serve(script)
    visitor = await stage.visitor()
    visitor.get()
    assert b"text/event-stream" in await visitor.head()
    assert await visitor.exactly(14) == b"9\r\ndata: 1\n\n\r\n"
    more.set()
    assert await visitor.exactly(14) == b"9\r\ndata: 2\n\n\r\n"
    device = stage.devices[0]
    visitor.close()
    await stage.until(lambda: device.resets)


async def test_an_upload_and_its_answer_are_byte_exact(stage: Stage) -> None:
    size = 3_000_000
    content = bytes(range(256)) * (size // 256)

    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.head(reader)
        body = await reader.readexactly(len(content))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await reader.read()

    await stage.serve(script)
    visitor = await stage.visitor()
    visitor.get("/", f"Content-Length: {len(content)}", method="POST")
    visitor.send(content)
    head, body = await visitor.response()
    assert head.startswith(b"HTTP/1.1 200")
    assert body == content


async def test_100_continue_comes_from_the_device(stage: Stage) -> None:
    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.head(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await upstream.body(reader, 3)
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" + OK)
        await reader.read()

    upstream = await stage.serve(script)
    visitor = await stage.visitor()
    visitor.get("/", "Expect: 100-continue", "Content-Length: 3", method="PUT")
    assert await visitor.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    visitor.send(b"abc")
    assert (await visitor.response())[1] == b"hello"
    assert b"\r\nExpect: 100-continue\r\n" in upstream.received


async def test_an_idle_stream_that_ends_is_not_used_again(stage: Stage) -> None:
    upstream = await stage.serve(once(OK))
    visitor = await stage.visitor()
    visitor.get()
    await visitor.response()
    await stage.until(lambda: not stage.devices[0].splices)
    visitor.get()
    assert (await visitor.response())[1] == b"hello"
    assert upstream.connections == 2


async def test_connection_close_of_the_device_ends_its_stream_not_the_visitors_connection(
    stage: Stage,
) -> None:
    upstream = await stage.serve(answering(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)))
    visitor = await stage.visitor()
    for _ in range(2):
        visitor.get()
        head, _ = await visitor.response()
        assert b"close" not in head
    assert upstream.connections == 2


async def test_a_get_goes_out_once_more_when_its_pooled_stream_dies(stage: Stage) -> None:
    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.head(reader)
        writer.write(OK)
        await upstream.head(reader)  # the second request on this connection gets no answer
        writer.transport.abort()

    upstream = await stage.serve(script)
    visitor = await stage.visitor()
    for _ in range(2):
        visitor.get()
        assert (await visitor.response())[1] == b"hello"
    assert upstream.connections == 2
    assert upstream.received.count(b"GET / ") == 3


async def test_a_post_takes_a_fresh_stream_and_is_never_repeated(stage: Stage) -> None:
    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if upstream.connections == 1:
            await upstream.head(reader)
            writer.write(OK)
        await upstream.head(reader)
        writer.transport.abort()

    upstream = await stage.serve(script)
    visitor = await stage.visitor()
    visitor.get()
    await visitor.response()
    visitor.get("/", "Content-Length: 0", method="POST")
    assert (await visitor.response())[0].startswith(b"HTTP/1.1 502")
    assert upstream.connections == 2
    assert upstream.received.count(b"POST") == 1


async def test_an_early_answer_ends_the_upload(stage: Stage) -> None:
    upstream = await stage.serve(answering(OK))
    visitor = await stage.visitor()
    visitor.get("/", "Content-Length: 100000000", method="POST")
    head, body = await visitor.response()
    assert (head[:12], body) == (b"HTTP/1.1 200", b"hello")
    assert b"Connection: close\r\n" in head
    visitor.send(b"x" * 100_000)
    assert await visitor.was_cut() == b""
    assert upstream.connections == 1


async def test_a_stalled_visitor_stalls_nobody_else_and_is_bounded() -> None:
    size = 20_000_000

    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if b"/big" not in await upstream.head(reader):
                writer.write(OK)
                continue
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // 10_000):
                writer.write(b"x" * 10_000)
                await writer.drain()

    async with running(settings(tunnels={"stream_window_max": 65_536})) as stage:
        await stage.serve(script)
        slow = await stage.visitor()
        slow.reader._limit = 4_096  # type: ignore[attr-defined]  # the test's own reader stops taking bytes
        slow.get("/big")
        quick = await stage.visitor(slow.cookie)
        await stage.until(lambda: any(c.write_paused for c in stage.node.edge.connections))
        for _ in range(50):
            quick.get("/small")
            assert (await quick.response())[1] == b"hello"
        paused = [c for c in stage.node.edge.connections if c.write_paused]
        assert len(paused) == 1
        assert paused[0].transport.get_write_buffer_size() <= 65_536 * 3
        slow.reader._limit = 1 << 20  # type: ignore[attr-defined]
        head = await slow.head()
        assert head.startswith(b"HTTP/1.1 200")
        assert len(await slow.exactly(size)) == size


async def test_a_slow_device_answers_504_and_a_dead_service_502() -> None:
    async with running(settings(devices=DeviceLimits(response_head_s=0.1))) as stage:
        await stage.serve(once(b"", end=False))
        visitor = await stage.visitor()
        visitor.get()
        assert (await visitor.response())[0].startswith(b"HTTP/1.1 504 ")


async def test_a_service_that_does_not_listen_is_502(stage: Stage) -> None:
    upstream, target = await stage.upstream(answering(OK))
    await upstream.close()
    await stage.device(target)
    visitor = await stage.visitor()
    visitor.get()
    head, _ = await visitor.response()
    assert head.startswith(b"HTTP/1.1 502 ")


async def test_small_windows_and_frames_carry_any_body(stage: Stage) -> None:
    content = b"0123456789" * 20_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
    await stage.serve(
        answering(answer),
        limits=Limits(
            max_frame=512,
            max_message=2048,
            stream_window=4096,
            stream_window_max=4096,
            connection_window=16_384,
        ),
    )
    visitor = await stage.visitor()
    visitor.get()
    assert (await visitor.response())[1] == content
