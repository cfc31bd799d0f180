"""Whose word about the client's address is believed and passed on."""

from __future__ import annotations

from tests.tunnel_server.conftest import running, settings
from tests.tunnel_server.doubles import answering
from tunnel_protocol import Service

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
FORWARDING = Service("web", upstream="127.0.0.1:80", forwarded=True)


async def test_a_trusted_proxys_word_about_the_client_is_believed() -> None:
    async with running(settings(visitors={"trusted_proxies": ("127.0.0.0/8",)})) as stage:
        upstream = await stage.serve(answering(OK), services=(FORWARDING,))
        visitor = await stage.visitor()
        visitor.get("/", "X-Forwarded-For: 6.6.6.6, 9.9.9.9, 127.0.0.7")
        await visitor.response()
    assert b"\r\nX-Forwarded-For: 9.9.9.9\r\n" in upstream.received
