"""As many streams of events as a gateway takes: who comes then is told so, and when to come back."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from gateway import event_watch
from tests.gateway.test_events import following, heard, socket_of
from tests.gateway.test_websocket_log import cookie_of, metric
from tests.gateway.world import World

PATIENCE_S = 10.0
MOST = 4


async def refused_socket(world: World, person: httpx.AsyncClient) -> tuple[int, str, str | None]:
    """The refusal's status, code and Retry-After."""
    with pytest.raises(InvalidStatus) as refused:
        async with socket_of(world, cookie=cookie_of(person)):
            pass
    answer = refused.value.response
    return answer.status_code, json.loads(answer.body or b"")["code"], answer.headers.get("retry-after")


async def test_a_full_gateway_says_so_and_when_to_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_watch, "STREAMS_MAX", MOST)
    people = [await world.person(f"p{number}") for number in range(MOST + 1)]
    late = people.pop()
    async with AsyncExitStack() as ends:
        for person in people[: MOST // 2]:
            await ends.enter_async_context(following(person))
        for person in people[MOST // 2 :]:
            connection = await ends.enter_async_context(socket_of(world, cookie=cookie_of(person)))
            assert (await heard(connection))["kind"] == "ready"
        refused = await late.get("/v1/events")
        wait_s = str(event_watch.FULL_RETRY_AFTER_S)
        assert refused.headers["content-type"] == "application/problem+json"
        assert (refused.status_code, refused.json()["code"]) == (503, "streams_full")
        assert refused.headers["retry-after"] == wait_s
        assert await refused_socket(world, late) == (503, "streams_full", wait_s)
        assert await metric(world, 'towline_gateway_event_streams_refused_total{why="full"}') == 2
        # Everything else goes on.
        assert (await late.get("/v1/me")).status_code == 200
        assert world.gateway.parts.events.followers == MOST
    async with asyncio.timeout(PATIENCE_S):
        while (await late.get("/v1/events?wait_s=0")).status_code != 200:
            continue
    assert await metric(world, "towline_gateway_event_streams") == 0


async def test_one_person_cannot_hold_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By no mixture of browsers, tokens and kinds of stream."""
    monkeypatch.setattr(event_watch, "STREAMS_PER_PERSON", 3)
    monkeypatch.setattr(event_watch, "STREAMS_MAX", MOST)
    greedy, again, other = await world.person(), await world.person(), await world.person("other")
    made = await greedy.post("/v1/me/api-tokens", json={"name": "x", "scopes": ["devices:read"]})
    program = world.program(made.json()["token"])
    async with following(greedy), following(program), socket_of(world, cookie=cookie_of(again)) as third:
        assert (await heard(third))["kind"] == "ready"
        for client in (greedy, again, program):
            refused = await client.get("/v1/events")
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        assert await refused_socket(world, greedy) == (429, "too_many_streams", None)
        async with following(other):
            assert world.gateway.parts.events.followers == MOST
            # Who has too many hears that, full or not: waiting would not help them.
            assert (await greedy.get("/v1/events")).status_code == 429


def test_no_few_people_fill_a_gateway() -> None:
    assert event_watch.STREAMS_MAX >= 100 * event_watch.STREAMS_PER_PERSON
