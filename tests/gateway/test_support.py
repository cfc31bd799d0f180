"""Support with consent, from the question to the log that the owner reads."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.access import Staff
from gateway.policy.support import REQUEST_TTL_S, Move, State, moved, state_at
from gateway.store import users
from runtime.clock import FakeClock
from tests.gateway.test_api_tokens import rfc3339
from tests.gateway.test_claims import claim_as
from tests.gateway.test_places import Home, home, join
from tests.gateway.world import Device, Node, OpenedLink, World, open_session


class Case:
    """An owner with a device, and an engineer of the installation's support."""

    def __init__(self, world: World, owner: Home, engineer: Home, device: Device, node: Node) -> None:
        self.world, self.owner, self.engineer, self.device, self.node = world, owner, engineer, device, node

    async def ask(self, **body: Any) -> httpx.Response:
        asked = {"reason": "The pump reports E42", **body}
        return await self.engineer.http.post(f"/v1/devices/{self.device.id}/support-requests", json=asked)

    async def consented(self, **body: Any) -> str:
        """The id of a request that the owner approved."""
        asked = await self.ask()
        assert asked.status_code == 201, asked.text
        request_id: str = asked.json()["id"]
        approved = await self.decide(request_id, "approve", **body)
        assert approved.status_code == 200, approved.text
        return request_id

    async def decide(self, request_id: str, move: str, **body: Any) -> httpx.Response:
        return await self.owner.http.post(f"/v1/support-requests/{request_id}/{move}", json=body)

    async def opened(self) -> OpenedLink:
        return await open_session(self.engineer.http, self.device)

    async def revoked(self) -> list[str]:
        async with self.world.gateway.parts.database.transaction() as tx:
            return [
                row["ref"] for row in await tx.fetch("SELECT ref FROM revocations WHERE kind = 'session'")
            ]


async def engineer_of(world: World) -> Home:
    engineer = await home(world, "sue")
    async with world.gateway.parts.database.transaction() as tx:
        await users.set_staff(tx, UUID(engineer.id), Staff.SUPPORT)
    return engineer


@pytest.fixture
async def case(world: World) -> Case:
    owner, engineer = await home(world, "ann"), await engineer_of(world)
    device, node = await world.enrol(owner.http), world.node()
    await node.connect(device)
    return Case(world, owner, engineer, device, node)


async def test_nothing_opens_without_a_yes(case: Case) -> None:
    sessions = f"/v1/devices/{case.device.id}/sessions"
    assert (await case.engineer.http.post(sessions, json={})).status_code == 404
    asked = (await case.ask(duration_s=600)).json()
    assert (asked["state"], asked["engineer"], asked["yours_to_decide"]) == ("pending", "sue", False)
    assert (await case.engineer.http.post(sessions, json={})).status_code == 404
    seen = (await case.owner.http.get("/v1/support-requests")).json()["items"]
    assert [(one["id"], one["reason"], one["yours_to_decide"]) for one in seen] == [
        (asked["id"], "The pump reports E42", True)
    ]
    own = await case.engineer.http.post(f"/v1/support-requests/{asked['id']}/approve", json={})
    assert own.status_code == 403  # nobody consents for the owner
    await case.decide(asked["id"], "refuse")
    assert (await case.engineer.http.post(sessions, json={})).status_code == 404


async def test_a_consent_opens_that_device_for_its_time(case: Case, clock: FakeClock) -> None:
    request_id = await case.consented(duration_s=600)
    device = (await case.engineer.http.get(f"/v1/devices/{case.device.id}")).json()
    assert (device["name"], device["role"]) == ("Pump", None)
    link = await case.opened()
    coded = (await case.engineer.http.post("/v1/links/code", json={"token": link.token})).json()
    told = (await case.node.redeem(label=link.label, code=coded["code"])).json()
    assert (told["user"]["name"], told["act"]["name"]) == ("ann", "sue")
    claims = jwt.decode(told["grant"], options={"verify_signature": False})
    assert (claims["sub"], claims["act"]) == (case.owner.id, {"sub": case.engineer.id})
    assert claims["exp"] - clock.wall() <= 600
    other = await case.world.enrol(case.owner.http)
    assert (await case.engineer.http.get(f"/v1/devices/{other.id}")).status_code == 404
    clock.advance(601)
    assert (await case.engineer.http.get(f"/v1/devices/{case.device.id}")).status_code == 404
    over = (await case.owner.http.get(f"/v1/support-requests/{request_id}")).json()
    assert over["state"] == "expired"
    assert (await case.ask()).status_code == 201


