"""SIGTERM to a node that ends TLS itself: who is still shaking hands, and who only opened a connection."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.tunnel_server.conftest import WAIT_S, Stage, Visitor, running, settings
from tests.tunnel_server.doubles import LABEL, answering
from tests.tunnel_server.test_drain import CLOSE, IDLE_STOP_S, OK, stopping
from tests.tunnel_server.test_proxies import FRONT, V2, over_tls
from tests.tunnel_server.test_tls import DOMAIN, write_certificate
from tunnel_server.edge.listener import DRAIN_IDLE_S

DIRECT: dict[str, Any] = {}
LATE_S = DRAIN_IDLE_S + 0.5


@pytest.fixture(params=[DIRECT, FRONT], ids=["directly", "behind_a_proxy"])
async def tls(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Stage, SlowClient]]:
    chain, key = write_certificate(tmp_path)
    native = request.param | {"domain": DOMAIN, "certificate": chain, "key": key}
    async with running(settings(visitors=native, drain_s=20.0)) as stage:
        await stage.serve(answering(OK))
        visitor = await stage.visitor()
        if request.param:
            visitor.send(V2)
        yield stage, SlowClient(visitor, ssl.create_default_context(cafile=chain))


class SlowClient:
    """TLS by hand: what it says leaves when the test says so, and not at once."""

    def __init__(self, visitor: Visitor, context: ssl.SSLContext) -> None:
        self.visitor = visitor
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=f"{LABEL}.{DOMAIN}")

    def hello(self) -> bytes:
        """The ClientHello."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._out.read()

    async def shake_hands(self) -> None:
        """The rest of the handshake; its last bytes wait here for the first of what follows."""
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                self.visitor.send(self._out.read())
                await self._receive()

    async def _receive(self) -> None:
        async with asyncio.timeout(WAIT_S):
            data = await self.visitor.reader.read(65_536)
        assert data, "the node cut the connection"
        self._in.write(data)

    def say(self, data: bytes) -> bytes:
        """``data`` as it stands on the wire, behind what waits."""
        self._tls.write(data)
        return self._out.read()

    async def answer(self) -> bytes:
        """Everything up to the end of TLS, which it answers as browsers do: by its own end."""
        received = b""
        while True:
            try:
                piece = self._tls.read(65_536)
            except ssl.SSLWantReadError:
                await self._receive()
                continue
            if not piece:
                self.visitor.close()
                return received
            received += piece


async def began(stage: Stage) -> None:
    await stage.until(lambda: stage.node.edge.in_handshake)


async def long_after(stage: Stage) -> None:
    """As long after SIGTERM as no idle connection stays."""
    edge = stage.node.edge
    await stage.until(lambda: edge.monotonic() > edge.idle_until - DRAIN_IDLE_S + LATE_S)


async def test_a_handshake_on_a_slow_line_ends_with_an_answer(tls: tuple[Stage, SlowClient]) -> None:
    """A third of its first message before SIGTERM, the rest long behind, and its request long behind that."""
    stage, client = tls
    hello = client.hello()
    client.visitor.send(hello[: len(hello) // 3])
    await began(stage)
    async with stopping(stage) as stopped:
        await long_after(stage)
        client.visitor.send(hello[len(hello) // 3 :])
        await client.shake_hands()
        request = client.say(over_tls(client.visitor.cookie))
        client.visitor.send(request[: len(request) // 2])
        late = stage.node.edge.monotonic() + LATE_S
        await stage.until(lambda: stage.node.edge.monotonic() > late)
        assert not stopped.done()
        client.visitor.send(request[len(request) // 2 :])
        answer = await client.answer()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert CLOSE in answer
        assert answer.endswith(b"hello")


async def test_who_said_nothing_does_not_hold_the_process(tls: tuple[Stage, SlowClient]) -> None:
    """Scanners and health checks open connections too; a visitor's first bytes come at once."""
    stage, client = tls
    await began(stage)
    started = time.monotonic()
    async with stopping(stage):
        assert await client.visitor.was_cut() == b""
    assert time.monotonic() - started < IDLE_STOP_S


async def test_who_says_hello_late_but_in_time_is_served(tls: tuple[Stage, SlowClient]) -> None:
    """Its ClientHello was on its way when the node was told to go."""
    stage, client = tls
    await began(stage)
    async with stopping(stage):
        client.visitor.send(client.hello())
        await client.shake_hands()
        client.visitor.send(client.say(over_tls(client.visitor.cookie)))
        assert (await client.answer()).startswith(b"HTTP/1.1 200 ")
