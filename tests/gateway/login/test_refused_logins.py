"""Refused logins: they cost the same whoever they are about, and the audit log has them, within bounds."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import argon2
import httpx
import pytest

from gateway.api.limits import LOGIN_PER_ADDRESS, PROVIDER_ANSWER_PER_ADDRESS
from gateway.errors import StoreUnavailableError
from gateway.refused_logins import ROOM, WINDOW_S, Refusal, RefusedLogins
from gateway.store import people, users
from gateway.store.database import Database
from gateway.store.transaction import Transaction
from runtime.clock import FakeClock
from tests.gateway.login.conftest import StartWorld, provider_settings
from tests.gateway.login.free_provider import FreeProvider
from tests.gateway.login.visitor import Visitor
from tests.gateway.world import ADMIN_PASSWORD, World

Line = dict[str, Any]


async def told(world: World, kind: str = "login.") -> list[Line]:
    """The audit log's lines of refused logins, after what is due was told."""
    await world.gateway.parts.refused_logins.tell()
    async with world.gateway.parts.database.transaction() as tx:
        rows = await tx.fetch(
            "SELECT record FROM audit_events WHERE kind IN ('login.failed', 'login.limited')"
            " AND starts_with(kind, $1) ORDER BY seq",
            kind,
        )
    return [json.loads(row["record"]) for row in rows]


# What a refusal costs

LOOKS = "SELECT id, username, password_hash"


@dataclass
class Work:
    """What was asked of Postgres and of Argon2, by the task that did it: one a request."""

    statements: dict[asyncio.Task[Any] | None, list[str]] = field(default_factory=dict)
    hashes: list[str] = field(default_factory=list)

    def of_login(self) -> list[str]:
        """The one request that asked for a password; the gateway's own rounds look at people too."""
        [found] = [all_ for all_ in self.statements.values() if any(LOOKS in one for one in all_)]
        return found


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch, world: World) -> Work:
    """Every statement goes through these methods, every password through this one."""
    done = Work()

    def counted(name: str) -> None:
        real = getattr(Transaction, name)

        async def asked(self: Transaction, query: str, *args: Any) -> Any:
            done.statements.setdefault(asyncio.current_task(), []).append(f"{name} {query}")
            return await real(self, query, *args)

        monkeypatch.setattr(Transaction, name, asked)

    for name in ("fetch", "fetchrow", "fetchval", "execute", "executemany"):
        counted(name)
    real_begin = Database.transaction

    def begun(self: Database, **options: Any) -> Any:
        done.statements.setdefault(asyncio.current_task(), []).append("BEGIN")
        return real_begin(self, **options)

    monkeypatch.setattr(Database, "transaction", begun)
    passwords = world.gateway.parts.passwords
    real_verify = passwords._verify

    def verified(stored: str, password: str) -> bool:
        done.hashes.append(str(argon2.extract_parameters(stored)))
        return real_verify(stored, password)

    monkeypatch.setattr(passwords, "_verify", verified)
    return done


async def cast(world: World) -> None:
    """Somebody of each kind."""
    await world.add_user("ann")
    shut_out = await world.add_user("bob")
    async with world.gateway.parts.database.transaction() as tx:
        await users.set_disabled(tx, shut_out, disabled=True)
        await people.put_user(tx, "cleo", None)  # by a provider alone


WRONG = "a wrong one that is long"
REFUSED = {
    "known": ("ann", WRONG),
    "unknown": ("nobody", WRONG),
    "shut out": ("bob", WRONG),
    "shut out, right password": ("bob", ADMIN_PASSWORD),
    "without a password": ("cleo", WRONG),
    "no name at all": ("Nobody\n", WRONG),
}


def shown(answer: httpx.Response) -> tuple[object, ...]:
    """All that a stranger sees but what differs anyway."""
    own = {"x-request-id", "date", "ratelimit"}
    headers = sorted((k, v) for k, v in answer.headers.items() if k not in own)
    return answer.status_code, headers, answer.content


async def test_a_refusal_costs_the_same_whoever_it_is_about(
    world: World, clock: FakeClock, work: Work
) -> None:
    """The same statements in the same order, one hash of the same cost, the same answer."""
    await cast(world)
    seen = {}
    for case, (username, password) in REFUSED.items():
        clock.advance(LOGIN_PER_ADDRESS.refill_s)
        # What is told of the one before is no part of this one's work.
        await world.gateway.parts.refused_logins.tell()
        work.statements.clear()
        work.hashes.clear()
        answer = await world.program().post("/v1/login", json={"username": username, "password": password})
        seen[case] = (work.of_login(), list(work.hashes), shown(answer))
    statements, hashes, answered = seen["unknown"]
    assert (statements.count("BEGIN"), len(hashes), answered[0]) == (2, 1, 401)
    assert not any("audit" in one for one in statements)
    for case, one in seen.items():
        assert one == seen["unknown"], case