@pytest.mark.parametrize("who", ["owner", "engineer"])
async def test_either_side_ends_it(case: Case, who: str) -> None:
    request_id = await case.consented()
    link = await case.opened()
    ended = await getattr(case, who).http.post(f"/v1/support-requests/{request_id}/end")
    assert (ended.json()["state"], ended.json()["ended_by"]) == ("ended", "ann" if who == "owner" else "sue")
    assert await case.revoked() == [link.session]
    again = await case.owner.http.post(f"/v1/support-requests/{request_id}/end")
    assert again.json()["state"] == "ended"
    sessions = f"/v1/devices/{case.device.id}/sessions"
    assert (await case.engineer.http.post(sessions, json={})).status_code == 404


async def test_who_runs_the_site_sees_and_ends_single_sessions(case: Case) -> None:
    request_id = await case.consented()
    link = await case.opened()
    listed = (await case.owner.http.get(f"/v1/devices/{case.device.id}/sessions")).json()["items"]
    assert [(one["id"], one["user"], one["support_id"]) for one in listed] == [
        (link.session, "sue", request_id)
    ]
    assert (await case.owner.http.delete(f"/v1/sessions/{link.session}")).status_code == 204
    assert await case.revoked() == [link.session]


async def test_consent_is_the_owners(case: Case) -> None:
    admin = await home(case.world, "adam")
    await join(case.owner, f"/v1/sites/{case.owner.site}", admin, "admin")
    asked = (await case.ask()).json()
    seen = (await admin.http.get(f"/v1/support-requests/{asked['id']}")).json()
    assert seen["yours_to_decide"] is False
    refused = await admin.http.post(f"/v1/support-requests/{asked['id']}/approve", json={})
    assert refused.status_code == 403
    stranger = await home(case.world, "eve")
    assert (await stranger.http.get(f"/v1/support-requests/{asked['id']}")).status_code == 404
    assert (await stranger.http.post(f"/v1/support-requests/{asked['id']}/end")).status_code == 404


async def test_one_question_at_a_time_which_lapses(case: Case, clock: FakeClock) -> None:
    first = (await case.ask()).json()
    again = await case.ask()
    assert (again.status_code, again.json()["code"]) == (409, "already_asked")
    withdrawn = await case.engineer.http.post(f"/v1/support-requests/{first['id']}/end")
    assert withdrawn.json()["state"] == "withdrawn"
    late = (await case.ask()).json()
    clock.advance(REQUEST_TTL_S + 1)
    case.owner, case.engineer = await home(case.world, "ann"), await engineer_of(case.world)
    answer = await case.decide(late["id"], "approve")
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")
    assert (await case.ask()).status_code == 201


@pytest.mark.parametrize(("given_s", "lasts_s"), [(3600, 600), (601, 600), (300, 300)])
async def test_an_owner_gives_less_never_more(
    case: Case, clock: FakeClock, given_s: int, lasts_s: int
) -> None:
    asked = (await case.ask(duration_s=600)).json()
    approved = (await case.decide(asked["id"], "approve", duration_s=given_s)).json()
    assert approved["until"] == rfc3339(clock.wall() + lasts_s)
    link = await case.opened()
    listed = (await case.engineer.http.get("/v1/sessions")).json()["items"]
    assert [one["id"] for one in listed] == [link.session]
    assert listed[0]["expires_at"] == approved["until"]


async def test_a_support_role_at_a_site_asks_too_and_opens_nothing(case: Case) -> None:
    helper = await home(case.world, "hal")
    await join(case.owner, f"/v1/sites/{case.owner.site}", helper, "support")
    sessions = f"/v1/devices/{case.device.id}/sessions"
    assert (await helper.http.post(sessions, json={})).status_code == 403
    asked = await helper.http.post(f"/v1/devices/{case.device.id}/support-requests", json={"reason": "E42"})
    await case.decide(asked.json()["id"], "approve")
    assert (await helper.http.post(sessions, json={})).status_code == 201


