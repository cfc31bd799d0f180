"""What one session, one client and one slow line may cost at the TCP door."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections import Counter
from pathlib import Path

import pytest

from runtime.tcp_door import FRAMES_BURST, PATH
from runtime.websocket_frames import (
    NORMAL,
    POLICY,
    Close,
    FrameError,
    FrameEvent,
    FrameReader,
    Opcode,
    Payload,
    close_frame,
    frame,
)
from tests.tunnel_server.conftest import LABEL, WAIT_S, Stage, Visitor, running, settings
from tests.tunnel_server.doors import HANDSHAKE, MASK, close_code, entered, raw_door, tcp_device
from tests.tunnel_server.doubles import Upstream
from tests.tunnel_server.test_tls import DOMAIN, write_certificate
from tunnel_server.settings import VisitorLimits

CRUMB = frame(Opcode.BINARY, b"x", MASK)
DOORS = VisitorLimits().doors_per_session


async def outcome(visitor: Visitor) -> str:
    """The status of its handshake, with the problem's code where it was refused."""
    head = await visitor.head()
    status = head.split(b" ", 2)[1].decode()
    if status == "101":
        return status
    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return f"{status} {json.loads(await visitor.exactly(size))['code']}"


async def test_of_200_doors_at_once_a_session_gets_its_share(stage: Stage) -> None:
    _, bearer = await tcp_device(stage)
    doors = [await raw_door(stage, bearer) for _ in range(200)]
    outcomes = [await outcome(door) for door in doors]
    assert Counter(outcomes) == {"101": DOORS, "429 too_many_doors": 200 - DOORS}
    (tunnel,) = stage.node.devices.tunnels()
    assert tunnel.live_streams == tunnel.in_use == DOORS
    other = stage.gateway.add_session(service="ssh", kind="tcp")[1]
    assert await outcome(await raw_door(stage, other)) == "101"  # and leaves others theirs
    for door, came in zip(doors, outcomes, strict=True):
        if came == "101":
            door.close()
    await stage.until(lambda: tunnel.live_streams == 1)
    assert await outcome(await raw_door(stage, bearer)) == "101"


class Pieces:
    """How many DATA frames reach a device, and of how many bytes."""

    def __init__(self, stage: Stage) -> None:
        (splice,) = stage.devices[0].splices
        self.sizes: list[int] = []
        self._pass = splice.data
        splice.data = self._data  # type: ignore[method-assign]

    def _data(self, data: memoryview) -> None:
        self.sizes.append(len(data))
        self._pass(data)


async def test_a_frame_a_byte_goes_on_together_and_has_an_end(stage: Stage) -> None:
    upstream, visitor = await entered(stage)
    pieces = Pieces(stage)
    honest = FRAMES_BURST // 2
    visitor.send(CRUMB * honest)
    await stage.until(lambda: len(upstream.received) == honest)
    assert len(pieces.sizes) <= 16  # one for each read, and not one for each frame
    visitor.send(CRUMB * 100 * FRAMES_BURST)
    rest = await visitor.rest()
    assert close_code(rest) == POLICY
    assert b"too many frames" in rest
    assert len(upstream.received) < 4 * FRAMES_BURST
    await stage.until(lambda: stage.node.devices.tunnels()[0].in_use == 0)


async def test_frames_that_carry_something_have_no_rate(stage: Stage) -> None:
    upstream, visitor = await entered(stage)
    question = frame(Opcode.BINARY, b"q" * 60, MASK)
    count = 20 * FRAMES_BURST
    visitor.send(question * count)
    async with asyncio.timeout(WAIT_S):
        while len(upstream.received) < 60 * count:
            assert await visitor.reader.read(1 << 20)
    assert len(upstream.received) == 60 * count


def test_the_frame_beyond_the_allowance_is_not_even_read() -> None:
    reader = FrameReader(masked=True)
    reader.left = 3
    assert reader.feed(CRUMB * 3) == [Payload(b"xxx")]
    reader.left += 1.5
    reader.feed(CRUMB)
    with pytest.raises(FrameError) as error:
        reader.feed(CRUMB)
    assert error.value.code == POLICY


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET %b HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n", 400, "bad_request"),
        (b"GET %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "bad_request"),
        (b"TRACE %b HTTP/1.1\r\nHost: x\r\n\r\n", 405, "bad_request"),
        (b"PUT %b HTTP/1.1\r\nHost: " + LABEL.encode() + b".localhost\r\n\r\n", 405, "method_not_allowed"),
        (b"GET %b?a=b HTTP/1.1\r\nHost: elsewhere\r\n\r\n", 421, "wrong_host"),
        (b"GET %b HTTP/1.1\r\nHost: " + LABEL.encode() + b".localhost\r\n\r\n", 426, "upgrade_needed"),
    ],
)
async def test_a_program_that_names_no_type_reads_problems(
    stage: Stage, request_bytes: bytes, status: int, code: str
) -> None:
    """The door is for programs: also what cannot be parsed is answered as they read it."""
    visitor = await stage.visitor(b"")
    visitor.send(request_bytes.replace(b"%b", PATH.encode()))
    head, body = await visitor.response()
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"\r\nContent-Type: application/problem+json\r\n" in head
    assert json.loads(body)["code"] == code


