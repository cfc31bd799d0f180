"""Headers, addresses, problems and pages: what every answer has in common."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from gateway.api.edge import client_address
from gateway.general_limit import BURST_S
from gateway.policy.access import Staff
from gateway.store import users
from runtime.client_address import TrustedProxies
from runtime.clock import FakeClock
from tests.gateway.world import ADMIN_PASSWORD, World, open_session, settings_for

HTML = {"accept": "text/html,*/*"}


@pytest.fixture
async def tls_world(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> AsyncIterator[World]:
    settings = settings_for(
        tmp_path,
        database_url,
        keys_dir,
        public_url="https://gateway.example.com",
        welcome_secret_file=None,
        tunnel_scheme="https",
        tunnel_domain="tunnel.example.net",
        tunnel_port=None,
        trusted_proxies=("127.0.0.1",),
        agents_trust_server_ca=False,
    )
    running = World(settings, clock, tmp_path)
    await (await running.start()).prepared()
    yield running
    await running.close()


class Page(HTMLParser):
    """Collects what a strict page must not have, and its buttons and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.sources: list[str] = []
        self.buttons: list[dict[str, str | None]] = []
        self.text = ""
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self._script = tag == "script"
        if tag == "style" or (tag == "script" and "src" not in names):
            self.inline.append(tag)
        self.inline += [name for name in names if name.startswith("on") or name == "style"]
        self.sources += [value for name, value in attrs if name in {"src", "href"} and value]
        if tag == "button":
            self.buttons.append(names)

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.inline.append(data)
        self.text += data


async def every_page(world: World, owner: httpx.AsyncClient, device_id: str) -> dict[str, httpx.Response]:
    asked = await asked_for_support(world, device_id)
    good = ["/", f"/devices/{device_id}", f"/support/{asked}", "/login", "/welcome", "/open"]
    # No such provider: what a browser sees that came back from one for nothing.
    paths = [*good, "/devices/d_none", f"/support/{uuid4()}", "/login/from/none?state=x&code=y", "/nothing"]
    return {path: await owner.get(path, headers=HTML) for path in paths}


async def asked_for_support(world: World, device_id: str) -> str:
    """The id of a request about that device, by staff of the installation."""
    engineer = await world.person("sue")
    async with world.gateway.parts.database.transaction() as tx:
        await users.set_staff(tx, UUID((await engineer.get("/v1/me")).json()["id"]), Staff.SUPPORT)
    asked = await engineer.post(f"/v1/devices/{device_id}/support-requests", json={"reason": "E42"})
    assert asked.status_code == 201, asked.text
    return str(asked.json()["id"])


async def test_pages_have_no_inline_script_and_strict_headers(world: World) -> None:
    owner, node = await world.person(), world.node()
    device = await world.enrol(owner)
    await node.connect(device)
    await open_session(owner, device)
    pages = await every_page(world, owner, device.id)
    assert [p.status_code for p in pages.values()] == [200] * 6 + [404] * 4
    for path, answer in pages.items():
        page = Page(answer.text)
        assert page.inline == [], path
        assert all(source.startswith("/") and not source.startswith("//") for source in page.sources), path
        for source in page.sources:
            if source.startswith("/static/"):
                assert (await owner.get(source)).status_code == 200, source
        check_headers(answer)
        assert answer.headers["cache-control"] == "no-store"
    for answer in (await owner.get("/v1/me"), await owner.get("/v1/devices/none"), await owner.get("/livez")):
        check_headers(answer)


def check_headers(answer: httpx.Response) -> None:
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in answer.headers


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' autofocus onfocus='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "</title><svg/onload=alert(1)>",
]


async def test_hostile_names_stay_text(world: World) -> None:
    owner, node = await world.person(), world.node()
    for name in HOSTILE:
        device = await world.enrol(owner, name=name)
        event = node.event(device, software=name, error=name)
        await node.report(event, {**event, "state": "disconnected"})
        page = Page((await owner.get(f"/devices/{device.id}", headers=HTML)).text)
        assert page.inline == []
        assert page.text.count(name) >= 4  # title, heading, software, last error
    listed = Page((await owner.get("/", headers=HTML)).text)
    assert listed.inline == []
    assert all(name in listed.text for name in HOSTILE)


async def test_the_open_button_follows_presence(world: World, clock: FakeClock) -> None:
    owner, node = await world.person(), world.node()
    device = await world.enrol(owner)

    async def button() -> list[dict[str, str | None]]:
        page = Page((await owner.get(f"/devices/{device.id}", headers=HTML)).text)
        return [b for b in page.buttons if b.get("data-action") == "open"]

    assert await button() == []
    await node.connect(device)
    (shown,) = await button()  # the tcp service has none
    assert shown["data-service"] == "web"
    assert "disabled" not in shown
    clock.advance(60)
    (shown,) = await button()
    assert "disabled" in shown


async def test_pages_ask_for_the_login_and_come_back(world: World) -> None:
    for path in ("/", "/devices/d_aaaaaaaaaaaaaaaa"):
        answer = await world.browser().get(path, headers=HTML)
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/login?next={path}"