# What the audit log says


async def test_each_kind_of_refusal_by_password_is_told(world: World, clock: FakeClock) -> None:
    await cast(world)
    for username, password in REFUSED.values():
        clock.advance(LOGIN_PER_ADDRESS.refill_s)
        await world.program().post("/v1/login", json={"username": username, "password": password})
    await world.gateway.parts.refused_logins.tell(everything=True)
    lines = await told(world)
    async with world.gateway.parts.database.transaction() as tx:
        ids = {row["username"]: str(row["id"]) for row in await tx.fetch("SELECT id, username FROM users")}
    times: Counter[tuple[str | None, str]] = Counter()
    for line in lines:
        times[line["owner"], line["detail"]["reason"]] += line["detail"]["times"]
    assert times == {
        (ids["ann"], "wrong_login"): 1,
        (ids["bob"], "account_disabled"): 2,
        (ids["cleo"], "wrong_login"): 1,
        (None, "wrong_login"): 2,
    }
    assert {line["detail"]["address"] for line in lines} == {"127.0.0.1"}
    assert "obody" not in json.dumps(lines)  # what was typed as a name may be a password


async def test_what_follows_the_first_is_one_line(world: World, clock: FakeClock) -> None:
    await world.add_user("ann")

    async def fail(times: int) -> None:
        for _ in range(times):
            clock.advance(LOGIN_PER_ADDRESS.refill_s)
            body = {"username": "ann", "password": WRONG}
            assert (await world.program().post("/v1/login", json=body)).status_code in {401, 429}

    await fail(1)
    [first] = await told(world, "login.failed")
    await fail(5)
    assert await told(world, "login.failed") == [first]
    clock.advance(WINDOW_S)
    _, second = await told(world, "login.failed")
    assert (second["owner"], second["detail"]["times"]) == (first["owner"], 5)
    assert second["detail"]["followed"] is True
    clock.advance(WINDOW_S)
    assert len(await told(world, "login.failed")) == 2  # nothing came: nothing is told
    await fail(1)
    assert "followed" not in (await told(world, "login.failed"))[-1]["detail"]


async def test_limited_tries_are_told(world: World) -> None:
    program, browser = world.program(), world.browser()
    for number in range(3 * LOGIN_PER_ADDRESS.burst):
        await program.post("/v1/login", json={"username": f"n{number}", "password": WRONG})
    for _ in range(70):
        await browser.post("/v1/login/welcome", json={"secret": "guess"})
    await world.gateway.parts.refused_logins.tell(everything=True)
    lines = await told(world)
    count: Counter[tuple[str, str, str]] = Counter()
    for line in lines:
        count[line["kind"], line["detail"]["way"], line["detail"]["reason"]] += line["detail"]["times"]
    assert count == {
        ("login.failed", "password", "wrong_login"): 15,
        ("login.limited", "password", "too_many_requests"): 30,
        ("login.failed", "welcome", "wrong_login"): 60,
        ("login.limited", "welcome", "too_many_requests"): 10,
    }
    assert len(lines) <= 8


async def test_refusals_by_a_provider_are_told(
    start_world: StartWorld, provider: FreeProvider, tmp_path: Any, clock: FakeClock
) -> None:
    """Denied, replayed, a wrong nonce, an account that is shut out, no account, too often."""
    world = await start_world({"free": provider_settings(tmp_path, provider.url)})
    ada = Visitor(world)
    assert (await ada.log_in(provider)).status_code == 303
    me = await ada.me()
    assert me is not None
    used = ada.asked["state"]
    await ada.begin()
    await ada.come_back(code="x", state=used)
    denied = Visitor(world)
    await denied.begin()
    await denied.come_back(error="access_denied")
    provider.seal = lambda claims: provider.sign(claims | {"nonce": "another"})
    await Visitor(world).log_in(provider)
    provider.seal = provider.sign
    async with world.gateway.parts.database.transaction() as tx:
        await users.set_disabled(tx, UUID(me["id"]), disabled=True)
    await Visitor(world).log_in(provider)
    lines = await told(world)
    assert [(line["detail"]["reason"], line["owner"]) for line in lines] == [
        ("login_not_open", None),
        ("login_denied", None),
        ("provider_refused", None),
        ("account_disabled", me["id"]),
    ]
    assert all(line["detail"]["provider"] == "free" for line in lines)
    whys = [line["detail"]["why"] for line in lines]
    assert whys[:2] == ["an unknown, used or old state", "access_denied"]
    assert "nonce" in whys[2]
    assert "subject-1" not in json.dumps(lines)
    assert "ada@" not in json.dumps(lines)
    for _ in range(PROVIDER_ANSWER_PER_ADDRESS.burst + 1):
        await Visitor(world).http.get("/login/from/free")
    assert (await told(world))[-1]["kind"] == "login.limited"


