"""HEAD: what GET would say, without its body, and without the work of a stream."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import httpx
import pytest

from tests.gateway.audit.test_reading import site_of
from tests.gateway.test_websocket_log import cookie_of
from tests.gateway.world import World

AT_ONCE_S = 2.5  # under the statement's patience, which would end what waits for the lock
OF_EACH = {"date", "x-request-id", "ratelimit", "transfer-encoding", "connection"}


def said(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in OF_EACH}


async def test_it_says_what_get_says(world: World) -> None:
    owner = await world.person()
    site = await site_of(owner)
    device = await world.enrol(owner)
    for path in (
        f"/v1/sites/{site}/audit/export",
        f"/v1/sites/{site}/audit",
        "/v1/events?wait_s=0",
        "/v1/devices",
        f"/v1/devices/{device.id}",
        "/v1/openapi.json",
        "/login",
        "/",
        "/static/call.js",
        "/nothing",
    ):
        got, head = await owner.get(path), await owner.head(path)
        assert head.status_code == got.status_code, path
        assert said(head) == said(got), path
        assert head.content == b""
    etag = (await owner.head(f"/v1/devices/{device.id}")).headers["etag"]
    unchanged = await owner.head(f"/v1/devices/{device.id}", headers={"if-none-match": etag})
    assert (unchanged.status_code, unchanged.headers["etag"]) == (304, etag)


async def with_the_next(world: World, person: httpx.AsyncClient, target: str) -> list[bytes]:
    """What is on the wire for HEAD and a GET behind it on the same connection, cut at the ends of heads."""
    address = world.gateway.public_address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(
        f"HEAD {target} HTTP/1.1\r\nHost: x\r\nCookie: {cookie_of(person)}\r\n\r\n"
        "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    async with asyncio.timeout(10):
        raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    return raw.split(b"\r\n\r\n")


async def test_it_makes_no_export(world: World, owner_url: str) -> None:
    """Nobody may read the log's rows meanwhile: who makes an export waits, and so does what comes behind."""
    owner = await world.person()
    path = f"/v1/sites/{await site_of(owner)}/audit/export"
    connection = await asyncpg.connect(owner_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE")
            began = time.monotonic()
            head, following, _ = await with_the_next(world, owner, path)
            assert time.monotonic() - began < AT_ONCE_S
    finally:
        await connection.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-type: application/x-ndjson" in head
    assert following.startswith(b"HTTP/1.1 200 ")
    stranger = await world.person("stranger")
    assert (await stranger.head(path)).status_code == 404
    assert (await world.browser().head(path)).status_code == 401


@pytest.mark.parametrize("path", ["/v1/events", "/v1/sites/{site}/audit/export"])
async def test_nothing_stands_behind_the_head_of_a_stream(world: World, path: str) -> None:
    """The connection then serves the next."""
    owner = await world.person()
    head, following, _ = await with_the_next(world, owner, path.format(site=await site_of(owner)))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert following.startswith(b"HTTP/1.1 200 ")
    assert world.gateway.parts.events.followers == 0


async def test_the_head_of_the_feed_has_an_end(world: World) -> None:
    node = world.node()
    async with asyncio.timeout(10):
        answer = await node.http.head("/internal/v1/revocations")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert world.gateway.parts.metrics.feed_readers.value == 0