async def test_the_banner_and_the_log(case: Case) -> None:
    request_id = await case.consented()
    shown = await open_session(case.engineer.http, case.device)
    told = (await case.engineer.http.post("/v1/links/inspect", json={"token": shown.token})).json()
    assert told["support"] == {"engineer": "sue", "reason": "The pump reports E42", "logged": True}
    own = await open_session(case.owner.http, case.device)
    entry = {
        "method": "GET",
        "status": 200,
        "received": 0,
        "sent": 12,
        "ms": 3.5,
        "at": case.world.clock.wall(),
    }
    entries = [
        {**entry, "id": str(uuid4()), "sid": shown.session, "path": "/status?token=secret"},
        {
            **entry,
            "id": str(uuid4()),
            "sid": shown.session,
            "path": "/\u202evil",
            "method": "POST",
            "status": 0,
        },
        {**entry, "id": str(uuid4()), "sid": own.session, "path": "/private"},
    ]
    for _ in range(2):  # the answer to the first was lost: the second writes nothing again
        answer = await case.node.http.post("/internal/v1/request-log", json={"entries": entries})
        assert answer.status_code == 204, answer.text
    log = (await case.owner.http.get(f"/v1/support-requests/{request_id}/log")).json()["items"]
    assert [(one["method"], one["path"], one["status"]) for one in log] == [
        ("GET", "/status", 200),
        ("POST", "/\ufffdvil", 0),
    ]
    first = (await case.owner.http.get(f"/v1/support-requests/{request_id}/log?limit=1")).json()
    rest = await case.owner.http.get(f"/v1/support-requests/{request_id}/log?cursor={first['next_cursor']}")
    assert [one["path"] for one in rest.json()["items"]] == ["/\ufffdvil"]
    refused = await case.engineer.http.get(f"/v1/support-requests/{request_id}/log")
    assert refused.status_code == 403
    assert "secret" not in json.dumps(log)


async def test_no_method_keeps_a_request_out_of_the_log(case: Case) -> None:
    """Parsers let through more than the usual ones, such as those of RTSP."""
    request_id, link = await case.consented(), await case.opened()
    entry = {"status": 200, "received": 0, "sent": 0, "ms": 1, "at": case.world.clock.wall(), "path": "/"}
    methods = ["GET", "GET_PARAMETER", "odd", "\u202eX", "X" * 99]
    entries = [{**entry, "id": str(uuid4()), "sid": link.session, "method": one} for one in methods]
    told = await case.node.http.post("/internal/v1/request-log", json={"entries": entries})
    assert told.status_code == 204, told.text
    log = (await case.owner.http.get(f"/v1/support-requests/{request_id}/log")).json()["items"]
    assert [one["method"] for one in log] == ["GET", "GET_PARAMETER", "odd", "\ufffdX", "X" * 32]


