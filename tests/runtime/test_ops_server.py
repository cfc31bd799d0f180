from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from runtime.metrics import Registry
from runtime.ops_server import MAX_HEAD, OpsServer

FAILED: list[str] = []


@pytest.fixture
async def ops() -> AsyncIterator[OpsServer]:
    registry = Registry()
    registry.counter("x_total", "x").inc(7)
    server = OpsServer("127.0.0.1:0", registry, lambda: list(FAILED))
    await server.start()
    yield server
    FAILED.clear()
    await server.close()


async def ask(server: OpsServer, request: bytes) -> tuple[bytes, bytes]:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
        writer.write(request)
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


async def test_metrics(ops: OpsServer) -> None:
    head, body = await ask(ops, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"text/plain; version=0.0.4" in head
    assert b"x_total 7\n" in body


async def test_live_and_ready(ops: OpsServer) -> None:
    assert (await ask(ops, b"GET /livez HTTP/1.1\r\n\r\n"))[1] == b"ok\n"
    head, body = await ask(ops, b"GET /readyz?verbose HTTP/1.1\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert json.loads(body) == {"ready": True, "failed": []}


async def test_readiness_names_what_failed(ops: OpsServer) -> None:
    FAILED.append("database")
    head, body = await ask(ops, b"GET /readyz HTTP/1.1\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert json.loads(body) == {"ready": False, "failed": ["database"]}


async def test_head_has_no_body_and_other_paths_and_methods_are_refused(ops: OpsServer) -> None:
    head, body = await ask(ops, b"HEAD /livez HTTP/1.1\r\n\r\n")
    assert b"Content-Length: 3" in head
    assert body == b""
    assert (await ask(ops, b"GET /admin HTTP/1.1\r\n\r\n"))[0].startswith(b"HTTP/1.1 404")
    assert (await ask(ops, b"POST /livez HTTP/1.1\r\n\r\n"))[0].startswith(b"HTTP/1.1 405")


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01 no http\r\n\r\n", b"A" * (4 * MAX_HEAD)])
async def test_garbage_ends_its_own_connection_alone(ops: OpsServer, garbage: bytes) -> None:
    head, _ = await ask(ops, garbage)
    assert b"200" not in head
    assert (await ask(ops, b"GET /livez HTTP/1.1\r\n\r\n"))[1] == b"ok\n"
