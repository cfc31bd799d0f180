"""Secrets are planted through every flow, and then looked for: in logs, in the audit log, in every column."""

from __future__ import annotations

import io
import json
import logging
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.policy.clients import OWN_CLIENT
from gateway.store import audit
from runtime.clock import FakeClock
from runtime.logs import JsonFormatter
from tests.gateway.login.conftest import provider_settings
from tests.gateway.login.free_provider import CLIENT_SECRET, FreeProvider
from tests.gateway.login.visitor import Visitor
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
) -> AsyncIterator[World]:
    settings = settings_for(
        tmp_path,
        database_url,
        keys_dir,
        login_providers={"free": provider_settings(tmp_path, provider.url)},
        audit_heads_dir=heads_dir,
        log_level="debug",
    )
    running = World(settings, clock, tmp_path)
    await (await running.start()).prepared()
    yield running
    await running.close()


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
    await visitor.begin()
    await visitor.come_back(code=planted.new("a code that the provider does not know"))


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


async def test_no_secret_is_anywhere_where_somebody_may_read_it(
    world: World, provider: FreeProvider, written: Written, owner_url: str, heads_dir: Path
) -> None:
    planted = Planted()
    await of_passwords(world, planted)
    await of_programs(world, planted)
    await of_providers(world, planted, provider)
    await of_devices(world, planted)
    assert len(planted.secrets) >= 30
    rows = await all_rows(owner_url)
    assert rows["audit_events"].count("session.redeemed") >= 2
    assert written.records > 40
    witness = world.gateway.witness
    assert witness is not None
    await witness.witness()
    places = {"the log": "\n".join(written.lines), **{f"table {name}": text for name, text in rows.items()}}
    places["the signed heads"] = text_of(heads_dir)
    hits = {place: found for place, text in places.items() if (found := planted.found_in(text))}
    assert hits == {}
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
