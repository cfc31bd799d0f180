"""Streams of events while a real Postgres is away: they wait for it, or end so that nothing is missed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from gateway import event_watch
from gateway.api import events
from gateway.errors import StoreUnavailableError
from gateway.policy.live import Change
from gateway.store import migrate, schema
from runtime.clock import SYSTEM_CLOCK
from runtime.tasks import TaskOwner
from testbed.postgres_server import PostgresServer
from tests.gateway.audit.test_reading import site_of
from tests.gateway.test_events import socket_of
from tests.gateway.test_websocket_log import cookie_of
from tests.gateway.world import World, settings_for
from towline.embedded.postgres import OWNER

OUTAGE_S = 10.0
BEAT_S = 0.5  # of the streams here, so that ten seconds show many
PATIENCE_S = 30.0
SILENCE_MAX_S = 5.0  # proxies cut after a minute; this machine may be slow


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """Not the one of the other tests: this one goes away."""
    with TemporaryDirectory(prefix="towline-pg-") as folder:
        server = PostgresServer(Path(folder))
        asyncio.run(server.start())
        yield server
        server.stop()


@pytest.fixture
def own_url(own_postgres: PostgresServer) -> str:
    name = own_postgres.create_database(owner=OWNER)
    asyncio.run(schema.put(own_postgres.url(name), own_postgres.owner_url(name), migrate.load()))
    return own_postgres.url(name)


@pytest.fixture
async def place(
    tmp_path: Path, own_url: str, keys_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(events, "HEARTBEAT_S", BEAT_S)
    running = World(settings_for(tmp_path, own_url, keys_dir), SYSTEM_CLOCK, tmp_path)
    await (await running.start()).prepared()
    yield running
    await running.close()


class Reader:
    """What one stream said, of either kind."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        """Of events, in the order in which they came."""
        self.resets = 0
        self.last_id = 0
        self.heard_at: list[float] = []
        self.code: str | None = None
        """Why it ended; `cut`: without a word."""
        self._news = asyncio.Event()

    def hear(self, kind: str, number: int) -> None:
        self.heard_at.append(time.monotonic())
        self.last_id = max(self.last_id, number)
        self.resets += kind == "reset"
        if "." in kind:
            self.numbers.append(number)
        self._news.set()

    def end(self, code: str) -> None:
        self.code = code
        self._news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._news.clear()
                await self._news.wait()

    def silence_s(self, since: float) -> float:
        """The longest, behind the moment `since`."""
        times = [since, *(at for at in self.heard_at if at > since), time.monotonic()]
        return max(later - earlier for earlier, later in pairwise(times))


async def read_sse(reader: Reader, client: httpx.AsyncClient, after: int | None) -> None:
    headers = {} if after is None else {"last-event-id": str(after)}
    try:
        async with client.stream("GET", "/v1/events", headers=headers) as answer:
            assert answer.status_code == 200
            number, kind = 0, "heartbeat"
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    number = int(value)
                elif name == "event":
                    kind = value
                elif name == "data" and kind == "end":
                    reader.end(json.loads(value)["code"])
                elif not line:
                    reader.hear(kind, number)
                    kind = "heartbeat"
    except httpx.HTTPError:
        reader.end("cut")


async def read_socket(reader: Reader, world: World, client: httpx.AsyncClient, after: int | None) -> None:
    query = "" if after is None else f"?after={after}"
    try:
        async with socket_of(world, cookie=cookie_of(client), query=query) as connection:
            while True:
                said = json.loads(await connection.recv())
                reader.hear(said["kind"], said["id"])
    except ConnectionClosed as error:
        reader.end("cut" if error.rcvd is None else f"{error.rcvd.code} {error.rcvd.reason}")


@asynccontextmanager
async def both(
    world: World, client: httpx.AsyncClient, after: tuple[int | None, int | None] = (None, None)
) -> AsyncIterator[tuple[Reader, Reader]]:
    """A stream of each kind, once both stand."""
    readers = Reader(), Reader()
    tasks = TaskOwner("readers")
    tasks.start(read_sse(readers[0], client, after[0]), "sse")
    tasks.start(read_socket(readers[1], world, client, after[1]), "websocket")
    try:
        for reader in readers:
            await reader.until(lambda reader=reader: bool(reader.heard_at))  # type: ignore[misc]
        yield readers
    finally:
        await tasks.close(PATIENCE_S)


async def tell(world: World, site: str) -> None:
    async with world.gateway.parts.database.transaction() as tx:
        tx.tell(Change("site.changed", site_id=site))


async def numbers_behind(world: World, start: int) -> list[int]:
    async with world.gateway.parts.database.transaction() as tx:
        rows = await tx.fetch("SELECT n FROM events WHERE n > $1 ORDER BY n", start)
    return [row["n"] for row in rows]


async def answers_again(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await client.get("/v1/me")).status_code != 200:
            continue


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_streams_live_through_ten_seconds_without_it(
    place: World, own_postgres: PostgresServer, how: str
) -> None:
    """Somebody writes all the time: what was committed is told, once and in order, and nothing else."""
    owner = await place.person()
    site = await site_of(owner)
    async with AsyncExitStack() as ends:
        sse, socket = readers = await ends.enter_async_context(both(place, owner))
        start = sse.last_id
        refused = 0
        own_postgres_ends = own_postgres.stop if how == "stopped" else own_postgres.kill
        began = time.monotonic()
        going = asyncio.ensure_future(asyncio.to_thread(own_postgres_ends))
        while time.monotonic() - began < OUTAGE_S:
            heard = len(sse.heard_at)
            try:
                await tell(place, site)
            except StoreUnavailableError:
                refused += 1
            await sse.until(lambda heard=heard: len(sse.heard_at) > heard)  # type: ignore[misc]
        await going
        late = await owner.get("/v1/events")
        assert (late.status_code, late.json()["code"]) == (503, "store_unavailable")
        assert late.headers["retry-after"] == "2"
        await own_postgres.start()
        await answers_again(owner)
        assert refused > 0
        for _ in range(3):
            await tell(place, site)
        told = await numbers_behind(place, start)
        for reader in readers:
            await reader.until(lambda reader=reader: reader.last_id >= told[-1])  # type: ignore[misc]
            assert reader.numbers == told
            assert (reader.code, reader.resets) == (None, 0)
            assert reader.silence_s(began) < SILENCE_MAX_S
    assert told == list(range(start + 1, told[-1] + 1))
    assert socket.numbers == sse.numbers


async def test_after_a_longer_one_they_end_and_are_gone_on_from(
    place: World, own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than streams wait, which is shortened here."""
    monkeypatch.setattr(event_watch, "BLIND_MAX_S", 1.0)
    owner = await place.person()
    site = await site_of(owner)
    async with both(place, owner) as (sse, socket):
        start = sse.last_id
        for _ in range(3):
            await tell(place, site)
        for reader in (sse, socket):
            await reader.until(lambda reader=reader: len(reader.numbers) == 3)  # type: ignore[misc]
        await asyncio.to_thread(own_postgres.kill)
        await sse.until(lambda: sse.code is not None)
        await socket.until(lambda: socket.code is not None)
        assert (sse.code, socket.code) == ("store_unavailable", "1013 store_unavailable")
    assert place.gateway.parts.events.followers == 0
    await own_postgres.start()
    await answers_again(owner)
    for _ in range(5):  # before anybody is back
        await tell(place, site)
    async with both(place, owner, (sse.last_id, socket.last_id)) as again:
        await tell(place, site)
        told = await numbers_behind(place, start)
        for before, after in zip((sse, socket), again, strict=True):
            await after.until(lambda after=after: after.last_id >= told[-1])  # type: ignore[misc]
            assert before.numbers + after.numbers == told
            assert after.resets == 0