def test_scripts_never_make_markup() -> None:
    scripts = Path(__file__).parents[2] / "gateway/api/static"
    for script in scripts.glob("*.js"):
        text = script.read_text()
        for danger in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function("):
            assert danger not in text, script
    own_path = re.search(r"return (/\^.*/)\.test", (scripts / "call.js").read_text())
    assert own_path is not None
    pattern = re.compile(own_path[1].strip("/").replace("\\/", "/"))
    assert pattern.search("/devices/d_a")
    for evil in (
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/\n/evil",
        "",
    ):
        assert not pattern.search(evil), evil


async def test_over_tls_the_cookie_is_bound_to_the_host(tls_world: World) -> None:
    headers = {"origin": "https://gateway.example.com"}
    body = {"username": "admin", "password": ADMIN_PASSWORD}
    answer = await tls_world.program().post("/v1/login", json=body, headers=headers)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-towline_login=")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    assert (await tls_world.program().post("/v1/login/welcome", json={"secret": "x"})).status_code == 404
    name, _, value = cookie.partition(";")[0].partition("=")
    owner = tls_world.program()
    owner.headers["cookie"] = f"{name}={value}"
    owner.headers.update(headers)
    device = await tls_world.enrol(owner)
    await tls_world.node().connect(device)
    created = (await owner.post(f"/v1/devices/{device.id}/sessions", json={})).json()
    assert re.fullmatch(
        r"https://[a-z2-7]{26}\.tunnel\.example\.net/\.towline/open#ey[\w.-]+", created["url"]
    )
    enrolment = tls_world.program(device.enrolment["poll_secret"])
    answer = await enrolment.get(f"/v1/enrolments/{device.enrolment['enrolment_id']}")
    assert answer.json()["server_ca"] is None


async def test_addresses_behind_a_proxy_are_limited_apart(tls_world: World) -> None:
    async def tries(address: str) -> list[int]:
        body = {"username": f"nobody-{address}", "password": "x"}
        headers = {"x-forwarded-for": f"203.0.113.9, {address}"}
        program = tls_world.program()
        return [(await program.post("/v1/login", json=body, headers=headers)).status_code for _ in range(12)]

    assert (await tries("198.51.100.1"))[-1] == 429
    assert (await tries("198.51.100.2"))[0] == 401


TRUSTED = TrustedProxies(("127.0.0.1/32", "10.0.0.0/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.7, 10.1.2.3", "198.51.100.7"),
        ("127.0.0.1", "198.51.100.7, garbage", "127.0.0.1"),
        ("127.0.0.1", "10.9.9.9", "10.9.9.9"),
        ("198.51.100.9", "1.1.1.1", "198.51.100.9"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_only_our_proxies_are_believed(peer: str, forwarded: str | None, address: str) -> None:
    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
    scope: dict[str, Any] = {"client": (peer, 1), "headers": headers}
    assert client_address(scope, TRUSTED) == address


async def test_problems_have_one_shape(world: World) -> None:
    owner = await world.person()
    answers = [
        await owner.get("/v1/nothing"),
        await owner.put("/v1/devices"),
        await owner.get("/v1/devices/x"),
        await owner.delete("/v1/sessions/x"),
        await world.browser().get("/v1/me"),
        await owner.post("/v1/links/code", json={"token": "x"}),
    ]
    for answer, status in zip(answers, (404, 405, 404, 422, 401, 400), strict=True):
        body = answer.json()
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert body["status"] == status
        assert set(body) - {"field"} == {"type", "title", "status", "code", "detail"}
    assert answers[4].headers["www-authenticate"].startswith("Bearer")


async def test_odd_characters_are_refused_and_not_a_failure(world: World) -> None:
    owner = await world.person()
    for odd in ("%00", "%ff", "%F0%9F%90%99", "d_%00aaaaaaaaaaaaaaa", "..%2f..", "%E2%80%AE"):
        for path in ("/v1/devices/{}", "/devices/{}", "/v1/devices/{}/nothing", "/static/{}", "/{}"):
            assert (await owner.get(path.format(odd))).status_code == 404, (path, odd)
        assert (await owner.post(f"/v1/devices/{odd}/certificate/challenge")).status_code == 404
        assert (await owner.get(f"/v1/devices?cursor={odd}")).status_code == 422
    for text in ("a\x00", "\ud800", "a\u202eb"):
        body = {"username": text, "password": "x"}
        content = json.dumps(body)
        answer = await owner.post("/v1/login", content=content, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["field"]) == (422, "username")
    password = {"username": "admin", "password": "\x00\ud800"}
    answer = await owner.post(
        "/v1/login", content=json.dumps(password), headers={"content-type": "application/json"}
    )
    assert answer.status_code in {401, 422}


async def test_a_failure_is_told_as_such(
    world: World, owner_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    owner = await world.person()
    await world.enrol(owner)
    connection = await asyncpg.connect(owner_url)
    await connection.execute("ALTER TABLE devices RENAME COLUMN software TO gone")
    await connection.close()
    answer = await owner.get("/v1/devices")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "column" not in answer.text
    assert any(r.getMessage() == "request failed" and r.exc_info for r in caplog.records)
    assert (await owner.get("/v1/me")).status_code == 200


async def test_metrics_count(world: World) -> None:
    await world.person()
    await world.browser().get("/v1/me")
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://{world.gateway.ops_address}/metrics")).text
    assert 'towline_gateway_requests_total{listener="public",status="401"} 1' in text
    assert 'towline_gateway_logins_total{result="ok"} 1' in text
    assert "towline_gateway_request_seconds_count" in text


async def test_pages_count_as_calls_do(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> None:
    settings = settings_for(tmp_path, database_url, keys_dir, requests_per_login_s=1)
    world = await (await World(settings, clock, tmp_path).start()).prepared()
    try:
        owner = await world.person()
        pages = [await owner.get("/", headers=HTML) for _ in range(BURST_S + 1)]
        assert [page.status_code for page in pages] == [200] * BURST_S + [429]
        assert "Too many requests" in pages[-1].text
        assert int(pages[-1].headers["retry-after"]) == 1
        assert (await owner.get("/v1/devices")).status_code == 429
    finally:
        await world.close()
