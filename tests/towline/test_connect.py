"""`towline connect` against a real node and a real device's side; and against servers that misbehave."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime.process import Shutdown
from runtime.tcp_door import FRAMES_BURST, SUBPROTOCOL, DoorClose
from runtime.websocket_frames import NORMAL, Opcode, close_frame, frame
from tests.tunnel_server.conftest import LABEL, WAIT_S, Stage, running, settings
from tests.tunnel_server.doors import shout, tcp_device
from tests.tunnel_server.doubles import Upstream
from tests.tunnel_server.test_tls import DOMAIN, write_certificate
from towline.connect import door as door_of
from towline.connect.command import Entrance
from towline.connect.door import Door, DoorClosed, DoorRefused, SessionOver, open_door
from towline.connect.join import LocalConnection, join
from towline.connect.session import TcpSession
from towline.connect.site import Site, Unreachable
from towline.connect.standard_streams import StandardStreams
from towline.errors import TowlineError
from towline.gateway_client import Credentials, GatewayClient
from tunnel_protocol import ResetCode
from tunnel_server.settings import VisitorLimits

MIB = 1 << 20


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with running(settings()) as started:
        yield started


def site_of(port: int) -> Site:
    return Site(f"{LABEL}.localhost:{port}", f"{LABEL}.localhost", "127.0.0.1", port, None)


def here(stage: Stage) -> Site:
    return site_of(stage.node.visitors.address.port)


@asynccontextmanager
async def joined(
    site: Site, bearer: bytes
) -> AsyncIterator[tuple[Door, LocalConnection, asyncio.Task[None], Any]]:
    """A local connection joined to a door: door, near end, the joining task, (reader, writer) of its user."""
    accepted: asyncio.Future[LocalConnection] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(
        lambda reader, writer: accepted.set_result(LocalConnection(reader, writer)), "127.0.0.1", 0
    )
    host, port = server.sockets[0].getsockname()
    user = await asyncio.open_connection(host, port)
    local = await accepted
    door = await open_door(site, bearer.decode())
    task = asyncio.get_running_loop().create_task(join(local, door))
    try:
        yield door, local, task, user
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        user[1].transport.abort()
        server.close()


async def test_half_closed_both_ways(stage: Stage) -> None:
    upstream, bearer = await tcp_device(stage)
    async with joined(here(stage), bearer) as (_, _, task, (reader, writer)):
        writer.write(b"a" * MIB)
        writer.write_eof()
        async with asyncio.timeout(WAIT_S):
            assert await reader.read(-1) == b"hello\n" + b"A" * MIB + b"bye\n"
            await task
    assert len(upstream.received) == MIB


async def test_a_user_who_reads_nothing_costs_two_buffers(stage: Stage) -> None:
    sent = 0

    async def pour(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _ in range(640):  # 40 MiB
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    _, bearer = await tcp_device(stage, pour)
    async with joined(here(stage), bearer) as (door, local, _, (_, writer)):
        writer.transport.pause_reading()
        looks, last = 0, 0

        def stands_still() -> bool:
            nonlocal looks, last
            looks, last = (looks + 1 if sent and sent == last else 0), sent
            return looks > 100

        await stage.until(stands_still)
        assert sent < 32 * MIB
        assert local.writer.transport.get_write_buffer_size() < 256 << 10
        assert len(door._events) <= 1


async def test_a_service_that_reads_nothing_stops_the_user(stage: Stage) -> None:
    async def deaf(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    _, bearer = await tcp_device(stage, deaf)
    (tunnel,) = stage.node.devices.tunnels()
    async with joined(here(stage), bearer) as (door, _, _, (_, writer)):
        for splice in stage.devices[0].splices:
            splice.data = lambda data: None  # type: ignore[method-assign]  # takes no bytes: no credit returns
        writer.write(bytes(40 * MIB))
        looks, last = 0, 0

        def stands_still() -> bool:
            nonlocal looks, last
            looks, last = (looks + 1 if door._sent and door._sent == last else 0), door._sent
            return looks > 100

        await stage.until(stands_still)
        assert door._sent < 32 * MIB
        assert door._writer.transport.get_write_buffer_size() < 256 << 10
        assert sum(stream.queued for stream in tunnel.connection.streams()) < MIB


@pytest.mark.parametrize("who", ["user", "service", "session"])
async def test_what_broke_looks_broken_to_the_other_side(stage: Stage, who: str) -> None:
    _, bearer = await tcp_device(stage)
    async with joined(here(stage), bearer) as (_, _, task, (reader, writer)):
        assert await reader.readexactly(6) == b"hello\n"
        if who == "user":
            writer.transport.abort()  # unread data or not: uvloop sends what close() sends
            await stage.until(lambda: not stage.devices[0].splices)
            await stage.until(task.done)
            return
        if who == "service":
            next(iter(stage.devices[0].splices)).stream.reset(ResetCode.UPSTREAM_RESET)
        else:
            stage.gateway.publish("session", next(iter(stage.node.sessions)).facts.sid)
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(ConnectionResetError):
                await reader.read(-1)
            with pytest.raises(SessionOver if who == "session" else DoorClosed) as end:
                await task
    assert str(end.value) == (
        "the session was revoked"
        if who == "session"
        else "the connection was cut: the service broke the connection"
    )


async def test_what_a_person_is_told(stage: Stage) -> None:
    bearer = stage.gateway.add_session(service="ssh", kind="tcp")[1].decode()
    with pytest.raises(DoorRefused, match="the device is offline"):
        await open_door(here(stage), bearer)
    await stage.serve(shout)
    with pytest.raises(DoorRefused, match="does not offer this service any more"):
        await open_door(here(stage), bearer)
    with pytest.raises(SessionOver, match="the session has ended"):
        await open_door(here(stage), "x" * 43)
    await stage.node.stop()
    stage.stopped = True
    with pytest.raises(Unreachable, match=r"localhost:\d+ cannot be reached"):
        await open_door(here(stage), bearer)


async def test_tls_names_and_authorities_are_checked(tmp_path: Path) -> None:
    chain, private = write_certificate(tmp_path)
    visitors = {"domain": DOMAIN, "certificate": chain, "key": private}
    async with running(settings(visitors=visitors)) as stage:
        _, bearer = await tcp_device(stage)
        port = stage.node.visitors.address.port

        async def first(ca: str | None, name: str = f"{LABEL}.{DOMAIN}") -> bytes:
            site, token = Site.of_link(f"https://{name}:{port}/.towline/open#token", ca)
            assert token == "token"
            dialled = Site(site.authority, site.name, "127.0.0.1", port, site.tls)  # no DNS for test names
            door = await open_door(dialled, bearer.decode())
            try:
                return await door.receive()
            finally:
                door.abort()

        assert await first(str(chain)) == b"hello\n"
        with pytest.raises(TowlineError, match="is not trusted"):
            await first(None)
        with pytest.raises(TowlineError, match="is not trusted"):
            await first(str(chain), "other.example")
        with pytest.raises(TowlineError, match="cannot be used"):
            await first(str(tmp_path / "none.pem"))


def test_nothing_secret_goes_out_in_the_clear() -> None:
    with pytest.raises(TowlineError, match="not encrypted"):
        Site.of_link("http://abc.example.com/.towline/open#token", None)
    with pytest.raises(TowlineError, match="cannot be understood"):
        Site.of_link("https://abc.example.com/.towline/open", None)
    site, _ = Site.of_link("http://abc.localhost:81/.towline/open#token", None)
    assert (site.address, site.port, site.origin) == ("127.0.0.1", 81, "http://abc.localhost:81")
    assert "secret" not in repr(TcpSession("id", "device", "ssh", "then", site, "secret"))


# Servers that misbehave

Talk = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[Site]:
    """Calls ``talk`` with the accept value that the client waits for."""
    open_ones: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        key = head.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        await talk(base64.b64encode(digest), reader, writer)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield site_of(listening.sockets[0].getsockname()[1])
    finally:
        listening.close()
        for writer in open_ones:
            writer.transport.abort()


def switching(accept: bytes, *more: str) -> bytes:
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket", *more]
    return "\r\n".join([*lines, f"Sec-WebSocket-Accept: {accept.decode()}", "", ""]).encode()


@pytest.mark.parametrize(
    "answer",
    [
        switching(b"wrong", f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"),
        b"RIGHT",
        b"RIGHT Sec-WebSocket-Protocol: other",
        f"RIGHT Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\nSec-WebSocket-Extensions: x".encode(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101\r\n\r\n",
        b"HTTP/1.1 503 No\r\nContent-Length: 99999999\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 502 " + b"x" * 70_000,
        b"",
    ],
)
async def test_an_answer_that_is_no_handshake(answer: bytes) -> None:
    async def talk(accept: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        extra = answer.removeprefix(b"RIGHT").strip().decode()
        right = switching(accept, *([extra] if extra else []))
        writer.write(right if answer.startswith(b"RIGHT") else answer)
        writer.close()

    async with server(talk) as site:
        with pytest.raises((DoorRefused, Unreachable)):
            await open_door(site, "x" * 43)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (frame(Opcode.TEXT, b"x"), "binary messages alone"),
        (frame(Opcode.BINARY, b"x", b"mask"), "a server does not"),
        (b"\x82\x05ab", "went away"),
    ],
)
async def test_a_server_that_breaks_the_rules(data: bytes, said: str) -> None:
    async def talk(accept: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(switching(accept, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}") + data)
        writer.write_eof()

    async with server(talk) as site:
        door = await open_door(site, "x" * 43)
        with pytest.raises(DoorClosed, match=said):
            await receive_all(door)
        door.abort()


async def receive_all(door: Door) -> None:
    while await door.receive():
        pass  # bytes of a message that was cut are bytes all the same


async def silent(accept: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(switching(accept, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"))
    await asyncio.Event().wait()


async def test_silence_is_the_end_only_where_it_proves_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_of, "PING_S", 0.05)
    async with server(silent) as site:
        idle = await open_door(site, "x" * 43)
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(DoorClosed, match="nothing came for too long") as end:
                await idle.receive()
        assert end.value.code == DoorClose.FAILED
        idle.abort()
        # Bytes of ours may wait there unread, before the ping: a peer that takes nothing is no dead one.
        sending = await open_door(site, "x" * 43)
        await sending.send(b"much")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await sending.receive()
        sending.abort()


async def test_a_ping_that_is_answered_keeps_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_of, "PING_S", 0.3)
    _, bearer = await tcp_device(stage)
    door = await open_door(here(stage), bearer.decode())
    await door.send(b"x")
    assert await door.receive() == b"hello\n"
    assert await door.receive() == b"X"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await door.receive()
    assert door._confirmed == 1
    door.abort()


# The command's own ends


def entrance(site: Site, bearer: str) -> Entrance:
    gateway = GatewayClient(Credentials("http://127.0.0.1:1", "admin", "password"))
    return Entrance(gateway, TcpSession("the-id", "Pump", "ssh", "tomorrow", site, bearer), Shutdown())


async def test_a_gateway_that_is_away_at_the_end_is_said(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    made = entrance(here(stage), "x" * 43)
    assert await made.close() is False
    assert (
        "the session could not be ended, and ends at tomorrow: no gateway answers" in capsys.readouterr().err
    )


async def test_only_so_many_connections_at_once(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towline.connect.command.MAX_LOCAL", 1)
    _, bearer = await tcp_device(stage)
    made = entrance(here(stage), bearer.decode())
    await made.listen(0)
    port = int(capsys.readouterr().out.split()[0].rpartition(":")[2])
    first, second = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    async with asyncio.timeout(WAIT_S):
        assert await first[0].readexactly(6) == b"hello\n"
        with pytest.raises(ConnectionResetError):
            await second[0].readexactly(1)
    assert "a connection was refused: 1 are open" in capsys.readouterr().err
    await made.close()
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(ConnectionResetError):
            await first[0].readexactly(1)
    for _, writer in (first, second):
        writer.transport.abort()


async def test_standard_input_that_cannot_be_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        (tmp_path / "file").open("r+b", 0) as file,
        pytest.raises(TowlineError, match="--stdio takes pipes, sockets and terminals"),
    ):
        await StandardStreams.open(file.fileno(), file.fileno())


async def test_a_device_whose_input_cannot_be_waited_for() -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    out, sink = os.pipe()
    try:
        with pytest.raises(TowlineError, match="--stdio takes pipes, sockets and terminals"):
            await StandardStreams.open(null, sink)
    finally:
        for descriptor in (null, out, sink):
            os.close(descriptor)


async def test_an_output_that_cannot_be_had_leaves_the_input_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, typed = os.pipe()
    os.write(typed, b"typed already")
    try:
        with (
            (tmp_path / "file").open("wb", 0) as file,
            pytest.raises(TowlineError, match="--stdio takes pipes, sockets and terminals"),
        ):
            await StandardStreams.open(source, file.fileno())
        assert os.get_blocking(source)
        await asyncio.to_thread(os.write, typed, b"and more")  # the loop turns meanwhile
        assert not caplog.records
    finally:
        for descriptor in (source, typed):
            os.close(descriptor)


async def test_standard_output_that_ended_can_be_cut_off_again() -> None:
    source, typed = os.pipe()
    read, sink = os.pipe()
    try:
        streams = await StandardStreams.open(source, sink)
        streams.writer.close()
        await streams.writer.wait_closed()
        streams.abort()  # ssh ends its ProxyCommand by a signal, behind the end of the bytes
    finally:
        for descriptor in (source, typed, read, sink):
            os.close(descriptor)


async def test_the_last_bytes_are_waited_for_however_slowly_they_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door_of, "PING_S", 0.05)
    leave = asyncio.Event()

    async def slow(accept: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(switching(accept, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}") + frame(Opcode.BINARY, b""))
        await leave.wait()
        writer.write(close_frame(NORMAL, ""))

    async with server(slow) as site:
        door = await open_door(site, "x" * 43)
        await door.send(b"the last")
        await door.send_end()
        assert await door.receive() == b""
        finishing = asyncio.create_task(door.finish())
        done, _ = await asyncio.wait({finishing}, timeout=6.0)  # 5 s was once thought to be enough
        assert not done
        leave.set()
        async with asyncio.timeout(WAIT_S):
            await finishing


async def test_an_end_without_a_farewell_is_told() -> None:
    async def cut(accept: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(switching(accept, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}") + frame(Opcode.BINARY, b""))
        writer.write_eof()

    async with server(cut) as site:
        door = await open_door(site, "x" * 43)
        await door.send_end()
        assert await door.receive() == b""
        with pytest.raises(DoorClosed, match="went away"):
            await door.finish()


async def test_a_program_that_writes_byte_by_byte_is_gathered(stage: Stage) -> None:
    """A node takes so many small frames and no more."""
    upstream, bearer = await tcp_device(stage)
    count = 20 * FRAMES_BURST
    async with joined(here(stage), bearer) as (_, _, task, (reader, writer)):
        for _ in range(count):
            writer.write(b"a")
            await asyncio.sleep(0)
        writer.write_eof()
        async with asyncio.timeout(WAIT_S):
            assert await reader.read(-1) == b"hello\n" + b"A" * count + b"bye\n"
            await task
    assert len(upstream.received) == count


async def test_a_session_that_is_full_is_told_so() -> None:
    async with running(settings(limits=VisitorLimits(doors_per_session=1))) as stage:
        _, bearer = await tcp_device(stage)
        door = await open_door(here(stage), bearer.decode())
        with pytest.raises(DoorRefused, match="as many connections open as it may: close one"):
            await open_door(here(stage), bearer.decode())
        door.abort()
