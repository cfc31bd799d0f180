"""Secrets are planted through every flow, and then looked for: in logs, in the audit log, in every column."""

from __future__ import annotations

import io
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from redis.asyncio import Redis

from gateway.policy.clients import OWN_CLIENT
from gateway.settings import Settings
from gateway.store import audit
from runtime.clock import Clock, FakeClock
from runtime.logs import JsonFormatter
from testbed.redis_server import RedisServer
from tests.gateway.login.conftest import provider_settings
from tests.gateway.login.free_provider import CLIENT_SECRET, FreeProvider
from tests.gateway.login.visitor import FLOW_COOKIE, Visitor
from tests.gateway.test_claims import claim_as, new_token
from tests.gateway.test_native_apps import CLIENTS, App
from tests.gateway.test_places import home
from tests.gateway.test_support import Case, engineer_of
from tests.gateway.world import (
    ADMIN_PASSWORD,
    ORIGIN,
    WELCOME_SECRET,
    World,
    make_csr,
    open_session,
    settings_for,
    sha256_hex,
)

# The tests' own side of each connection writes what it likes.
OURS = ("httpx", "httpcore", "asyncio", "tests")


@dataclass
class Written:
    """Everything that is logged, as the product writes it."""

    stream: io.StringIO = field(default_factory=io.StringIO)
    records: int = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.records += 1

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().removesuffix("\n").split("\n")


@pytest.fixture
def written() -> Iterator[Written]:
    """All levels: what debugging would show is a log, too."""
    found = Written()

    class Counting(logging.StreamHandler[io.StringIO]):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name.partition(".")[0] not in OURS:
                found.emit(record)
                super().emit(record)

    handler, root = Counting(found.stream), logging.getLogger()
    handler.setFormatter(JsonFormatter("gateway"))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield found
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
async def world(
    tmp_path: Path,
    database_url: str,
    keys_dir: Path,
    clock: FakeClock,
    provider: FreeProvider,
    heads_dir: Path,
    written: Written,
    redis_server: RedisServer,
) -> AsyncIterator[Overheard]:
    settings = settings_for(
        tmp_path,
        database_url,
        keys_dir,
        login_providers={"free": provider_settings(tmp_path, provider.url)},
        native_clients=CLIENTS,
        redis_url=redis_server.url(),
        audit_heads_dir=heads_dir,
        log_level="debug",
    )
    running = Overheard(settings, clock, tmp_path)
    await (await running.start()).prepared()
    yield running
    await running.close()


class Overheard(World):
    """Keeps what the gateway answered to anybody. `shown` are the answers in which a secret is shown once."""

    def __init__(self, settings: Settings, clock: Clock, folder: Path) -> None:
        super().__init__(settings, clock, folder)
        self.heard: list[tuple[str, str, str]] = []
        """Where, all its headers, its body."""

    def _keep(self, client: httpx.AsyncClient) -> httpx.AsyncClient:
        client.event_hooks["response"].append(self._hear)
        return super()._keep(client)

    async def _hear(self, answer: httpx.Response) -> None:
        where = f"{answer.request.method} {answer.request.url.path}"
        self.heard.append((where, str(answer.headers.raw), (await answer.aread()).decode()))


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def provider(clock: FakeClock) -> Iterator[FreeProvider]:
    running = FreeProvider(clock.wall)
    yield running
    running.close()


