"""Native TLS on the visitors' side: the same edge, __Host- cookies, no half-open states."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.settings import SettingsError, from_table
from testbed.certificates import self_signed
from tests.tunnel_server.conftest import Stage, Visitor, running, settings
from tests.tunnel_server.doubles import LABEL, Upstream, answering, make_session
from tunnel_server.settings import TunnelSettings, VisitorSettings

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
DOMAIN = "tunnel.test"


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed wildcard certificate and its key."""
    made = self_signed(folder / "wildcard", f"*.{DOMAIN}")
    return made.chain, made.key


@pytest.fixture
async def tls(tmp_path: Path) -> AsyncIterator[tuple[Stage, ssl.SSLContext]]:
    chain, private = write_certificate(tmp_path)
    config = settings(visitors={"domain": DOMAIN, "certificate": chain, "key": private})
    async with running(config) as stage:
        yield stage, ssl.create_default_context(cafile=chain)


async def connect(stage: Stage, context: ssl.SSLContext, cookie: bytes) -> Visitor:
    port = stage.node.visitors.address.port
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=f"{LABEL}.{DOMAIN}"
    )
    visitor = Visitor(reader, writer, cookie)
    stage.visitors.append(visitor)
    return visitor


def request(cookie: bytes, *headers: str, method: str = "GET", path: str = "/") -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {LABEL}.{DOMAIN}",
        f"Cookie: __Host-towline={cookie.decode()}",
    ]
    return "\r\n".join([*lines, *headers, "", ""]).encode()


async def test_requests_and_large_answers_pass(tls: tuple[Stage, ssl.SSLContext]) -> None:
    stage, context = tls
    size = 5_000_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    await stage.serve(answering(answer))
    _, cookie = stage.gateway.add_session()
    visitor = await connect(stage, context, cookie)
    for _ in range(2):
        visitor.send(request(cookie))
        assert len((await visitor.response())[1]) == size


async def test_an_upload_passes(tls: tuple[Stage, ssl.SSLContext]) -> None:
    stage, context = tls
    content = bytes(range(256)) * 8_000

    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.head(reader)
        await upstream.body(reader, len(content))
        writer.write(OK)
        await reader.read()

    upstream = await stage.serve(script)
    _, cookie = stage.gateway.add_session()
    visitor = await connect(stage, context, cookie)
    visitor.send(
        request(cookie, "Sec-Fetch-Site: same-origin", f"Content-Length: {len(content)}", method="POST")
        + content
    )
    assert (await visitor.response())[1] == b"hello"
    assert upstream.received.endswith(content)


async def test_the_cookie_is_host_bound_and_secure(tls: tuple[Stage, ssl.SSLContext]) -> None:
    stage, context = tls
    stage.gateway.links["header.payload.sig"] = make_session()
    visitor = await connect(stage, context, b"x")
    body = b"token=header.payload.sig"
    visitor.send(
        request(
            b"planted",
            f"Origin: https://{LABEL}.{DOMAIN}",
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {len(body)}",
            method="POST",
            path="/.towline/open",
        )
        + body
    )
    head, _ = await visitor.response()
    assert head.startswith(b"HTTP/1.1 303 ")
    assert b"Set-Cookie: __Host-towline=" in head
    assert b"; Path=/; " in head
    assert b"; Secure\r\n" in head


async def test_a_cut_body_ends_without_the_last_chunk(tls: tuple[Stage, ssl.SSLContext]) -> None:
    stage, context = tls

    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await upstream.reached.wait()

    upstream = await stage.serve(script)
    _, cookie = stage.gateway.add_session()
    visitor = await connect(stage, context, cookie)
    visitor.send(request(cookie))
    await visitor.head()
    assert await visitor.exactly(8) == b"3\r\nabc\r\n"
    upstream.reached.set()
    assert await visitor.was_cut() == b""


async def test_plain_bytes_on_the_tls_port_end_quietly(
    tls: tuple[Stage, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    stage, _ = tls
    visitor = await stage.visitor(b"")
    visitor.send(b"GET / HTTP/1.1\r\n\r\n")
    await visitor.was_cut()
    assert caplog.records == []


LOOPBACK = {"listen": "127.0.0.1:80", "domain": "localhost"}


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"listen": "0.0.0.0:80", "domain": "localhost"}, "without TLS"),
        ({"listen": "127.0.0.1:80", "domain": "tunnel.test"}, "without TLS"),
        (LOOPBACK | {"certificate": __file__}, "belong together"),
        (LOOPBACK | {"domain": "Localhost"}, "domain: must be"),
        (LOOPBACK | {"trusted_proxies": ["x"]}, "trusted_proxies: must"),
        (LOOPBACK | {"proxy_protocol": True}, "needs trusted_proxies"),
        (LOOPBACK | {"limits": {"head_s": 0}}, "limits.head_s: must be"),
    ],
)
def test_a_setting_that_would_be_unsafe_is_refused_by_name(table: dict[str, object], field: str) -> None:
    with pytest.raises(SettingsError, match=field):
        from_table(VisitorSettings, table, source=Path("x.toml"))


def test_a_devices_listener_takes_no_header_from_anybody() -> None:
    table = {"listen": "127.0.0.1:80", "server_names": ["x"], "proxy_protocol": True}
    with pytest.raises(SettingsError, match="needs trusted_proxies"):
        from_table(TunnelSettings, table, source=Path("x.toml"))
