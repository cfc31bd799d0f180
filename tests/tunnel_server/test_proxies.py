"""Proxies in front of a node: the PROXY header on both listeners, before TLS; certificates renewed live."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runtime import accepting
from runtime.proxy_protocol import V2_SIGNATURE
from tests.tunnel_server.conftest import WAIT_S, Stage, Visitor, running, settings
from tests.tunnel_server.doubles import LABEL, TestDevice, answering
from tests.tunnel_server.test_tls import DOMAIN, write_certificate
from tunnel_protocol import Service
from tunnel_server.settings import VisitorLimits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CLIENT = "198.51.100.7"
V1 = f"PROXY TCP4 {CLIENT} 10.0.0.1 40000 443\r\n".encode()
V2 = V2_SIGNATURE + b"\x21\x11\x00\x11" + bytes([198, 51, 100, 7, 10, 0, 0, 1, 1, 1, 1, 187, 4, 0, 2]) + b"ok"
LOCAL = V2_SIGNATURE + b"\x20\x00\x00\x00"
FRONT: dict[str, Any] = {"trusted_proxies": ("127.0.0.1",), "proxy_protocol": True}
FORWARDED = Service("web", upstream="127.0.0.1:80", forwarded=True)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with running(settings(visitors=FRONT)) as started:
        yield started


async def connect(stage: Stage, header: bytes, cookie: bytes = b"") -> Visitor:
    visitor = await stage.visitor(cookie)
    visitor.send(header)
    return visitor


def refused(stage: Stage, listener: str = "visitors") -> dict[str, int]:
    family = stage.node.metrics.proxies_refused
    whys = ("untrusted", "bad_header", "no_header", "too_many")
    counts = {why: family.labels(listener, why).value for why in whys}
    return {why: count for why, count in counts.items() if count}


@pytest.mark.parametrize("header", [V1, V2])
async def test_the_device_hears_the_client_that_the_proxy_named(stage: Stage, header: bytes) -> None:
    upstream = await stage.serve(answering(OK), services=(FORWARDED,))
    _, cookie = stage.gateway.add_session()
    visitor = await connect(stage, header, cookie)
    visitor.get("/", "X-Forwarded-For: 203.0.113.99")
    assert (await visitor.response())[1] == b"hello"
    assert f"X-Forwarded-For: {CLIENT}\r\n".encode() in upstream.received
    assert b"203.0.113.99" not in upstream.received
    assert stage.node.edge.per_address == {CLIENT: 1}


async def test_a_proxy_speaks_for_itself(stage: Stage) -> None:
    upstream = await stage.serve(answering(OK), services=(FORWARDED,))
    _, cookie = stage.gateway.add_session()
    visitor = await connect(stage, LOCAL, cookie)
    visitor.get()
    await visitor.response()
    assert b"X-Forwarded-For: 127.0.0.1\r\n" in upstream.received


async def test_a_header_in_single_bytes(stage: Stage) -> None:
    await stage.serve(answering(OK))
    _, cookie = stage.gateway.add_session()
    visitor = await stage.visitor(cookie)
    for at in range(len(V2)):
        visitor.send(V2[at : at + 1])
        await visitor.writer.drain()
        await asyncio.sleep(0)
    visitor.get()
    assert (await visitor.response())[1] == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PROXY TCP4 1.2.3.4\r\n",
        V2[:13] + b"\x12" + V2[14:],
    ],
)
async def test_without_a_right_header_nothing_is_parsed(stage: Stage, data: bytes) -> None:
    visitor = await connect(stage, data)
    assert await visitor.was_cut() == b""
    assert refused(stage) == {"bad_header": 1}
    assert not stage.node.edge.connections


async def test_a_header_that_does_not_come_ends_the_connection(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "HEADER_S", 0.2)
    visitor = await connect(stage, V2[:20])
    assert await visitor.was_cut() == b""
    assert refused(stage) == {"no_header": 1}


async def test_nobody_else_may_send_a_header() -> None:
    front = FRONT | {"trusted_proxies": ("192.0.2.1",)}
    async with running(settings(visitors=front)) as stage:
        visitor = await connect(stage, V1)
        assert await visitor.was_cut() == b""
        assert refused(stage) == {"untrusted": 1}


async def test_when_it_is_off_a_header_is_no_http() -> None:
    async with running(settings(visitors={"trusted_proxies": ("127.0.0.1",)})) as stage:
        visitor = await connect(stage, V1)
        assert (await visitor.response())[0].startswith(b"HTTP/1.1 400 ")


async def test_a_flood_of_connections_without_a_header_is_bounded(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "PENDING_MAX", 3)
    silent = [await stage.visitor(b"") for _ in range(3)]
    over = await stage.visitor(b"")
    assert await over.was_cut() == b""
    assert refused(stage) == {"too_many": 1}
    silent[0].send(b"x")
    assert await silent[0].was_cut() == b""
    await stage.serve(answering(OK))
    visitor = await connect(stage, V1, stage.gateway.add_session()[1])
    visitor.get()
    assert (await visitor.response())[1] == b"hello"


async def test_limits_by_address_see_the_clients() -> None:
    limits = VisitorLimits(resolves_per_s=1000.0, connections_per_address=2)
    async with running(settings(visitors=FRONT, limits=limits)) as stage:
        await stage.serve(answering(OK))
        _, cookie = stage.gateway.add_session()
        for _ in range(2):
            visitor = await connect(stage, V1, cookie)
            visitor.get()
            assert (await visitor.response())[1] == b"hello"
        third = await connect(stage, V1, cookie)
        assert await third.was_cut() == b""
        other = await connect(stage, V1.replace(b".7 ", b".8 "), cookie)
        other.get()
        assert (await other.response())[1] == b"hello"


async def start_tls(visitor: Visitor, context: ssl.SSLContext) -> None:
    await visitor.writer.start_tls(context, server_hostname=f"{LABEL}.{DOMAIN}")


def over_tls(cookie: bytes) -> bytes:
    lines = ["GET / HTTP/1.1", f"Host: {LABEL}.{DOMAIN}", f"Cookie: __Host-towline={cookie.decode()}", "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("header", [V1, V2])
async def test_the_header_stands_before_tls(tmp_path: Path, header: bytes) -> None:
    chain, key = write_certificate(tmp_path)
    native = FRONT | {"domain": DOMAIN, "certificate": chain, "key": key}
    size = 3_000_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    async with running(settings(visitors=native)) as stage:
        upstream = await stage.serve(answering(answer), services=(FORWARDED,))
        _, cookie = stage.gateway.add_session()
        visitor = await connect(stage, header, cookie)
        await start_tls(visitor, ssl.create_default_context(cafile=chain))
        for _ in range(2):
            visitor.send(over_tls(cookie))
            assert len((await visitor.response())[1]) == size
        assert f"X-Forwarded-For: {CLIENT}\r\n".encode() in upstream.received


async def test_a_failed_handshake_behind_a_header_ends_quietly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chain, key = write_certificate(tmp_path)
    native = FRONT | {"domain": DOMAIN, "certificate": chain, "key": key}
    async with running(settings(visitors=native)) as stage:
        visitor = await connect(stage, V1 + b"GET / HTTP/1.1\r\n\r\n")
        await visitor.was_cut()
        gone = await connect(stage, V1 + b"\x16\x03\x01")
        gone.close()
        await stage.until(lambda: not stage.node.edge.connections)
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


@contextlib.asynccontextmanager
async def proxied_port(target: int, header: bytes) -> AsyncIterator[int]:
    """A proxy of two loops: the header, then bytes both ways."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target)
        there_writer.write(header)
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize("header", [V1, V2])
async def test_devices_come_through_a_proxy_too(header: bytes) -> None:
    async with (
        running(settings(tunnels=FRONT)) as stage,
        proxied_port(stage.node.tunnels.address.port, header) as port,
    ):
        upstream, target = await stage.upstream(answering(OK))
        device = await TestDevice(stage.key, target).dial(port)
        await device.wait_ready()
        await stage.until(lambda: list(stage.node.devices.tunnels()))
        (tunnel,) = stage.node.devices.tunnels()
        assert tunnel.peer_address == CLIENT
        visitor = await stage.visitor()
        visitor.get()
        assert (await visitor.response())[1] == b"hello"
        assert upstream.connections == 1
        await device.close()