class Planted:
    """The canaries, by where they were planted."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}

    def add(self, name: str, secret: str) -> str:
        assert len(secret) >= 16, name
        self.secrets[name] = secret
        return secret

    def new(self, name: str) -> str:
        return self.add(name, f"canary-{secrets.token_urlsafe(18)}")

    def found_in(self, text: str) -> list[str]:
        """Also as bytes are written, and by the part of a token that alone is secret."""
        hits = []
        for name, secret in self.secrets.items():
            part = secret.rpartition(".")[2] if secret.count(".") == 2 else secret
            if any(form in text for form in (secret, part, secret.encode().hex())):
                hits.append(name)
        return hits


async def of_passwords(world: World, planted: Planted) -> None:
    planted.add("administrator's password", ADMIN_PASSWORD)
    planted.add("welcome secret", WELCOME_SECRET)
    admin = await world.person()
    password = planted.new("person's password")
    made = await admin.post("/v1/users", json={"username": "carla", "password": password})
    assert made.status_code == 201, made.text
    for body in (
        {"username": "carla", "password": planted.new("wrong password")},
        {"username": planted.new("password in the name's field"), "password": "x"},
        {"username": "carla", "password": [planted.new("password of a wrong type")]},
        {"username": "carla", planted.new("password as a member's name"): 1},
        {"username": "carla", "password": password, "refresh": planted.new("in another member")},
    ):
        assert (await world.browser().post("/v1/login", json=body)).status_code in {401, 422}
    broken = b'{"username": "carla", "password": "' + planted.new("in broken JSON").encode()
    headers = {"content-type": "application/json"}
    assert (await world.browser().post("/v1/login", content=broken, headers=headers)).status_code == 400
    assert (await world.browser().post("/v1/login/welcome", json={"secret": WELCOME_SECRET})).is_success
    browser = await world.browser().post("/v1/login", json={"username": "carla", "password": password})
    planted.add("login cookie", browser.cookies["towline_login"])


async def of_programs(world: World, planted: Planted) -> None:
    body = {"username": "carla", "password": planted.secrets["person's password"], "refresh": True}
    answer = (await world.program().post("/v1/login", json=body)).json()
    access = planted.add("access token", answer["access_token"])
    refresh = planted.add("refresh token", answer["refresh_token"])
    asked = {"grant_type": "refresh_token", "refresh_token": refresh, "client_id": OWN_CLIENT}
    first = await world.program().post("/v1/oauth/token", data=asked)
    assert first.is_success, first.text
    planted.add("second refresh token", first.json()["refresh_token"])
    program = world.program(access)
    made = await program.post("/v1/me/api-tokens", json={"name": "script", "scopes": ["devices:read"]})
    api_token = planted.add("API token", made.json()["token"])
    assert (await world.program(api_token).get("/v1/devices")).is_success
    for header in (f"Bearer {planted.new('a Bearer that is none')}", f"Basic {planted.new('Basic')}"):
        stranger = world.program()
        answer_ = await stranger.get("/v1/me", headers={"authorization": header})
        assert answer_.status_code == 401
    await world.program().get("/v1/me", headers={"cookie": f"towline_login={planted.new('a false cookie')}"})
    await world.program().get(f"/v1/me?access_token={planted.new('in a query')}")
    asked["refresh_token"] = planted.new("a refresh token that is none")
    assert (await world.program().post("/v1/oauth/token", data=asked)).status_code == 400


async def of_providers(world: World, planted: Planted, provider: FreeProvider) -> None:
    planted.add("provider's client secret", CLIENT_SECRET)
    visitor = Visitor(world)
    assert (await visitor.log_in(provider)).status_code == 303
    planted.add("state", visitor.asked["state"])
    planted.add("login cookie by provider", visitor.cookie or "")
    for request in provider.received:
        for name in ("code", "code_verifier"):
            if name in request.form:
                planted.add(f"provider's {name}", request.form[name])
    assert "provider's code_verifier" in planted.secrets
    for number, given in enumerate(provider.given):
        for name in ("access_token", "id_token"):
            planted.add(f"provider's {name} {number}", given[name])
    assert provider.given
    await visitor.begin()
    await visitor.come_back(code=planted.new("a code that the provider does not know"))
    await visitor.begin()  # and stays under way: the short-lived store holds something
    planted.add("state of a login under way", visitor.asked["state"])
    planted.add("flow cookie", visitor.http.cookies[FLOW_COOKIE])


async def of_apps(world: World, planted: Planted) -> None:
    person = world.browser()
    body = {"username": "carla", "password": planted.secrets["person's password"]}
    assert (await person.post("/v1/login", json=body)).is_success
    app, other = App(), App()
    planted.add("app's verifier", app.verifier)
    code = planted.add("app's code", (await app.ask(person))["code"])
    given = (await app.trade(world, code)).json()
    planted.add("app's access token", given["access_token"])
    planted.add("app's refresh token", given["refresh_token"])
    planted.add("verifier of a code that fell", other.verifier)
    fell = planted.add("code that fell", (await other.ask(person))["code"])
    wrong = planted.new("wrong verifier") + "x" * 20
    assert (await other.trade(world, fell, code_verifier=wrong)).status_code == 400
    assert (await other.trade(world, fell)).status_code == 400
    assert (await other.trade(world, planted.new("app's code that is none"))).status_code == 400


async def of_claims_and_support(world: World, planted: Planted) -> None:
    ann, engineer = await home(world, "ann"), await engineer_of(world)
    device, node = await world.enrol(ann.http), world.node("node-b")
    await node.connect(device)
    case = Case(world, ann, engineer, device, node)
    await case.consented()
    link, cookie = await case.opened(), planted.new("engineer's cookie")
    coded = await engineer.http.post(
        "/v1/links/code", json={"token": planted.add("support link", link.token)}
    )
    code = planted.add("support code", coded.json()["code"])
    told = await node.redeem(label=link.label, cookie=cookie, code=code)
    planted.add("support grant", told.json()["grant"])
    secret = planted.new("in the query of a logged request")
    entry = {"status": 200, "received": 0, "sent": 0, "ms": 1, "at": world.clock.wall(), "method": "GET"}
    entry |= {"id": str(uuid4()), "sid": link.session, "path": f"/status?token={secret}"}
    logged = await node.http.post("/internal/v1/request-log", json={"entries": [entry]})
    assert logged.status_code == 204, logged.text
    assert (await ann.http.post(f"/v1/devices/{device.id}/release")).is_success
    bob = await home(world, "bob")
    token = planted.add("claim token", await new_token(bob))
    refused = await claim_as(world, device, planted.new("a claim token that is none"))
    assert not refused.is_success
    assert (await claim_as(world, device, token)).is_success
    key = {"idempotency-key": planted.new("idempotency key")}
    made = [await bob.http.post("/v1/registration-tokens", json={}, headers=key) for _ in range(2)]
    assert made[0].json() == made[1].json()
    planted.add("token of a repeated answer", made[0].json()["token"])
    assert (await bob.http.post("/v1/orgs", json={"name": ""}, headers=key)).status_code == 422


async def all_of_redis(server: RedisServer) -> dict[str, str]:
    """Keys and values, bytes in hexadecimal beside their text."""
    client = Redis.from_url(server.url())
    try:
        found = {}
        async for key in client.scan_iter():
            assert await client.type(key) == b"string", key
            value = await client.get(key)
            assert isinstance(value, bytes)
            found[f"key {key.decode()}"] = f"{key.decode()} {value.decode(errors='replace')} {value.hex()}"
        return found
    finally:
        await client.aclose()


IDS = re.compile(r"\b([dos]_[a-z2-7]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")


def answered(world: Overheard, planted: Planted) -> dict[str, set[str]]:
    """Which secrets were in the answers of which route; what came in a header is marked so."""
    found: dict[str, set[str]] = {}
    for where, headers, body in world.heard:
        names = set(planted.found_in(body)) | {f"header: {name}" for name in planted.found_in(headers)}
        if names:
            found.setdefault(IDS.sub("*", where), set()).update(names)
    return found


async def of_devices(world: World, planted: Planted) -> None:
    owner = await world.person("dora", planted.new("owner's password"))
    token = (await owner.post("/v1/registration-tokens", json={"approve": True})).json()["token"]
    planted.add("registration token", token)
    device = await world.enrol(owner)
    for name, value in device.enrolment.items():
        if "secret" in name:
            planted.add(f"enrolment's {name}", value)
    key = ec.generate_private_key(ec.SECP256R1())
    body = {"token": token, "csr": make_csr(key), "name": "Two", "hardware_id": "hw-two", "software": "1"}
    assert (await world.program().post("/v1/enrolments", json=body)).status_code == 201
    body["token"] = planted.new("a registration token that is none")
    assert not (await world.program().post("/v1/enrolments", json=body)).is_success
    org = (await owner.get("/v1/sites")).json()["items"][0]["org_id"]
    invited = await owner.post(f"/v1/orgs/{org}/invitations", json={"role": "member"})
    planted.add("invitation", invited.json()["token"])
    node = world.node()
    await node.connect(device)
    await of_sessions(world, planted, owner, device, node)


async def of_sessions(
    world: World, planted: Planted, owner: httpx.AsyncClient, device: Any, node: Any
) -> None:
    cookie = planted.new("visitor's cookie")
    link = await open_session(owner, device, binding="click")
    planted.add("link", link.token)
    answer = await node.redeem(label=link.label, cookie=cookie, token=link.token)
    assert answer.is_success, answer.text
    planted.add("grant", answer.json()["grant"])
    assert (await node.resolve(link.label, cookie)).is_success
    assert not (await node.redeem(label=link.label, cookie=cookie, token=link.token)).is_success
    bound = await open_session(owner, device)
    planted.add("bound link", bound.token)
    code = (await owner.post("/v1/links/code", json={"token": bound.token})).json()["code"]
    planted.add("one-time code", code)
    used = await node.redeem(label=bound.label, cookie=cookie, code=code)
    assert used.is_success, used.text
    await owner.post("/v1/links/inspect", json={"token": planted.new("a link that is none")})
    ended = await node.http.post(
        f"/internal/v1/sessions/{link.session}/end", json={"cookie_sha256": sha256_hex(cookie), "client": "x"}
    )
    assert ended.is_success, ended.text


async def all_rows(url: str) -> dict[str, str]:
    """Each table's rows as text, bytes in hexadecimal."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        )
        return {
            row["relname"]: "\n".join(
                one["t"] for one in await connection.fetch(f"SELECT t::text AS t FROM {row['relname']} t")
            )
            for row in tables
        }
    finally:
        await connection.close()


