"""Postgres and Redis killed, stopped and silent, under load: 503 at once, no hang, no 500, and back again."""

from __future__ import annotations

import asyncio
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from gateway.policy.limits import Limit
from gateway.shortlived.in_postgres import PostgresShortLived
from gateway.shortlived.in_redis import RedisShortLived
from gateway.shortlived.interface import Heard
from gateway.store.transaction import COMMAND_TIMEOUT_S
from runtime.clock import SYSTEM_CLOCK
from runtime.tasks import TaskOwner
from testbed.debian_postgres import DebianPostgres, debian_postgres
from testbed.redis_server import RedisServer
from tests.gateway.shortlived.line import Line
from tests.gateway.world import ADMIN_PASSWORD, World, settings_for

WORKERS = 6
# Nobody waits longer than the one statement's patience, plus what a loaded machine adds.
LONGEST_WAIT_S = COMMAND_TIMEOUT_S + 4.0
AT_ONCE_S = 0.1  # the requirement's own bound, once the breaker is open
RECOVERY_S = 30.0
REVOKED_WITHIN_S = 2.0
POLL_S = 0.02
PAUSE_S = 0.1  # of a client of the load: server and clients share one loop here


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[DebianPostgres]:
    """Not the one of the other tests: this one is killed."""
    with debian_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("own-redis"))
    server.start()
    yield server
    server.stop()


@dataclass
class Place:
    """A gateway with both stores behind lines."""

    world: World
    owner: httpx.AsyncClient
    postgres: DebianPostgres
    redis: RedisServer
    lines: dict[str, Line]

    async def readyz(self) -> tuple[int, list[str]]:
        answer = await self.owner.get("/readyz")
        return answer.status_code, answer.json()["failed"]

    async def wait_failed(self, names: list[str]) -> None:
        async with asyncio.timeout(RECOVERY_S):
            # The state of another process: nothing here sets an event.
            while (await self.readyz())[1] != names:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)


@pytest.fixture
def gateway_database(own_postgres: DebianPostgres) -> str:
    return own_postgres.create_database()


@pytest.fixture
async def place(
    tmp_path: Path,
    gateway_database: str,
    own_postgres: DebianPostgres,
    own_redis: RedisServer,
    keys_dir: Path,
) -> AsyncIterator[Place]:
    async with AsyncExitStack() as ends:
        lines = {
            "postgres": await ends.enter_async_context(Line(own_postgres.port)),
            "redis": await ends.enter_async_context(Line(own_redis.port)),
        }
        database_url = own_postgres.url(gateway_database).replace(
            str(own_postgres.port), str(lines["postgres"].port)
        )
        redis_url = own_redis.url().replace(str(own_redis.port), str(lines["redis"].port))
        settings = settings_for(tmp_path, database_url, keys_dir, redis_url=redis_url)
        # The load is one person's, whose writes are counted before Redis is asked.
        settings = replace(settings, writes_per_person_s=100_000)
        world = World(settings, SYSTEM_CLOCK, tmp_path)
        ends.push_async_callback(world.close)
        await (await world.start()).prepared()
        place = Place(world, await world.person(), own_postgres, own_redis, lines)
        await place.wait_failed([])
        yield place


@dataclass
class Load:
    """Many clients that ask one thing all the time: status → how long each answer took, seconds."""

    took: dict[int, list[float]] = field(default_factory=dict)

    async def ask(self, place: Place, method: str, path: str) -> None:
        while True:
            began = time.monotonic()
            answer = await place.owner.request(
                method, path, json=None if method == "GET" else {}, timeout=2 * LONGEST_WAIT_S
            )
            self.took.setdefault(answer.status_code, []).append(time.monotonic() - began)
            if answer.status_code == 503:
                assert answer.json()["code"] == "store_unavailable"
                assert answer.headers["content-type"] == "application/problem+json"
            await asyncio.sleep(PAUSE_S)

    @property
    def longest_s(self) -> float:
        return max(max(times) for times in self.took.values())


