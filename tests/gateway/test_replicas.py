"""Two gateways as processes behind nginx, one killed under load: no wrong answer, only errors of its own."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from testbed.gateways import Gateways
from testbed.people import Person
from testbed.processes import short_folder, started
from testbed.redis_server import RedisServer
from testbed.waiting import eventually

CLIENTS = 6
_ANSWERED = 'towline_gateway_requests_total{listener="public"'
PAUSE_S = 0.01
# What nginx says of a gateway that died with the request (502), or when it knows of none that lives (503).
DYING = {502, 503}
CUT = 0  # no status: the answer broke off


@pytest.fixture(scope="module", params=["postgres", "redis"])
def gateways(request: pytest.FixtureRequest) -> Iterator[Gateways]:
    with ExitStack() as ends:
        folder = ends.enter_context(short_folder())
        settings: dict[str, Any] = {}
        if request.param == "redis":
            (folder / "redis").mkdir()
            redis = RedisServer(folder / "redis")
            redis.start()
            ends.callback(redis.stop)
            (folder / "redis-url").write_text(redis.url())
            settings["redis_url_file"] = folder / "redis-url"
        yield ends.enter_context(started(Gateways(folder, replicas=2, settings=settings)))


@dataclass
class Load:
    """People who read and write all the time, each for themselves, until `stop` is set."""

    stop: threading.Event = field(default_factory=threading.Event)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def run(self, person: Person, made: list[str]) -> None:
        """Read, and make tokens: each must be one of its own."""
        while not self.stop.wait(PAUSE_S):
            self._read(person)
            self._write(person, made)

    def _read(self, person: Person) -> None:
        try:
            answer = person.http.get("/v1/me")
        except httpx.RemoteProtocolError:  # an answer that the dying one had begun: cut, and seen to be
            self.statuses["read", CUT] += 1
            return
        self._count("read", answer.status_code, {200})
        if answer.status_code == 200 and answer.json()["username"] != "admin":
            self.wrong.append(answer.text)

    def _write(self, person: Person, made: list[str]) -> None:
        try:
            answer = person.http.post("/v1/registration-tokens", json={})
        except httpx.RemoteProtocolError:
            self.statuses["write", CUT] += 1
            return
        self._count("write", answer.status_code, {201, 429})
        if answer.status_code == 201:
            made.append(answer.json()["token"])

    def _count(self, what: str, status: int, well: set[int]) -> None:
        self.statuses[what, status] += 1
        if status not in well | DYING:
            self.wrong.append(f"{what}: {status}")

    def answered(self, at_least: int) -> bool:
        return self.statuses["read", 200] >= at_least


@contextmanager
def load(people: list[Person], made: list[str]) -> Iterator[Load]:
    one = Load()
    with ThreadPoolExecutor(len(people)) as pool:
        runs = [pool.submit(one.run, person, made) for person in people]
        try:
            yield one
        finally:
            one.stop.set()
        for run in runs:
            run.result()


def test_one_is_killed_under_load(gateways: Gateways) -> None:
    people = [gateways.owner() for _ in range(CLIENTS)]
    made: list[str] = []
    with load(people, made) as seen:
        eventually("both answer", lambda: seen.answered(100))
        gateways.processes.kill("gateway-1")
        killed = seen.statuses["read", 200]
        eventually("the other goes on", lambda: seen.answered(killed + 100))
        gateways.processes.again("gateway-1")
        gateways.wait_ready("gateway-1")
        eventually("it is asked again", lambda: gateways.metric("gateway-1", _ANSWERED) > 0)
    assert not seen.wrong, seen.wrong
    # Each client had at most a request or two under way when it died; nginx leaves it alone after that.
    dying = sum(count for (_, status), count in seen.statuses.items() if status in DYING | {CUT})
    assert dying <= 4 * CLIENTS, seen.statuses
    assert len(set(made)) == len(made)