def text_of(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.iterdir()))


# Each secret is told once to whom it is for, and by these alone (nodes get the grants).
SHOWN: dict[str, set[str]] = {
    "GET /login/from/free": {"header: login cookie by provider"},
    "GET /login/with/free": {"header: flow cookie", "header: state of a login under way", "header: state"},
    "POST /internal/v1/links/redeem": {"support grant", "grant"},
    "POST /internal/v1/sessions/resolve": {"grant"},
    "POST /v1/devices/*/sessions": {"support link", "link", "bound link"},
    "POST /v1/enrolments": {"enrolment's poll_secret"},
    "POST /v1/links/code": {"one-time code", "support code"},
    "POST /v1/login": {"refresh token", "header: login cookie", "access token"},
    "POST /v1/me/api-tokens": {"API token"},
    "POST /v1/oauth/authorize": {"code that fell", "app's code"},
    "POST /v1/oauth/token": {"second refresh token", "app's refresh token", "app's access token"},
    "POST /v1/orgs/*/invitations": {"invitation"},
    "POST /v1/registration-tokens": {"claim token", "registration token", "token of a repeated answer"},
}


async def test_no_secret_is_anywhere_where_somebody_may_read_it(
    world: Overheard,
    provider: FreeProvider,
    written: Written,
    owner_url: str,
    heads_dir: Path,
    redis_server: RedisServer,
) -> None:
    planted = Planted()
    await of_passwords(world, planted)
    await of_programs(world, planted)
    await of_providers(world, planted, provider)
    await of_devices(world, planted)
    await of_apps(world, planted)
    await of_claims_and_support(world, planted)
    assert len(planted.secrets) >= 30
    rows = await all_rows(owner_url)
    assert rows["audit_events"].count("session.redeemed") >= 2
    assert written.records > 40
    witness = world.gateway.witness
    assert witness is not None
    await witness.witness()
    places = {"the log": "\n".join(written.lines), **{f"table {name}": text for name, text in rows.items()}}
    places["the signed heads"] = text_of(heads_dir)
    redis = await all_of_redis(redis_server)
    assert any("one-time" in key for key in redis)
    places |= redis
    hits = {place: found for place, text in places.items() if (found := planted.found_in(text))}
    assert hits == {}
    assert answered(world, planted) == SHOWN
    # The looking itself finds what is there.
    assert planted.found_in(f"x{planted.secrets['link']}y") == ["link"]
    assert Planted.found_in(planted, planted.secrets["API token"].encode().hex()) == ["API token"]


