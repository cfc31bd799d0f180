"""The single gateway's tests, with two: what makes a world of its own has one gateway, as there."""

from __future__ import annotations

import asyncio

from gateway import event_watch
from tests.gateway.test_events import *  # noqa: F403
from tests.gateway.test_events import PATIENCE_S
from tests.gateway.world import World

# Each gateway bounds what one person takes from it; nginx takes turns.
OF_BOTH = 2 * event_watch.STREAMS_PER_PERSON


async def test_streams_of_one_person_are_bounded(world: World) -> None:  # type: ignore[no-redef]
    owner, other = await world.person(), await world.person("other")
    async with asyncio.timeout(2 * PATIENCE_S):
        streams = [owner.stream("GET", "/v1/events") for _ in range(OF_BOTH)]
        opened = [await one.__aenter__() for one in streams]
        assert {answer.status_code for answer in opened} == {200}
        for _ in range(2):
            refused = await owner.get("/v1/events")
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        for _ in range(2):
            assert (await other.get("/v1/events?wait_s=0")).status_code == 200
        for one in streams:
            await one.__aexit__(None, None, None)
        while (await owner.get("/v1/events?wait_s=0")).status_code != 200:
            continue


async def test_many_streams_at_once_are_no_more(world: World) -> None:  # type: ignore[no-redef]
    owner = await world.person()
    answers = await asyncio.gather(*(owner.get("/v1/events?wait_s=2") for _ in range(2 * OF_BOTH)))
    assert sorted(answer.status_code for answer in answers) == [200] * OF_BOTH + [429] * OF_BOTH
