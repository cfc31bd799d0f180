"""What one gateway did holds at the other, whoever keeps the short-lived."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.api.limits import TOKENS_PER_USER
from gateway.app import Gateway
from testbed.redis_server import RedisServer
from tests.gateway.replicated.conftest import ReplicatedWorld
from tests.gateway.test_events import following
from tests.gateway.world import ORIGIN, Node, World, open_session

REVOKED_WITHIN_S = 2.0
ROUNDS = 3  # streams, one after the other: a look that is not woken comes at any time of its second
HEARD_WITHIN_S = 20.0


@pytest.fixture(params=["redis", "postgres"])
def stores(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "postgres":
        return {}
    server: RedisServer = request.getfixturevalue("redis_server")
    return {"redis_url": server.url(), "redis_prefix": "t" + secrets.token_hex(4)}


@pytest.fixture
def both(world: World) -> tuple[Gateway, Gateway]:
    assert isinstance(world, ReplicatedWorld)
    return world.gateway, world.other


def at(gateway: Gateway, node: Node) -> Node:
    """The same node, speaking with this gateway."""
    url = f"https://localhost:{gateway.internal_address.port}"
    node.http.base_url = httpx.URL(url)
    return node


async def test_a_link_burnt_at_one_is_burnt_at_the_other(world: World, both: tuple[Gateway, Gateway]) -> None:
    owner = await world.person()
    device = await world.enrol(owner)
    nodes = [at(gateway, world.node(f"node-{n}")) for n, gateway in enumerate(both)]
    await nodes[0].connect(device)
    for _ in range(5):
        link = await open_session(owner, device, binding="click")
        tries = [
            nodes[number % 2].redeem(
                label=link.label, token=link.token, kind="web", cookie=f"cookie {number}"
            )
            for number in range(10)
        ]
        statuses = [answer.status_code for answer in await asyncio.gather(*tries)]
        assert statuses.count(200) == 1, statuses
        assert set(statuses) <= {200, 409, 410}, statuses


async def test_a_limit_is_one_for_both(world: World, both: tuple[Gateway, Gateway]) -> None:
    owner = await world.person()
    answers = await asyncio.gather(
        *(owner.post("/v1/registration-tokens", json={}) for _ in range(TOKENS_PER_USER.burst + 30))
    )
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(201) == TOKENS_PER_USER.burst
    assert statuses.count(429) == 30
    for gateway in both:
        text = gateway.registry.render().decode()
        assert 'towline_gateway_requests_total{listener="public",status="429"}' in text


async def test_a_one_time_value_of_one_is_burnt_at_the_other(both: tuple[Gateway, Gateway]) -> None:
    one, other = (gateway.parts.shortlived for gateway in both)
    await one.put("state", "key", b"verifier", 60.0)
    burnt = await asyncio.gather(*((one, other)[n % 2].burn("state", "key") for n in range(20)))
    assert sorted(value is None for value in burnt) == [False] + [True] * 19


async def test_a_revocation_is_heard_at_both_in_time(world: World, both: tuple[Gateway, Gateway]) -> None:
    owner = await world.person()
    device = await world.enrol(owner)
    nodes = [at(gateway, world.node(f"node-{n}")) for n, gateway in enumerate(both)]
    await nodes[0].connect(device)
    links = [await open_session(owner, device, binding="click") for _ in range(6)]
    async with feed(nodes[0]) as first, feed(nodes[1]) as second:
        for link in links:
            assert (await owner.delete(f"/v1/sessions/{link.session}")).status_code == 204
            committed = time.monotonic()
            for lines in (first, second):
                assert await heard(lines, link.session) - committed < REVOKED_WITHIN_S
    answer = await nodes[1].redeem(label=links[0].label, token=links[0].token, kind="web")
    assert answer.status_code in {409, 410}


async def test_a_logout_at_one_counts_at_the_other(world: World, both: tuple[Gateway, Gateway]) -> None:
    owner = await world.person()
    assert (await owner.post("/v1/logout")).status_code == 204
    kept = world.browser()
    kept.cookies = owner.cookies
    for _ in range(4):
        assert (await kept.get("/v1/me")).status_code == 401


async def test_a_logout_at_one_ends_the_streams_at_the_other(
    world: World, both: tuple[Gateway, Gateway]
) -> None:
    for turn in range(ROUNDS):
        assert await logout_to_end_s(world, both, f"person-{turn}") <= REVOKED_WITHIN_S


@pytest.mark.parametrize("stores", ["redis"], indirect=True)
async def test_it_does_so_when_redis_is_dead(
    world: World, both: tuple[Gateway, Gateway], redis_server: RedisServer
) -> None:
    """Nobody is woken then: the other gateway looks by itself."""
    for turn in range(ROUNDS):
        took_s = await logout_to_end_s(world, both, f"person-{turn}", dead=redis_server)
        assert took_s <= REVOKED_WITHIN_S


async def logout_to_end_s(
    world: World, both: tuple[Gateway, Gateway], name: str, dead: RedisServer | None = None
) -> float:
    """Seconds from the answer to the logout at one gateway to the end of a stream at the other; `dead` is
    killed between.
    """
    person = await world.person(name)
    there = {"origin": ORIGIN, "sec-fetch-site": "same-origin"}
    async with (
        httpx.AsyncClient(base_url=f"http://{both[0].public_address}", headers=there, trust_env=False) as one,
        httpx.AsyncClient(base_url=f"http://{both[1].public_address}", trust_env=False) as other,
    ):
        one.cookies = other.cookies = person.cookies
        async with following(other) as told:
            assert (both[0].parts.events.followers, both[1].parts.events.followers) == (0, 1)
            if dead is not None:
                dead.kill()
            try:
                assert (await one.post("/v1/logout")).status_code == 204
                answered = time.monotonic()
                assert (await told.until("end"))["code"] == "login_ended"
                return time.monotonic() - answered
            finally:
                if dead is not None:
                    dead.start()


@asynccontextmanager
async def feed(node: Node) -> AsyncIterator[AsyncIterator[str]]:
    async with node.http.stream("GET", "/internal/v1/revocations?after=0") as answer:
        assert answer.status_code == 200
        yield answer.aiter_lines()


async def heard(lines: AsyncIterator[str], session: str) -> float:
    async with asyncio.timeout(HEARD_WITHIN_S):
        while json.loads(await anext(lines)).get("id") != session:
            pass
    return time.monotonic()
