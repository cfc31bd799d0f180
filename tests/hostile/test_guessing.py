"""Somebody guesses session cookies, Bearers of TCP sessions, and links: slowly, and without filling a log."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.tcp_door import SUBPROTOCOL
from tests.hostile.raw_tunnel import WAIT_S
from tests.hostile.scene import Bounds, NodeProcess

RATE = 2.0
BURST = 8  # RESOLVE_BURST_S of them
GUESSES = 300
GUESSING_MB = 8.0
LABEL = "g" * 26


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    folder = Path(tempfile.mkdtemp(prefix="towline-guess-"))
    node = NodeProcess(folder, limits={"resolves_per_s": RATE})
    yield node
    node.stop()
    shutil.rmtree(folder)


def cookie(secret: str) -> bytes:
    return request("GET / HTTP/1.1", f"Cookie: towline_session={secret}")


def bearer(secret: str) -> bytes:
    upgrade = (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
    )
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    return request("GET /.towline/tcp HTTP/1.1", *upgrade, key, f"Authorization: Bearer {secret}")


def link(secret: str) -> bytes:
    body = f"token={secret}"
    kind = "Content-Type: application/x-www-form-urlencoded"
    origin = f"Origin: http://{LABEL}.localhost"
    return (
        request("POST /.towline/open HTTP/1.1", kind, origin, f"Content-Length: {len(body)}") + body.encode()
    )


def request(first: str, *lines: str) -> bytes:
    return "\r\n".join([first, f"Host: {LABEL}.localhost", *lines, "", ""]).encode()


async def answer(node: NodeProcess, data: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.ports["visitors"])
    try:
        writer.write(data)
        async with asyncio.timeout(WAIT_S):
            return int((await reader.readuntil(b"\r\n"))[9:12])
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("guess", [cookie, bearer, link])
async def test_guessing_is_slow_and_quiet(node: NodeProcess, guess: Callable[[str], bytes]) -> None:
    bounds, lines = Bounds(node), len(node.lines())
    tried = [secrets.token_urlsafe(32) for _ in range(GUESSES)]
    started = time.monotonic()
    codes = Counter([await answer(node, guess(secret)) for secret in tried])
    allowed = BURST + RATE * (time.monotonic() - started) + 1
    refused = codes.pop(429, 0)
    print(f"{refused} of {GUESSES} not even asked about; else {dict(codes)}")
    assert GUESSES - refused <= allowed
    assert not {200, 101, 303} & codes.keys()
    log = node.log.read_text()
    assert not [secret for secret in tried if secret in log]
    await bounds.check(mb=GUESSING_MB, lines=int(allowed))
    assert len(node.lines()) - lines <= GUESSES - refused