async def test_its_page_is_for_the_two_sides_and_the_log_for_one(case: Case) -> None:
    request_id = await case.consented()
    link = await case.opened()
    hostile = "/<script>alert(1)</script>"
    entry = {"id": str(uuid4()), "sid": link.session, "at": case.world.clock.wall(), "method": "GET"}
    sizes = {"path": hostile, "status": 200, "received": 0, "sent": 12, "ms": 3.5}
    told = await case.node.http.post("/internal/v1/request-log", json={"entries": [entry | sizes]})
    assert told.status_code == 204, told.text
    page = f"/support/{request_id}"
    seen = await case.owner.http.get(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in seen.text
    assert hostile not in seen.text
    engineers = await case.engineer.http.get(page)
    assert (engineers.status_code, "alert(1)" in engineers.text) == (200, False)
    stranger = await home(case.world, "eve")
    assert (await stranger.http.get(page)).status_code == 404
    assert (await stranger.http.get(f"/devices/{case.device.id}")).status_code == 404
    assert (await case.world.browser().get(page)).headers["location"].startswith("/login?next=")


async def test_a_device_that_leaves_takes_no_consent_along(case: Case) -> None:
    request_id = await case.consented()
    await case.owner.http.post(f"/v1/devices/{case.device.id}/revoke")
    ended = (await case.owner.http.get(f"/v1/support-requests/{request_id}")).json()
    assert (ended["state"], ended["ended_by"]) == ("ended", None)
    audit = f"/v1/sites/{case.owner.site}/audit?kind=support.ended"
    (line,) = (await case.owner.http.get(audit)).json()["items"]
    assert (line["actor"]["id"], line["detail"]["request"]) == (case.owner.id, request_id)


async def test_what_a_device_is_called_where_it_went_stays_there(case: Case) -> None:
    asked, bob = (await case.ask()).json(), await home(case.world, "bob")
    wish = {"approve": True, "name": "Bedroom"}
    token = (await bob.http.post("/v1/registration-tokens", json=wish)).json()["token"]
    await case.owner.http.post(f"/v1/devices/{case.device.id}/release")
    claimed = await claim_as(case.world, case.device, token)
    assert (claimed.status_code, claimed.json()["name"]) == (200, "Bedroom")
    for person in (case.engineer, case.owner):
        seen = (await person.http.get(f"/v1/support-requests/{asked['id']}")).json()
        assert (seen["state"], seen["device_name"]) == ("withdrawn", case.device.id)
    lines = await case.owner.http.get(f"/v1/sites/{case.owner.site}/audit")
    assert {"support.withdrawn", "device.handed_over"} <= {one["kind"] for one in lines.json()["items"]}
    assert "Bedroom" not in lines.text


async def test_a_device_that_moves_takes_no_consent_along(case: Case) -> None:
    request_id, link = await case.consented(), await case.opened()
    org = (await case.owner.http.get(f"/v1/sites/{case.owner.site}")).json()["org_id"]
    made = await case.owner.http.post(f"/v1/orgs/{org}/sites", json={"name": "Barn"})
    moved_in = {"site_id": made.json()["id"]}
    answer = await case.owner.http.patch(f"/v1/devices/{case.device.id}", json=moved_in)
    assert answer.status_code == 200, answer.text
    ended = (await case.owner.http.get(f"/v1/support-requests/{request_id}")).json()
    assert ended["state"] == "ended"
    assert await case.revoked() == [link.session]
    assert (await case.engineer.http.get(f"/v1/devices/{case.device.id}")).status_code == 404


async def test_an_engineer_who_is_none_any_more_has_no_consent(case: Case) -> None:
    """Standing lost, or shut out: running sessions end, the consent too, and it does not come back."""
    admin = await case.world.person()
    for change, undo in (({"role": "user"}, {"role": "support"}), ({"disabled": True}, {"disabled": False})):
        request_id, link = await case.consented(), await case.opened()
        changed = await admin.patch(f"/v1/users/{case.engineer.id}", json=change)
        assert changed.status_code == 200, changed.text
        assert link.session in await case.revoked()
        await admin.patch(f"/v1/users/{case.engineer.id}", json=undo)
        ended = (await case.owner.http.get(f"/v1/support-requests/{request_id}")).json()
        assert (ended["state"], ended["ended_by"]) == ("ended", None)
        if "role" in change:
            assert (await case.engineer.http.get(f"/v1/devices/{case.device.id}")).status_code == 404


async def test_a_consent_is_worth_what_its_owner_is(case: Case) -> None:
    """A co-owner consents and is an owner no more: nobody's word is left. Another's change ends none."""
    partner, member = await home(case.world, "paul"), await home(case.world, "mia")
    await join(case.owner, f"/v1/sites/{case.owner.site}", partner, "owner")
    await join(case.owner, f"/v1/sites/{case.owner.site}", member, "member")
    asked = (await case.ask()).json()
    approved = await partner.http.post(f"/v1/support-requests/{asked['id']}/approve", json={})
    assert approved.status_code == 200, approved.text
    link = await case.opened()
    members = f"/v1/sites/{case.owner.site}/members"
    assert (await case.owner.http.delete(f"{members}/{member.id}")).status_code == 204
    assert await case.revoked() == []
    changed = await case.owner.http.patch(f"{members}/{partner.id}", json={"role": "admin"})
    assert changed.status_code == 200, changed.text
    assert await case.revoked() == [link.session]
    sessions = f"/v1/devices/{case.device.id}/sessions"
    assert (await case.engineer.http.post(sessions, json={})).status_code == 404


async def test_a_consent_that_commits_behind_its_owners_fall_opens_nothing(case: Case) -> None:
    """Two transactions that do not see each other: what a consent opens is judged when it is used."""
    await case.consented()
    async with case.world.gateway.parts.database.transaction() as tx:
        await tx.execute("UPDATE memberships SET role = 'admin' WHERE user_id = $1", UUID(case.owner.id))
    sessions = f"/v1/devices/{case.device.id}/sessions"
    assert (await case.engineer.http.post(sessions, json={})).status_code == 404


async def test_a_link_says_that_it_is_for_support(case: Case) -> None:
    """The node's page for clicks shows it; the page of the gateway asks for the rest."""
    await case.consented()
    shown = []
    for person in (case.engineer, case.owner):
        link = await open_session(person.http, case.device, binding="click")
        shown.append(jwt.decode(link.token, options={"verify_signature": False}).get("support"))
    assert shown == ["logged", None]


async def test_every_step_is_in_the_audit_log(case: Case) -> None:
    request_id = await case.consented()
    await case.opened()
    await case.decide(request_id, "end")
    async with case.world.gateway.parts.database.transaction() as tx:
        rows = await tx.fetch("SELECT record FROM audit_events WHERE site = $1 ORDER BY seq", case.owner.site)
    told = [json.loads(row["record"]) for row in rows]
    steps = [(one["kind"], one["actor"]) for one in told if one["kind"].startswith(("support.", "session."))]
    owner, engineer = case.owner.id, case.engineer.id
    assert steps == [
        ("support.asked", engineer),
        ("support.approved", owner),
        ("session.created", engineer),
        ("support.ended", owner),
    ]


async def test_bad_questions(case: Case) -> None:
    for body, field in (
        ({"reason": ""}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"duration_s": 60}, "duration_s"),
        ({"duration_s": 86_401}, "duration_s"),
        ({"duration_s": "600"}, "duration_s"),
    ):
        wrong = await case.ask(**body)
        assert (wrong.status_code, wrong.json()["field"]) == (422, field)
    for path in (f"/v1/devices/d_{'a' * 16}/support-requests",):
        assert (await case.engineer.http.post(path, json={"reason": "x"})).status_code == 404


