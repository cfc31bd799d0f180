"""From the click to the session: links, codes, grants, ends. And what a stranger can do: nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import jwt
import pytest

from gateway.keys.signing import kids
from runtime.clock import FakeClock
from tests.gateway.world import Device, Node, OpenedLink, World, open_session, sha256_hex


class Stage:
    """An owner with an online device, and the node that holds it."""

    def __init__(self, world: World, owner: httpx.AsyncClient, device: Device, node: Node) -> None:
        self.world, self.owner, self.device, self.node = world, owner, device, node


@pytest.fixture
async def stage(world: World) -> Stage:
    owner, node = await world.person(), world.node()
    device = await world.enrol(owner)
    await node.connect(device)
    return Stage(world, owner, device, node)


async def test_a_click_link_opens_once(stage: Stage) -> None:
    link = await open_session(stage.owner, stage.device, binding="click")
    racing = await asyncio.gather(
        *(stage.node.redeem(label=link.label, token=link.token, cookie=f"c{n}") for n in range(5))
    )
    assert sorted(a.status_code for a in racing) == [200, 410, 410, 410, 410]
    assert {a.json()["code"] for a in racing if a.status_code == 410} == {"link_used"}
    winner = next(n for n, a in enumerate(racing) if a.status_code == 200)
    session = racing[winner].json()
    assert session["sid"] == link.session
    assert session["device_id"] == stage.device.id
    assert session["device_name"] == "Pump"
    assert session["service"] == "web"
    assert session["service_kind"] == "web"
    assert session["act"] is None
    assert session["user"]["name"] == "admin"
    resolved = await stage.node.resolve(link.label, f"c{winner}")
    assert resolved.json()["sid"] == link.session
    assert (await stage.node.resolve(link.label, "another")).status_code == 404
    assert (await stage.node.resolve("a" * 26, f"c{winner}")).status_code == 404


async def test_the_grant_is_for_this_device_and_service(stage: Stage) -> None:
    link = await open_session(stage.owner, stage.device, service="ssh", binding="click", duration_s=600)
    before = await stage.node.http.get(f"/internal/v1/sessions/{link.session}/grant")
    assert before.status_code == 404  # nobody has used the link yet
    for kind in ("web", "page"):  # a cookie is not for it; and nothing is burnt
        refused = await stage.node.redeem(label=link.label, token=link.token, kind=kind)
        assert refused.json()["code"] in ("wrong_kind", "invalid_field")
    session = (await stage.node.redeem(label=link.label, token=link.token, kind="tcp")).json()
    assert session["service_kind"] == "tcp"
    claims = jwt.decode(session["grant"], options={"verify_signature": False})
    assert claims["aud"] == stage.device.id
    assert claims["svc"] == "ssh"
    assert claims["sid"] == link.session
    assert claims["sub"] == session["user"]["id"]
    assert claims["exp"] == session["expires_at"]
    assert claims["exp"] - claims["iat"] <= 600
    assert claims["jti"].replace("-", "") == session["grant_id"]
    assert claims["jti"] == claims["sid"]
    again = await stage.node.http.get(f"/internal/v1/sessions/{link.session}/grant")
    assert jwt.decode(again.json()["grant"], options={"verify_signature": False})["jti"] == claims["jti"]
    key_list = (await stage.node.http.get("/internal/v1/keys")).json()["key_list"]
    listed = jwt.decode(key_list, options={"verify_signature": False})["keys"]
    assert jwt.get_unverified_header(session["grant"])["kid"] in kids(listed)


async def test_a_browser_link_needs_the_owners_browser(stage: Stage, clock: FakeClock) -> None:
    link = await open_session(stage.owner, stage.device)
    direct = await stage.node.redeem(label=link.label, token=link.token)
    assert (direct.status_code, direct.json()["code"]) == (403, "binding")
    stranger = await stage.world.person("stranger")
    outside = stage.world.browser()
    bearer = stage.world.program(
        (
            await stage.world.program().post(
                "/v1/login", json={"username": "stranger", "password": "correct horse battery staple"}
            )
        ).json()["access_token"]
    )
    for path in ("/v1/links/inspect", "/v1/links/code"):
        assert (await stranger.post(path, json={"token": link.token})).status_code == 404
        assert (await outside.post(path, json={"token": link.token})).status_code == 401
        assert (await bearer.post(path, json={"token": link.token})).status_code == 401
    looked = await stage.owner.post("/v1/links/inspect", json={"token": link.token})
    assert looked.json()["device"] == "Pump"
    assert looked.json()["owner"] == "admin"
    assert looked.json()["service"] == "web"
    issued = (await stage.owner.post("/v1/links/code", json={"token": link.token})).json()
    assert issued["url"] == f"http://{link.label}.localhost:8081/.towline/open#code.{issued['code']}"
    wrong_host = await stage.node.redeem(label="b" * 26, code=issued["code"])
    assert (wrong_host.status_code, wrong_host.json()["code"]) == (400, "bad_link")
    opened = await stage.node.redeem(label=link.label, code=issued["code"])
    assert opened.status_code == 200
    second = await stage.node.redeem(label=link.label, code=issued["code"])
    assert (second.status_code, second.json()["code"]) == (410, "link_used")
    for path in ("/v1/links/inspect", "/v1/links/code"):
        used = await stage.owner.post(path, json={"token": link.token})
        assert (used.status_code, used.json()["code"]) == (410, "link_used")


async def test_looking_consumes_nothing(stage: Stage) -> None:
    link = await open_session(stage.owner, stage.device)
    for _ in range(10):
        assert (await stage.owner.post("/v1/links/inspect", json={"token": link.token})).status_code == 200
    code = (await stage.owner.post("/v1/links/code", json={"token": link.token})).json()["code"]
    assert (await stage.node.redeem(label=link.label, code=code)).status_code == 200


async def test_codes_are_short_lived_and_the_newest_counts(stage: Stage, clock: FakeClock) -> None:
    link = await open_session(stage.owner, stage.device)
    old = (await stage.owner.post("/v1/links/code", json={"token": link.token})).json()["code"]
    new = (await stage.owner.post("/v1/links/code", json={"token": link.token})).json()["code"]
    assert (await stage.node.redeem(label=link.label, code=old)).json()["code"] == "bad_link"
    clock.advance(10.01)
    late = await stage.node.redeem(label=link.label, code=new)
    assert (late.status_code, late.json()["code"]) == (410, "link_expired")


async def test_links_expire(stage: Stage, clock: FakeClock) -> None:
    link = await open_session(stage.owner, stage.device, binding="click")
    clock.advance(stage.world.settings.link_ttl_s)
    late = await stage.node.redeem(label=link.label, token=link.token)
    assert (late.status_code, late.json()["code"]) == (410, "link_expired")


async def test_garbage_is_no_link(stage: Stage) -> None:
    for wrong in ("", "x", "a.b.c", "é"):
        for presented in ({"token": wrong}, {"code": wrong}):
            answer = await stage.node.redeem(label="a" * 26, **presented)
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_link"), presented
    both = await stage.node.redeem(label="a" * 26, token="x", code="y")
    assert both.status_code == 422


async def test_a_links_token_is_for_its_label(stage: Stage) -> None:
    link = await open_session(stage.owner, stage.device, binding="click")
    other = await open_session(stage.owner, stage.device, binding="click")
    answer = await stage.node.redeem(label=other.label, token=link.token)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_link")
    assert (await stage.node.redeem(label=link.label, token=link.token)).status_code == 200


async def assert_known_to_have_ended(stage: Stage, link: OpenedLink) -> None:
    for answer in (
        await stage.node.resolve(link.label),
        await stage.node.http.get(f"/internal/v1/sessions/{link.session}/grant"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (410, "session_ended")


async def test_the_visitor_ends_a_session_everywhere(stage: Stage) -> None:
    link = await open_session(stage.owner, stage.device, binding="click")
    path = f"/internal/v1/sessions/{link.session}/end"
    mine = {"cookie_sha256": sha256_hex("cookie"), "client": "192.0.2.1"}
    assert (await stage.node.http.post(path, json=mine)).status_code == 404  # nobody has used the link yet
    await stage.node.redeem(label=link.label, token=link.token)
    other = {"cookie_sha256": sha256_hex("another")}
    assert (await stage.node.http.post(path, json=other)).status_code == 404
    assert (await stage.node.resolve(link.label)).status_code == 200
    for _ in range(2):
        assert (await stage.node.http.post(path, json=mine)).status_code == 204
    await assert_known_to_have_ended(stage, link)
    assert (await stage.owner.get("/v1/sessions")).json()["items"] == []
    async with stage.world.gateway.parts.database.transaction() as tx:
        entries = await tx.fetch("SELECT kind FROM revocations WHERE ref = $1", link.session)
        audited = await tx.fetch("SELECT record FROM audit_events WHERE kind = 'session.ended'")
    assert [entry["kind"] for entry in entries] == ["session"]
    assert len(audited) == 1
    for said in ("192.0.2.1", "visitor of node-a"):
        assert said in audited[0]["record"]


async def test_ending_a_session(stage: Stage) -> None:
    used = await open_session(stage.owner, stage.device, binding="click")
    fresh = await open_session(stage.owner, stage.device, binding="click")
    await stage.node.redeem(label=used.label, token=used.token)
    listed = (await stage.owner.get("/v1/sessions")).json()["items"]
    assert {item["id"] for item in listed} == {used.session, fresh.session}
    for link in (used, fresh, used):
        assert (await stage.owner.delete(f"/v1/sessions/{link.session}")).status_code == 204
    assert (await stage.owner.get("/v1/sessions")).json()["items"] == []
    await assert_known_to_have_ended(stage, used)
    # The end says itself to who held the cookie, not to who only knows the label.
    assert (await stage.node.resolve(used.label, "another")).status_code == 404
    unused = await stage.node.http.get(f"/internal/v1/sessions/{fresh.session}/grant")
    assert unused.status_code == 404
    late = await stage.node.redeem(label=fresh.label, token=fresh.token)
    assert (late.status_code, late.json()["code"]) == (410, "session_ended")


async def test_sessions_end_by_themselves(stage: Stage, clock: FakeClock) -> None:
    link = await open_session(stage.owner, stage.device, binding="click", duration_s=60)
    await stage.node.redeem(label=link.label, token=link.token)
    clock.advance(61)
    await assert_known_to_have_ended(stage, link)
    assert (await stage.owner.get("/v1/sessions")).json()["items"] == []


async def test_revoking_the_device_ends_its_sessions(stage: Stage) -> None:
    link = await open_session(stage.owner, stage.device, binding="click")
    await stage.node.redeem(label=link.label, token=link.token)
    answer = await stage.owner.post(f"/v1/devices/{stage.device.id}/revoke")
    assert answer.json()["status"] == "revoked"
    assert answer.json()["online"] is False
    await assert_known_to_have_ended(stage, link)
    closed = await stage.owner.post(f"/v1/devices/{stage.device.id}/sessions", json={})
    assert (closed.status_code, closed.json()["code"]) == (409, "device_not_approved")


async def test_a_revocation_that_races_with_opening_leaves_no_session(stage: Stage) -> None:
    path = f"/v1/devices/{stage.device.id}"
    opening = [stage.owner.post(f"{path}/sessions", json={"binding": "click"}) for _ in range(8)]
    await asyncio.gather(*opening[:4], stage.owner.post(f"{path}/revoke"), *opening[4:])
    async with stage.world.gateway.parts.database.transaction() as tx:
        assert await tx.fetchval("SELECT count(*) FROM sessions WHERE ended_at IS NULL") == 0


BAD_REQUESTS: list[tuple[dict[str, Any], int, str, str]] = [
    ({"service": "nope"}, 404, "unknown_service", "service"),
    ({"service": "../etc"}, 422, "invalid_field", "service"),
    ({"duration_s": 4}, 422, "invalid_field", "duration_s"),
    ({"duration_s": 3601}, 422, "invalid_field", "duration_s"),
    ({"duration_s": "60"}, 422, "invalid_field", "duration_s"),
    ({"duration_s": 10**30}, 422, "invalid_field", "duration_s"),
    ({"binding": "none"}, 422, "invalid_field", "binding"),
    ({"address": "127.0.0.1:22"}, 422, "invalid_field", "address"),
]


async def test_bad_requests_for_sessions(stage: Stage) -> None:
    for body, status, code, field in BAD_REQUESTS:
        answer = await stage.owner.post(f"/v1/devices/{stage.device.id}/sessions", json=body)
        told = answer.json()
        assert (answer.status_code, told["code"], told["field"]) == (status, code, field), body
    assert (await stage.owner.get("/v1/sessions")).json()["items"] == []


async def test_offline_and_unapproved_devices_do_not_open(stage: Stage, clock: FakeClock) -> None:
    pending = await stage.world.enrol(stage.owner, approve=False)
    answer = await stage.owner.post(f"/v1/devices/{pending.id}/sessions", json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "device_not_approved")
    never = await stage.world.enrol(stage.owner)
    answer = await stage.owner.post(f"/v1/devices/{never.id}/sessions", json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "device_offline")
    clock.advance(13)
    answer = await stage.owner.post(f"/v1/devices/{stage.device.id}/sessions", json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "device_offline")


async def test_a_person_has_only_so_many_sessions(stage: Stage) -> None:
    parts = stage.world.gateway.parts
    object.__setattr__(parts.settings, "sessions_per_user", 2)
    for _ in range(2):
        await open_session(stage.owner, stage.device)
    answer = await stage.owner.post(f"/v1/devices/{stage.device.id}/sessions", json={})
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_sessions")


async def test_a_stranger_meets_404_everywhere(stage: Stage) -> None:
    """Every call of the owner, replayed as somebody else, answers as if there were nothing."""
    link = await open_session(stage.owner, stage.device)
    pending = await stage.world.enrol(stage.owner, approve=False)
    stranger = await stage.world.person("stranger")
    ghost = "d_" + "z" * 16
    calls: list[tuple[str, str, dict[str, Any] | None]] = [
        ("GET", "/v1/devices/{id}", None),
        ("GET", "/devices/{id}", None),
        ("POST", "/v1/devices/{id}/approve", None),
        ("POST", "/v1/devices/{id}/reject", None),
        ("POST", "/v1/devices/{id}/revoke", None),
        ("POST", "/v1/devices/{id}/sessions", {}),
        ("POST", "/v1/devices/{id}/sessions", {"service": "nope"}),
        ("POST", "/v1/devices/{id}/sessions", {"duration_s": 1}),
    ]
    for method, path, body in calls:
        for device in (stage.device.id, pending.id):
            theirs = await stranger.request(method, path.format(id=device), json=body)
            nothing = await stranger.request(method, path.format(id=ghost), json=body)
            assert theirs.status_code == nothing.status_code == 404, path
            assert theirs.content == nothing.content
    ended = await stranger.delete(f"/v1/sessions/{link.session}")
    assert ended.status_code == 404
    assert (
        ended.content == (await stranger.delete(f"/v1/sessions/{pending.enrolment['enrolment_id']}")).content
    )
    assert (await stranger.get("/v1/sessions")).json()["items"] == []
    assert (await stranger.get("/v1/devices")).json()["items"] == []
    assert (await stage.owner.get(f"/v1/devices/{stage.device.id}")).json()["status"] == "approved"
    assert (await stage.owner.get(f"/v1/devices/{pending.id}")).json()["status"] == "pending"
    assert len((await stage.owner.get("/v1/sessions")).json()["items"]) == 1


async def test_link_tokens_codes_and_cookies_are_not_in_the_database(stage: Stage) -> None:
    link = await open_session(stage.owner, stage.device)
    code = (await stage.owner.post("/v1/links/code", json={"token": link.token})).json()["code"]
    session = (await stage.node.redeem(label=link.label, code=code, cookie="the-cookie")).json()
    async with stage.world.gateway.parts.database.transaction() as tx:
        tables = await tx.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        text = ""
        for row in tables:
            lines = await tx.fetch(f"SELECT t::text AS line FROM {row['tablename']} t")
            text += "\n".join(line["line"] for line in lines)
    assert link.session in text
    for secret in (link.token, code, "the-cookie", session["grant"], stage.device.enrolment["poll_secret"]):
        assert secret not in text
    assert sha256_hex("the-cookie") in text