async def test_devices_behind_an_http_proxy_are_known_by_what_it_forwards() -> None:
    async with running(settings(tunnels={"trusted_proxies": ("127.0.0.1",)})) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.node.tunnels.address.port)
        lines = [
            "GET /tunnel HTTP/1.1",
            "Host: 127.0.0.1",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Protocol: towline.v1",
            f"X-Forwarded-For: 203.0.113.9, {CLIENT}",
            "X-Forwarded-For: 127.0.0.1",
            "",
            "",
        ]
        writer.write("\r\n".join(lines).encode())
        try:
            async with asyncio.timeout(WAIT_S):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            (tunnel,) = stage.node.tunnels._tunnels
            assert tunnel.peer_address == CLIENT
        finally:
            writer.close()


async def test_a_device_without_a_header_is_turned_away() -> None:
    async with running(settings(tunnels=FRONT)) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.node.tunnels.address.port)
        writer.write(b"GET /tunnel HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        assert refused(stage, "devices") == {"bad_header": 1}
        writer.close()


async def serial(port: int) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(WAIT_S):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown


async def test_both_listeners_show_renewed_certificates_and_live_connections_go_on(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path)
    pair = {"certificate": chain, "key": key}
    async with running(settings(visitors=pair | {"domain": DOMAIN}, tunnels=pair)) as stage:
        ports = (stage.node.visitors.address.port, stage.node.tunnels.address.port)
        live = await stage.visitor(b"x")
        await start_tls(live, ssl.create_default_context(cafile=chain))
        first = [await serial(port) for port in ports]
        assert first[0] == first[1]
        write_certificate(tmp_path)
        assert [await serial(port) for port in ports] == first
        stage.node.certificates.reload()
        second = [await serial(port) for port in ports]
        assert second[0] == second[1] != first[0]
        key.write_text("garbage")
        stage.node.certificates.reload()
        assert [await serial(port) for port in ports] == second
        live.send(over_tls(b"unknown"))
        assert (await live.response())[0].startswith(b"HTTP/1.1 403 ")
        text = stage.node.registry.render().decode()
        for listener in ("visitors", "devices"):
            assert f'reloads_total{{listener="{listener}",outcome="loaded"}} 1' in text
            assert f'reloads_total{{listener="{listener}",outcome="refused"}} 1' in text
            assert f'expires_in_seconds{{listener="{listener}"}} 86' in text  # a day, almost


def test_bytes_of_the_second_version() -> None:
    """The header above is what the specification's section 2.2 lays out."""
    assert struct.unpack("!12sBBH4s4sHH", V2[:28])[3:] == (17, b"\xc6\x33\x64\x07", b"\n\0\0\1", 257, 443)
