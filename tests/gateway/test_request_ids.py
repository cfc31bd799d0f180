"""One request, one id: in the answer's header, and in every line that was logged while it was served."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from runtime.clock import FakeClock
from runtime.logs import JsonFormatter
from tests.gateway.world import World, settings_for

HEADER = "x-request-id"
PROXYS = "4bf92f3577b34da6a3ce929d0e0e4736"
MADE_HERE = re.compile(r"[0-9a-f]{32}")


class Lines(logging.Handler):
    """What the log writes, as the product formats it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(JsonFormatter("gateway"))
        self.seen: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(json.loads(self.format(record)))

    def of(self, request_id: str) -> list[str]:
        return [line["event"] for line in self.seen if line.get("request_id") == request_id]


@pytest.fixture
def lines() -> Iterator[Lines]:
    root, kept = logging.getLogger(), Lines()
    level = root.level
    root.addHandler(kept)
    root.setLevel(logging.INFO)
    yield kept
    root.setLevel(level)
    root.removeHandler(kept)


@pytest.fixture
async def proxied(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> AsyncIterator[World]:
    """The tests' own clients are its proxy."""
    settings = settings_for(tmp_path, database_url, keys_dir, trusted_proxies=("127.0.0.1",))
    running = World(settings, clock, tmp_path)
    await (await running.start()).prepared()
    yield running
    await running.close()


async def test_every_answer_has_one_of_its_own(world: World, lines: Lines) -> None:
    stranger = world.program()
    asked = [("GET", "/livez"), ("GET", "/v1/me"), ("HEAD", "/login"), ("GET", "/nothing"), ("PUT", "/v1/me")]
    answers = [await stranger.request(method, path) for method, path in asked]
    answers.append(await stranger.post("/v1/login", content=b"x" * 100_000))
    answers.append(await world.node().http.get("/internal/v1/keys"))
    names = [answer.headers.get_list(HEADER) for answer in answers]
    assert all(len(name) == 1 and MADE_HERE.fullmatch(name[0]) for name in names), names
    assert len({name[0] for name in names}) == len(answers)
    assert [lines.of(name[0]) for name in names] == [["request"]] * len(answers)


async def test_a_failure_is_found_by_its_answers_id(world: World, owner_url: str, lines: Lines) -> None:
    owner = await world.person()
    await world.enrol(owner)
    connection = await asyncpg.connect(owner_url)
    await connection.execute("ALTER TABLE devices RENAME COLUMN software TO gone")
    await connection.close()
    answer = await owner.get("/v1/devices")
    assert answer.status_code == 500
    assert lines.of(answer.headers[HEADER]) == ["request failed", "request"]


async def test_a_proxys_word_is_kept(proxied: World, lines: Lines) -> None:
    answer = await proxied.program().get("/v1/me", headers={HEADER: PROXYS})
    assert answer.headers.get_list(HEADER) == [PROXYS]
    assert lines.of(PROXYS) == ["request"]


@pytest.mark.parametrize("odd", ["", "a" * 65, "a b", 'a","level":"x', "ä", "../x", "<b>"])
async def test_what_is_no_id_is_replaced(proxied: World, odd: str) -> None:
    answer = await proxied.program().get("/v1/me", headers={HEADER.encode(): odd.encode()})
    assert MADE_HERE.fullmatch(answer.headers[HEADER])


async def test_two_are_none(proxied: World) -> None:
    answer = await proxied.program().get("/v1/me", headers=[(HEADER, PROXYS), (HEADER, "other")])
    assert MADE_HERE.fullmatch(answer.headers[HEADER])


async def test_a_strangers_word_counts_for_nothing(world: World, lines: Lines) -> None:
    answer = await world.program().get("/v1/me", headers={HEADER: PROXYS})
    assert MADE_HERE.fullmatch(answer.headers[HEADER])
    assert lines.of(PROXYS) == []