async def test_no_account_where_none_is_opened(
    start_world: StartWorld, provider: FreeProvider, tmp_path: Any
) -> None:
    world = await start_world({"free": provider_settings(tmp_path, provider.url, sign_up=False)})
    await Visitor(world).log_in(provider)
    [line] = await told(world)
    assert (line["owner"], line["detail"]["reason"]) == (None, "no_account")


# How much of it


async def test_a_flood_from_everywhere_writes_a_bounded_number_of_lines(
    world: World, clock: FakeClock
) -> None:
    refused, ann = RefusedLogins(world.gateway.parts.database, clock), uuid4()
    strangers = 5000
    for number in range(strangers):
        address = f"2001:db8:{number >> 8:x}:{number & 255:x}::1"
        refused.note(Refusal("password", "wrong_login", address))
    # Nobody's place is taken by strangers: what is about an account is told with it.
    refused.note(Refusal("password", "wrong_login", "192.0.2.7", ann))
    await refused.tell()
    lines = await told(world)
    assert len(lines) == ROOM["address"] + 2
    assert [line["owner"] for line in lines if line["owner"] is not None] == [str(ann)]
    assert sum(line["detail"]["times"] for line in lines) == strangers + 1
    [many] = [line for line in lines if line["detail"].get("many_addresses")]
    assert many["detail"]["times"] == strangers - ROOM["address"]
    for number in range(strangers):
        refused.note(Refusal("password", "wrong_login", f"198.51.{number >> 8}.{number & 255}"))
    await refused.tell()
    assert len(await told(world)) == len(lines)
    clock.advance(WINDOW_S)
    await refused.tell()
    assert sum(line["detail"]["times"] for line in await told(world)) == 2 * strangers + 1
    # The rooms are free again.
    refused.note(Refusal("password", "wrong_login", "203.0.113.1"))
    await refused.tell()
    assert (await told(world))[-1]["detail"]["address"] == "203.0.113.1"


async def test_many_addresses_at_one_account_become_one_kind(world: World, clock: FakeClock) -> None:
    refused, ann, bob = RefusedLogins(world.gateway.parts.database, clock), uuid4(), uuid4()
    for number in range(3 * ROOM["account and address"]):
        refused.note(Refusal("password", "wrong_login", f"198.51.100.{number & 255}.{number}", ann))
    refused.note(Refusal("password", "wrong_login", "192.0.2.7", bob))
    await refused.tell()
    lines = await told(world)
    assert len(lines) == ROOM["account and address"] + 2
    by_many = {
        line["owner"]: line["detail"]["times"] for line in lines if line["detail"].get("many_addresses")
    }
    assert by_many == {str(ann): 2 * ROOM["account and address"], str(bob): 1}


async def test_a_network_of_ipv6_is_one(world: World, clock: FakeClock) -> None:
    refused = RefusedLogins(world.gateway.parts.database, clock)
    for number in range(500):
        refused.note(Refusal("password", "wrong_login", f"2001:db8::{number:x}"))
    await refused.tell()
    [line] = await told(world)
    assert (line["detail"]["address"], line["detail"]["times"]) == ("2001:db8::0", 500)


async def test_what_postgres_did_not_take_is_told_later(world: World, clock: FakeClock) -> None:
    database = world.gateway.parts.database
    refused = RefusedLogins(database, clock)
    refused.note(Refusal("password", "wrong_login", "192.0.2.7"))
    database.prepared = False
    with pytest.raises(StoreUnavailableError):
        await refused.tell()
    refused.note(Refusal("password", "wrong_login", "192.0.2.7"))
    database.prepared = True
    await refused.tell()
    [line] = await told(world)
    assert line["detail"]["times"] == 2


async def test_a_gateway_that_ends_tells_what_it_counted(world: World) -> None:
    body = {"username": "nobody", "password": WRONG}
    for _ in range(3):
        assert (await world.program().post("/v1/login", json=body)).status_code == 401
    await world.gateway.close()
    other = await (await World(world.settings, world.clock, world.folder).start()).prepared()
    try:
        assert sum(line["detail"]["times"] for line in await told(other)) == 3
    finally:
        await other.close()


async def test_it_is_told_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = world.gateway.parts.refused_logins
    written = asyncio.Event()
    real = refused.tell

    async def tell(**options: Any) -> None:
        await real(**options)
        written.set()

    monkeypatch.setattr(refused, "tell", tell)
    body = {"username": "nobody", "password": WRONG}
    assert (await world.program().post("/v1/login", json=body)).status_code == 401
    count = 0
    async with asyncio.timeout(10):
        while count == 0:
            await written.wait()
            written.clear()
            async with world.gateway.parts.database.transaction() as tx:
                count = await tx.fetchval("SELECT count(*) FROM audit_events WHERE kind = 'login.failed'")
    assert count == 1
