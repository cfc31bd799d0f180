"""The tunnel as it runs in production: TLS, uvloop, picows on aiofastnet."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from runtime.tunnel_link import LinkFailed, Ticker, dial, listen
from runtime.tunnel_link.picows_link import PicowsLink
from testbed.certificates import self_signed
from tests.tunnel_link.sides import DeviceSide, Owner, ServerSide, ready
from tunnel_protocol import CloseCode, Limits, Side

LIMITS = Limits()
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a key and a certificate of its own for 127.0.0.1."""
    return self_signed(tmp_path_factory.mktemp("tls") / "server", "127.0.0.1").both


def contexts(certificate: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    return server, ssl.create_default_context(cafile=str(certificate))


def run(loop: str, main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_bulk_both_ways_over_tls_arrives_intact(loop: str, certificate: Path) -> None:
    """12 MiB each way in pieces of all sizes at once: the transports pause, no frame is harmed."""
    run(loop, bulk(certificate))


async def bulk(certificate: Path) -> None:
    server_tls, client_tls = contexts(certificate)
    ticker = Ticker()
    server = ServerSide(Side.SERVER, LIMITS, ticker)
    device = DeviceSide(LIMITS, ticker)
    listener = await listen(
        "127.0.0.1", 0, lambda request: server, ssl=server_tls, max_message=LIMITS.max_message
    )
    link = await dial(
        f"wss://127.0.0.1:{listener.port}/",
        device,
        ssl=client_tls,
        max_message=LIMITS.max_message,
        timeout_s=5,
    )
    assert isinstance(link, PicowsLink)
    assert link._transport is not None
    assert type(link._transport.underlying_transport).__module__.startswith("aiofastnet")
    await ready(server, device)
    chance = random.Random(7)
    pieces = [chance.randbytes(chance.choice([1, 700, 9_000, 65_535, 200_000])) for _ in range(220)]
    digest = hashlib.sha256(b"".join(pieces)).hexdigest()
    visitor = Owner(server)
    down = server.open(visitor)
    local = await device.owner()
    assert local.stream is not None
    for piece in pieces:
        down.send(piece, server.now())
        local.stream.send(memoryview(piece), device.now())
        device.flush()
    down.finish()
    local.stream.finish()
    for end in (visitor, local):
        await end.wait_until(lambda end=end: "finished" in end.heard)  # type: ignore[misc]
        assert hashlib.sha256(end.received).hexdigest() == digest
    device.connection.close(CloseCode.NORMAL, "done")
    listener.close()
    await server.wait_closed()
    await device.wait_closed()


@pytest.mark.parametrize("loop", LOOPS)
def test_failed_tls_handshakes_are_quiet_and_harm_nobody(
    loop: str, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run(loop, scanned(certificate))
    assert not caplog.records


async def scanned(certificate: Path) -> None:
    server_tls, client_tls = contexts(certificate)
    listener = await listen("127.0.0.1", 0, lambda request: 404, ssl=server_tls, max_message=4096)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    url = f"wss://127.0.0.1:{listener.port}/"
    device = DeviceSide(LIMITS, Ticker())
    with pytest.raises(LinkFailed, match=r"(?i)certificate"):
        await dial(url, device, ssl=ssl.create_default_context(), max_message=4096, timeout_s=5)
    with pytest.raises(LinkFailed, match="404"):
        await dial(url, device, ssl=client_tls, max_message=4096, timeout_s=5)
    listener.close()