@given(st.lists(st.sampled_from(list(Move)), max_size=6))
def test_what_is_over_stays_over(moves: list[Move]) -> None:
    state, over = State.PENDING, False
    for move in moves:
        new = moved(state, move)
        assert not (over and new is not None)
        state = new or state
        over = state not in {State.PENDING, State.APPROVED}


@given(st.sampled_from(list(State)), st.floats(0, 100), st.none() | st.floats(0, 100), st.floats(0, 200))
def test_time_ends_what_nobody_ends(stored: State, lapses_at: float, until: float | None, now: float) -> None:
    seen = state_at(stored, lapses_at, until, now)
    if stored is State.PENDING:
        assert seen is (State.LAPSED if now >= lapses_at else State.PENDING)
    elif stored is State.APPROVED:
        assert seen is (State.APPROVED if until is not None and now < until else State.EXPIRED)
    else:
        assert seen is stored


async def test_a_consent_that_ends_while_a_session_is_opened_leaves_none(case: Case) -> None:
    """Both take the request's row: whichever comes second sees the other."""

    for _ in range(5):
        request_id = await case.consented()
        opening = case.engineer.http.post(f"/v1/devices/{case.device.id}/sessions", json={})
        ending = case.owner.http.post(f"/v1/support-requests/{request_id}/end")
        opened, ended = await asyncio.gather(opening, ending)
        assert ended.json()["state"] == "ended"
        assert opened.status_code in {201, 404}
        if opened.status_code == 201:
            assert opened.json()["id"] in await case.revoked()
    assert (await case.engineer.http.get("/v1/sessions")).json()["items"] == []