@pytest.mark.parametrize(
    ("path", "accept", "kind"),
    [
        (PATH, "text/html,*/*;q=0.8", b"text/html"),
        (PATH, "*/*", b"application/problem+json"),
        ("/", "application/json", b"application/problem+json"),
        ("/", "*/*", b"text/html"),
    ],
)
async def test_accept_decides_what_a_broken_head_is_told(
    stage: Stage, path: str, accept: str, kind: bytes
) -> None:
    visitor = await stage.visitor(b"")
    visitor.get(path, f"Accept: {accept}", "Transfer-Encoding: chunked", "Content-Length: 3")
    head, _ = await visitor.response()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nContent-Type: " + kind in head


async def test_an_upgrade_that_drips_ends_at_the_heads_time() -> None:
    async with running(settings(limits=VisitorLimits(resolves_per_s=1000.0, head_s=0.5))) as stage:
        visitor = await stage.visitor(b"")
        dripping = asyncio.get_running_loop().create_task(drip(visitor))
        try:
            head, body = await visitor.response()
        finally:
            dripping.cancel()
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["code"] == "bad_request"
        await stage.until(lambda: not stage.node.edge.connections)


async def drip(visitor: Visitor) -> None:
    """A head byte by byte, without an end."""
    visitor.send(f"GET {PATH} HTTP/1.1\r\nHost: {LABEL}.localhost\r\n".encode())
    while True:
        visitor.send(b"X: y\r\n")
        await asyncio.sleep(0.05)


async def test_half_a_frame_costs_what_it_carries(stage: Stage) -> None:
    """No time runs against it: a slow line's frame may take long. What came of it is passed on, not kept."""
    upstream, visitor = await entered(stage)
    whole = frame(Opcode.BINARY, b"z" * 1_000, MASK)
    visitor.send(whole[:3])
    visitor.send(whole[3:500])
    await stage.until(lambda: len(upstream.received) == 500 - len(whole) + 1_000)
    neighbour = await raw_door(stage, stage.gateway.add_session(service="ssh", kind="tcp")[1])
    assert await outcome(neighbour) == "101"
    visitor.send(whole[500:])
    await stage.until(lambda: len(upstream.received) == 1_000)


async def test_over_tls_too_a_slow_reader_gets_the_last_bytes(tmp_path: Path) -> None:
    """TLS keeps bytes that no transport counts: nothing may be cut because its buffer looks empty."""
    size = 48 << 10  # more than the kernel takes, less than a transport calls full

    async def give(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(bytes(size))

    chain, key = write_certificate(tmp_path)
    limits = VisitorLimits(resolves_per_s=1000.0, linger_s=0.05)
    native = {"domain": DOMAIN, "certificate": chain, "key": key}
    async with running(settings(limits=limits, visitors=native)) as stage:
        _, bearer = await tcp_device(stage, give)
        visitor = await stage.visitor(b"")
        visitor.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        trusting = ssl.create_default_context(cafile=chain)
        await visitor.writer.start_tls(trusting, server_hostname=f"{LABEL}.{DOMAIN}")
        site = f"{LABEL}.{DOMAIN}"
        headers = HANDSHAKE | {"Origin": f"https://{site}", "Authorization": f"Bearer {bearer.decode()}"}
        lines = [f"GET {PATH} HTTP/1.1", f"Host: {site}", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        visitor.send("\r\n".join(lines).encode())
        assert (await visitor.head()).startswith(b"HTTP/1.1 101 ")
        (connection,) = stage.node.edge.connections
        server_end = connection.transport.get_extra_info("socket")
        server_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        visitor.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport, says uvloop
        visitor.send(frame(Opcode.BINARY, b"", MASK))
        await stage.until(lambda: not stage.devices[0].splices)
        late = stage.node.edge.monotonic() + 1.0
        await stage.until(lambda: stage.node.edge.monotonic() > late)
        visitor.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
        frames, got = FrameReader(masked=False), list[FrameEvent]()
        async with asyncio.timeout(WAIT_S):
            while not any(isinstance(event, Close) for event in got):
                data = await visitor.reader.read(65_536)
                assert data, "cut before the farewell"
                got += frames.feed(data)
        assert sum(len(event.data) for event in got if isinstance(event, Payload)) == size
        visitor.send(close_frame(NORMAL, "", MASK))  # our answer ends it
        await stage.until(lambda: not stage.node.edge.connections)


async def test_the_last_bytes_behind_a_farewell_end_with_the_session(stage: Stage) -> None:
    """A client that does not answer it may still have bytes to take."""
    _, visitor = await entered(stage)
    visitor.send(frame(Opcode.BINARY, b"", MASK))
    await stage.until(lambda: not stage.devices[0].splices)
    (connection,) = stage.node.edge.connections
    await stage.until(lambda: connection.finished_there)
    stage.gateway.publish("session", next(iter(stage.node.sessions)).facts.sid)
    await stage.until(lambda: not stage.node.edge.connections)
