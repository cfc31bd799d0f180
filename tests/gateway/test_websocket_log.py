"""A WebSocket in the log and the metrics: when it is answered, and how it ended."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.api import events
from tests.gateway.test_events import heard, socket_of, to_its_end
from tests.gateway.test_request_ids import HEADER, MADE_HERE, Lines, lines
from tests.gateway.world import World

__all__ = ["lines"]  # a fixture

PATIENCE_S = 10.0
OF_EVERY_REQUEST = {"request_id", "listener", "method", "path", "client"}


def cookie_of(person: httpx.AsyncClient) -> str:
    return "; ".join(f"{name}={value}" for name, value in person.cookies.items())


async def metric(world: World, name: str) -> float:
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://{world.gateway.ops_address}/metrics")).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def about(lines: Lines, request_id: str, *, count: int) -> list[dict[str, Any]]:
    """That many lines of the request."""
    async with asyncio.timeout(PATIENCE_S):
        while len(lines.of(request_id)) < count:
            await asyncio.to_thread(lambda: None)
    return [line for line in lines.seen if line.get("request_id") == request_id]


async def test_its_begin_and_its_end_have_a_line_and_count(world: World, lines: Lines) -> None:
    owner = await world.person()
    async with socket_of(world, cookie=cookie_of(owner), query="?after=0") as connection:
        assert connection.response is not None
        name = connection.response.headers[HEADER]
        assert MADE_HERE.fullmatch(name)
        assert (await heard(connection))["kind"] == "ready"
        (opened,) = await about(lines, name, count=1)
        assert (opened["event"], opened["method"], opened["path"]) == ("request", "GET", "/v1/events/ws")
        assert (opened["listener"], opened["status"], opened["client"]) == ("public", 101, "127.0.0.1")
        assert await metric(world, "towline_gateway_websockets") == 1
        assert await metric(world, "towline_gateway_event_streams") == 1
        for _ in range(3):
            await connection.send("nobody listens")
        await owner.post("/v1/orgs", json={"name": "Mine"})
        assert (await heard(connection))["kind"] == "org.changed"
        await connection.close(4321)
    _, closed = await about(lines, name, count=2)
    assert (closed["event"], closed["code"]) == ("websocket closed", 4321)
    assert (closed["sent"], closed["received"]) == (2, 3)
    assert closed["lasted_ms"] > 0
    assert {field: closed[field] for field in OF_EVERY_REQUEST} == {
        field: opened[field] for field in OF_EVERY_REQUEST
    }
    assert await metric(world, "towline_gateway_websockets") == 0
    assert await metric(world, "towline_gateway_event_streams") == 0
    assert await metric(world, 'towline_gateway_requests_total{listener="public",status="101"}') == 1
    # Clients could say thousands of codes of their own.
    assert await metric(world, 'towline_gateway_websockets_closed_total{code="other"}') == 1
    assert await metric(world, "towline_gateway_websocket_seconds_count") == 1
    assert await metric(world, 'towline_gateway_websocket_messages_total{direction="sent"}') == 2
    assert await metric(world, 'towline_gateway_websocket_messages_total{direction="received"}') == 3


async def test_the_code_says_who_ended_it(
    world: World, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await world.person()

    async def opened() -> Any:
        connection = await socket_of(world, cookie=cookie_of(owner))
        assert (await heard(connection))["kind"] == "ready"
        assert connection.response is not None
        return connection, connection.response.headers[HEADER]

    connection, name = await opened()
    await connection.close()
    assert (await about(lines, name, count=2))[1]["code"] == 1000
    connection, name = await opened()
    connection.transport.abort()
    assert (await about(lines, name, count=2))[1]["code"] == 1006
    monkeypatch.setattr(events, "shown", None)
    connection, name = await opened()
    await owner.post("/v1/orgs", json={"name": "Mine"})
    with pytest.raises(ConnectionClosed):
        await to_its_end(connection)
    await about(lines, name, count=2)
    monkeypatch.undo()
    connection, name = await opened()
    await owner.post("/v1/logout")
    with pytest.raises(ConnectionClosed):
        await to_its_end(connection)
    assert (await about(lines, name, count=2))[1]["code"] == 1008
    assert await metric(world, "towline_gateway_websockets") == 0


async def test_what_is_refused_has_a_line_and_every_answers_headers(world: World, lines: Lines) -> None:
    for path, query, status, code in (
        ("/v1/events/ws", "?after=1", 401, "login_needed"),
        ("/v1/events/ws", "?ticket=1", 422, "invalid_field"),
        ("/v1/nothing", "", 404, "not_found"),
        ("/v1/me", "", 404, "not_found"),
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with socket_of(world, path=path, query=query):
                pass
        answer = refused.value.response
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert f'"code": "{code}"'.encode() in (answer.body or b"")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        (line,) = await about(lines, answer.headers[HEADER], count=1)
        assert (line["event"], line["path"], line["status"]) == ("request", path, status)
        count = f'towline_gateway_requests_total{{listener="public",status="{status}"}}'
        assert await metric(world, count) >= 1
    assert await metric(world, "towline_gateway_websockets") == 0


async def test_a_failure_before_the_upgrade_is_an_answer(
    world: World, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await world.person()
    monkeypatch.setattr(events, "_open", None)
    with pytest.raises(InvalidStatus) as refused:
        async with socket_of(world, cookie=cookie_of(owner)):
            pass
    assert refused.value.response.status_code == 500
    name = refused.value.response.headers[HEADER]
    assert [line["event"] for line in await about(lines, name, count=2)] == ["request failed", "request"]


async def test_nothing_writes_the_query_or_a_header(world: World, lines: Lines) -> None:
    """Whatever the level: the server below would write both."""
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    lines.setLevel(logging.DEBUG)
    # As in the log of a process, where the client's own lines are not.
    lines.addFilter(lambda record: not record.name.startswith(("httpx", "httpcore", "websockets.client")))
    owner = await world.person()
    async with socket_of(world, cookie=cookie_of(owner), query="?after=123454321") as connection:
        await heard(connection)
    with pytest.raises(InvalidStatus):
        async with socket_of(world, token="twl_canary-in-a-header", query="?access_token=canary"):
            pass
    written = [str(line) for line in lines.seen]
    assert any("/v1/events/ws" in line for line in written)
    secrets = ("123454321", "canary", *owner.cookies.values())
    assert [line for line in written if any(secret in line for secret in secrets)] == []
