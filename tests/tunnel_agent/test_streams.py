"""Streams through a real agent: a test node on one side, a local TCP service on the other."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

import pytest

from runtime.tunnel_link import websockets_link
from tests.tunnel_agent.conftest import Bench
from tunnel_agent.splice import LEAST_READ, READ_BYTES
from tunnel_protocol import Limits, RefusedCode, ResetCode


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(READ_BYTES):
        writer.write(data)
        await writer.drain()


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_bytes_go_both_ways_and_fin_each_way(bench: Bench) -> None:
    tunnel = await bench.tunnel(echo)
    visitor = tunnel.open(bench.grant(tunnel))
    visitor.send(b"sent with OPEN ")
    await visitor.until_heard("accepted")
    visitor.send(b"and after OPENED")
    assert await visitor.until_received(31) == b"sent with OPEN and after OPENED"
    visitor.finish()
    await visitor.until_heard("finished")
    assert visitor.stream.over


async def test_half_close_lets_the_service_answer_after_the_request_ended(bench: Bench) -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read()
        writer.write(request[::-1])

    tunnel = await bench.tunnel(answer_at_the_end)
    visitor = tunnel.open(bench.grant(tunnel))
    visitor.send(b"abc")
    visitor.finish()
    await visitor.until_heard("finished")
    assert visitor.received == b"cba"


async def test_the_service_may_finish_first_and_go_on_reading(bench: Bench) -> None:
    taken: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def speak_then_listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        taken.set_result(await reader.read())

    tunnel = await bench.tunnel(speak_then_listen)
    visitor = tunnel.open(bench.grant(tunnel))
    await visitor.until_heard("finished")
    visitor.send(b"still taken")
    visitor.finish()
    assert await asyncio.wait_for(taken, 5) == b"still taken"
    assert visitor.received == b"hello"


@pytest.mark.parametrize("takes_more_than", [0, 200_000])
async def test_large_transfers_both_ways_at_once_arrive_whole(bench: Bench, takes_more_than: int) -> None:
    tunnel = await bench.tunnel(echo)
    content = os.urandom(3_000_000 + takes_more_than)
    visitor = tunnel.open(bench.grant(tunnel))
    await visitor.send_all(content)
    visitor.finish()
    await visitor.until_heard("finished")
    assert bytes(visitor.received) == content


async def test_many_streams_share_the_buffer_without_mixing(bench: Bench) -> None:
    tunnel = await bench.tunnel(echo)
    grant = bench.grant(tunnel)
    visitors = [tunnel.open(grant) for _ in range(32)]
    contents = [bytes([index]) * (1000 + 5000 * index) for index in range(32)]
    await asyncio.gather(*(visitor.send_all(c) for visitor, c in zip(visitors, contents, strict=True)))
    for visitor, content in zip(visitors, contents, strict=True):
        assert await visitor.until_received(len(content)) == content


async def test_a_visitor_that_does_not_read_stops_the_service_and_nobody_else(bench: Bench) -> None:
    written = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        if await reader.readexactly(1) == b"e":
            await echo(reader, writer)
            return
        while True:
            writer.write(bytes(10_000))
            await writer.drain()
            written += 10_000

    window = 64 << 10
    tunnel = await bench.tunnel(pour, Limits(stream_window=window))
    grant = bench.grant(tunnel)
    stalled = tunnel.open(grant, takes=False)
    stalled.send(b"p")
    await stalled.until_received(window)
    other = tunnel.open(grant)
    other.send(b"e" + b"x" * 5000)
    await other.until_received(5000)
    assert len(stalled.received) == window
    # What the service could write lies in sockets alone: the agent holds one least read.
    before = written
    other.send(b"y" * 5000)
    await other.until_received(10_000)
    assert written == before
    # And it goes on where it stopped as soon as the visitor reads.
    stalled.takes = True
    stalled.stream.consumed(len(stalled.received), tunnel.now())
    await stalled.until_received(window + LEAST_READ + 500_000)


async def test_a_service_that_does_not_read_holds_back_its_visitor_alone(bench: Bench) -> None:
    async def only_echo_e(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"e":
            await echo(reader, writer)
        else:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.get_running_loop().create_future()

    tunnel = await bench.tunnel(only_echo_e)
    grant = bench.grant(tunnel)
    stuck = tunnel.open(grant)
    stuck.send(b"s")
    room = True
    for _ in range(2000):  # far more than windows and sockets hold
        room = room and stuck.send(bytes(60_000))
        if not room:
            break
    assert not room
    other = tunnel.open(grant)
    other.send(b"e" + b"fine")
    assert await other.until_received(4) == b"fine"


async def test_a_reset_of_the_service_reaches_the_visitor_behind_its_data(bench: Bench) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(b"half an ans")
        await writer.drain()
        await reader.readexactly(2)
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        writer.transport.abort()

    tunnel = await bench.tunnel(break_off)
    visitor = tunnel.open(bench.grant(tunnel))
    visitor.send(b"go")
    await visitor.until_received(11)
    visitor.send(b"on")
    await visitor.until_heard("reset UPSTREAM_RESET")
    assert "finished" not in visitor.heard


@pytest.mark.parametrize("how", ["reset", "lost"])
async def test_a_broken_stream_looks_broken_to_the_service(bench: Bench, how: str) -> None:
    service, address = await bench.service(echo)
    node, url = await bench.node()
    await bench.agent([url], {"web": address})
    tunnel = (await node.until_ready())[0]
    visitor = tunnel.open(bench.grant(tunnel))
    visitor.send(b"an upload that will be cut")
    await visitor.until_received(26)
    if how == "reset":
        visitor.stream.reset(ResetCode.CANCELLED)
    else:
        assert tunnel.link is not None
        tunnel.link.abort()
    await service.until(lambda: service.ended)
    assert service.ended == ["ConnectionResetError"]


async def test_a_service_that_is_down_is_unreachable(bench: Bench) -> None:
    _, address = await bench.service(silence)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    node, url = await bench.node()
    await bench.agent([url], {"web": f"127.0.0.1:{port}", "other": address})
    tunnel = (await node.until_ready())[0]
    visitor = tunnel.open(bench.grant(tunnel))
    visitor.send(b"early data")
    await visitor.until_heard("refused UNREACHABLE")
    assert visitor.refusal is RefusedCode.UNREACHABLE


async def test_a_service_that_does_not_answer_times_out(bench: Bench) -> None:
    with socket.socket() as full:  # a backlog that is full: the kernel drops further SYNs
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        node, url = await bench.node()
        await bench.agent([url], {"web": f"127.0.0.1:{full.getsockname()[1]}"}, connect_timeout_s=0.3)
        tunnel = (await node.until_ready())[0]
        visitor = tunnel.open(bench.grant(tunnel))
        await visitor.until_heard("refused UNREACHABLE: no answer within 0.3 s")
        for filler in fillers:
            filler.close()


async def test_local_connections_do_not_wait_for_full_segments(bench: Bench) -> None:
    from tunnel_agent import splice

    seen: list[int] = []

    class Spy(splice.Splice):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            raw = transport.get_extra_info("socket")
            seen.append(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            super().connection_made(transport)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tunnel_agent.tunnel.Splice", Spy)
        tunnel = await bench.tunnel(echo)
        visitor = tunnel.open(bench.grant(tunnel))
        await visitor.until_heard("accepted")
    assert seen == [1]


async def test_a_stream_that_ends_while_its_service_is_dialled_leaves_nothing_open(bench: Bench) -> None:
    service, address = await bench.service(echo)
    node, url = await bench.node()
    await bench.agent([url], {"web": address})
    tunnel = (await node.until_ready())[0]
    grant = bench.grant(tunnel)
    for _ in range(20):
        tunnel.open(grant).stream.reset(ResetCode.CANCELLED)
    last = tunnel.open(grant)
    last.send(b"x")
    await last.until_received(1)
    await service.until(lambda: len(service.ended) == service.connections - 1)


async def test_without_picows_the_agent_works_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.tunnel_link._links", websockets_link)
    tunnel = await bench.tunnel(echo)
    content = os.urandom(1_000_000)
    visitor = tunnel.open(bench.grant(tunnel))
    await visitor.send_all(content)
    visitor.finish()
    await visitor.until_heard("finished")
    assert bytes(visitor.received) == content