HOSTILE = ("\r\n", "\n", "\x00", "\x1b[2J", "\x85", "\u2028", "\u202e", '"}\n{"event": "forged"', "%0a%0d")


async def test_a_line_of_the_log_is_one_event_whatever_strangers_send(world: World, written: Written) -> None:
    owner = await world.person("erik")
    device = await world.enrol(owner)
    forged = '{"event":"forged","level":"error"}'
    for bad in HOSTILE:
        text = f"x{bad}{forged}"
        await world.browser().post("/v1/login", json={"username": text, "password": text})
        await owner.patch(f"/v1/devices/{device.id}", json={"name": text, "tags": [text]})
        await owner.post("/v1/orgs", json={"name": text})
        token = (await owner.post("/v1/registration-tokens", json={"approve": True})).json()["token"]
        key = ec.generate_private_key(ec.SECP256R1())
        body = {"token": token, "csr": make_csr(key), "name": text, "hardware_id": text, "software": text}
        await world.program().post("/v1/enrolments", json=body)
        await world.program().get("/v1/" + "".join(f"%{byte:02x}" for byte in text.encode()))
        headers = {"x-forwarded-for": text.encode("utf-8").translate(None, b"\r\n\x00\x1b"), "origin": ORIGIN}
        await world.program().get("/v1/me", headers=headers)  # type: ignore[arg-type]
    assert len(written.lines) == written.records
    events = [json.loads(line) for line in written.lines]
    assert {event["service"] for event in events} == {"gateway"}
    assert "forged" not in {event["event"] for event in events}
    assert any("forged" in str(event.get("path")) for event in events)
    async with world.gateway.parts.database.transaction() as tx:
        rows = await audit.chain(tx, 0)
    assert all("\n" not in row.record and row.record.isascii() for row in rows)