@asynccontextmanager
async def load(place: Place, method: str, path: str) -> AsyncIterator[Load]:
    made = Load()
    workers = [asyncio.ensure_future(made.ask(place, method, path)) for _ in range(WORKERS)]
    try:
        yield made
    finally:
        for worker in workers:
            worker.cancel()
        ended = await asyncio.gather(*workers, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


# Which request needs it, and what it may answer while all is well (the limit may be used up).
NEEDS = {"postgres": ("GET", "/v1/me", {200}), "redis": ("POST", "/v1/registration-tokens", {201, 429})}
# What is asked before it, or instead, and goes on.
WITHOUT = {"postgres": "/livez", "redis": "/v1/me"}
Change = Callable[[Place], None]  # in this thread: the kernel ends a server with the one that began it
OUTAGES: dict[str, tuple[Change, Change]] = {
    "postgres killed": (lambda p: p.postgres.kill(), lambda p: p.postgres.start()),
    "postgres stopped": (
        lambda p: p.postgres.send_all(signal.SIGSTOP),
        lambda p: p.postgres.send_all(signal.SIGCONT),
    ),
    "postgres silent": (lambda p: p.lines["postgres"].go_dead(), lambda p: p.lines["postgres"].mend()),
    "redis killed": (lambda p: p.redis.kill(), lambda p: p.redis.start()),
    "redis stopped": (lambda p: p.redis.send(signal.SIGSTOP), lambda p: p.redis.send(signal.SIGCONT)),
    "redis silent": (lambda p: p.lines["redis"].go_dead(), lambda p: p.lines["redis"].mend()),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_outage_under_load(place: Place, outage: str) -> None:
    name = outage.partition(" ")[0]
    method, path, well = NEEDS[name]
    begin, end = OUTAGES[outage]
    async with load(place, method, path) as seen:
        await until(lambda: len(seen.took) > 0)
        begin(place)
        try:
            await place.wait_failed([name])
            refused, plain = [], []
            for _ in range(20):
                refused.append(await one(place, method, path))
                plain.append(await one(place, "GET", WITHOUT[name]))
            assert {status for status, _ in refused} == {503}
            assert {status for status, _ in plain} == {200}
            # What does the same without that store tells how long this machine takes for it just now.
            own = statistics.median(took for _, took in plain)
            assert statistics.median(took for _, took in refused) < AT_ONCE_S + own, (refused, plain)
        finally:
            end(place)
        await place.wait_failed([])
        before = {status: len(times) for status, times in seen.took.items()}
        await until(lambda: any(len(seen.took.get(s, [])) > before.get(s, 0) for s in well))
    assert set(seen.took) - well == {503}
    assert seen.longest_s < LONGEST_WAIT_S, seen.longest_s


async def one(place: Place, method: str, path: str) -> tuple[int, float]:
    began = time.monotonic()
    answer = await place.owner.request(method, path, json=None if method == "GET" else {})
    return answer.status_code, time.monotonic() - began


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(RECOVERY_S):
        while not holds():  # noqa: ASYNC110 (many things make it hold)
            await asyncio.sleep(POLL_S)


async def test_without_redis_what_needs_postgres_goes_on(place: Place) -> None:
    """People log in and read, and a revocation reaches nodes in time: nobody wakes the feed, it looks."""
    device = await place.world.enrol(place.owner)
    node = place.world.node()
    place.redis.kill()
    try:
        await place.wait_failed(["redis"])
        assert (await place.owner.get("/v1/me")).status_code == 200
        await place.world.person()
        async with node.http.stream("GET", "/internal/v1/revocations?after=0") as feed:
            lines = feed.aiter_lines()
            assert "hello" in await anext(lines)
            assert (await place.owner.post(f"/v1/devices/{device.id}/revoke")).status_code in {200, 204}
            committed = time.monotonic()
            async with asyncio.timeout(RECOVERY_S):
                async for line in lines:
                    if device.id in line:
                        break
            assert time.monotonic() - committed < REVOKED_WITHIN_S
    finally:
        place.redis.start()
    await place.wait_failed([])


async def test_a_flush_opens_no_door(place: Place) -> None:
    parts = place.world.gateway.parts
    device = await place.world.enrol(place.owner)
    assert (await place.owner.post(f"/v1/devices/{device.id}/revoke")).status_code in {200, 204}
    logged_out = await place.world.person()
    assert (await logged_out.post("/v1/logout")).status_code in {200, 204}
    wrong = {"username": "admin", "password": "wrong"}
    while (await place.owner.post("/v1/login", json=wrong)).status_code == 401:
        pass
    light = Limit("light", burst=1, refill_s=1000.0)
    await parts.shortlived.put("state", "key", b"verifier", 60.0)
    assert (await parts.shortlived.take([(light, "x")])).refused is None
    assert (await parts.shortlived.take([(light, "x")])).refused is not None
    assert place.redis.ask("FLUSHALL") == "+OK"
    assert await parts.shortlived.burn("state", "key") is None
    assert (await parts.shortlived.take([(light, "x")])).refused is None
    # The guesser gains nothing, who was thrown out stays out, and what was revoked stays so.
    assert (await place.owner.post("/v1/login", json=wrong)).status_code == 429
    right = {"username": "admin", "password": ADMIN_PASSWORD}
    assert (await place.owner.post("/v1/login", json=right)).status_code == 429
    assert (await logged_out.get("/v1/me")).status_code == 401
    body = {"device_id": device.id, "key_id": device.key_id}
    node = place.world.node()
    assert (await node.http.post("/internal/v1/devices/authenticate", json=body)).status_code in {403, 404}


async def test_followers_are_told_of_a_lost_line_and_of_the_new_one(place: Place) -> None:
    store = place.world.gateway.parts.shortlived
    assert isinstance(store, RedisShortLived)
    with store.follow("news") as following:
        async with asyncio.timeout(RECOVERY_S):
            assert await anext(following) is Heard.LIVE
            place.lines["redis"].go_dead()
            assert await anext(following) is Heard.LOST
            assert not following.live
            store.wake_soon({"news"})  # it is not lost: it comes when Redis is back
            place.lines["redis"].mend()
            assert await anext(following) is Heard.LIVE
    await place.wait_failed([])


async def test_postgres_followers_are_told_too(place: Place) -> None:
    store = PostgresShortLived(place.world.gateway.parts.database)
    tasks = TaskOwner("stores")
    tasks.start(store.run(), "run")
    with store.follow("news") as following:
        async with asyncio.timeout(RECOVERY_S):
            assert await anext(following) is Heard.LIVE
            place.lines["postgres"].go_dead()
            assert await anext(following) is Heard.LOST
            place.lines["postgres"].mend()
            assert await anext(following) is Heard.LIVE
    await tasks.close(5.0)
    await place.wait_failed([])
