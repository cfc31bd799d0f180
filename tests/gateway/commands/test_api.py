"""What people and programs say and hear about commands."""

from __future__ import annotations

import asyncio
import logging
import secrets
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from device_protocol.bodies import Stage
from gateway.commands.waiting import WAITERS_MAX, WAITERS_PER_PERSON, Waits
from gateway.policy.access import Role
from gateway.policy.commands import OPEN_PER_DEVICE, TTL_NOW_S, State
from gateway.policy.messages import STALE_S
from gateway.store import places
from tests.gateway.commands.conftest import Yard

LONG_S = 20


async def post(
    yard: Yard, body: dict[str, Any], *, by: httpx.AsyncClient | None = None, wait: int = 0, **headers: str
) -> httpx.Response:
    path = f"/v1/devices/{yard.device.id}/commands"
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await (by or yard.owner).post(path, json=body, params={"wait": wait}, headers=sent)


async def rows(yard: Yard) -> int:
    async with yard.database.reading() as tx:
        count: int = await tx.fetchval("SELECT count(*) FROM commands")
        return count


async def test_a_command_is_told_with_every_states_time(yard: Yard) -> None:
    answer = await post(yard, {"name": "ping"})
    assert answer.status_code == 202
    made = answer.json()
    assert (made["state"], made["name"], made["author"]) == ("queued", "ping", "owner")
    assert (made["origin"], made["publishes"], made["timeout_s"]) == ("api", 0, 10)
    assert made["created_at"].endswith("Z")
    assert len(made["created_at"]) == len("2026-01-01T00:00:00.000Z")
    reached = ("sent_at", "delivered_at", "finished_at", "late_at")
    assert [made[name] for name in reached] == [None] * 4
    yard.broker.listening.add(yard.device.id)
    await yard.dispatcher().look()
    command_id = made["id"]
    await yard.ack(command_id, Stage.RECEIVED)
    await yard.ack(command_id, Stage.DONE, ok=True, result={"pong": True})
    told = (await yard.owner.get(f"/v1/commands/{command_id}")).json()
    assert (told["state"], told["result"], told["publishes"]) == ("succeeded", {"pong": True}, 1)
    assert all(told[name] is not None for name in reached[:3])
    listed = (await yard.owner.get(f"/v1/devices/{yard.device.id}/commands")).json()
    assert listed == {"items": [told], "next_cursor": None}


async def test_its_trace_is_in_each_line_of_the_log_and_the_callers_if_there_is_one(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.commands")
    yard.broker.listening.add(yard.device.id)
    for sent, kept in ((f"00-{'ab' * 16}-{'cd' * 8}-01", True), ("00-ab-cd-01", False)):
        caplog.clear()
        made = (await post(yard, {"name": "ping"}, traceparent=sent)).json()
        assert (made["trace"].split("-")[1] == "ab" * 16) is kept
        yard.clock.advance(1)
        await yard.dispatcher().look()
        assert yard.broker.published[-1].trace == made["trace"]
        await yard.ack(made["id"], Stage.RECEIVED, said_at=yard.clock.wall(), trace=made["trace"])
        yard.clock.advance(1)
        await yard.ack(made["id"], Stage.DONE, ok=True, said_at=yard.clock.wall() + 7, trace=made["trace"])
        said = [record.getMessage() for record in caplog.records if vars(record)["trace"] == made["trace"]]
        assert said == [
            "a command is made",
            "a command was published",
            "a device answered a command",
            "a device answered a command",
        ]
        told = (await yard.owner.get(f"/v1/commands/{made['id']}")).json()
        begun = datetime.fromisoformat(told["created_at"])
        since = [(datetime.fromisoformat(hop["at"]) - begun).total_seconds() for hop in told["hops"]]
        assert since == [0, 1, 1, 9, 2, 2]  # the device's clock goes seven seconds ahead by its end
        assert [hop["place"] for hop in told["hops"]] == [None] * 4 + ["control/3/7", None]


async def test_the_list_is_in_pages_newest_first(yard: Yard) -> None:
    ids = [str(await yard.sent()) for _ in range(5)]
    path = f"/v1/devices/{yard.device.id}/commands"
    first = (await yard.owner.get(path, params={"limit": 3})).json()
    rest = (await yard.owner.get(path, params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [one["id"] for one in first["items"] + rest["items"]] == ids[::-1]
    assert rest["next_cursor"] is None


REFUSED: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"name": "dance"}, "unsupported_command", "name"),
    ({"name": "run", "params": {"name": "backup"}}, "unsupported_command", "name"),
    ({"name": "reboot"}, "unsupported_command", "name"),
    ({"name": "ping", "params": {"loud": True}}, "bad_parameter", "params"),
    ({"name": "log_level", "params": {"level": "loud"}}, "bad_parameter", "params.level"),
    ({"name": "log_level"}, "bad_parameter", "params.level"),
    ({"name": "ping", "params": {"x": "x" * 5000}}, "bad_parameter", "params"),
    ({"name": "Ping"}, "invalid_field", "name"),
    ({"name": "ping", "ttl_s": 0}, "invalid_field", "ttl_s"),
    ({"name": "ping", "ttl_s": 86_401}, "invalid_field", "ttl_s"),
    ({"name": "ping", "timeout_s": 3_601}, "invalid_field", "timeout_s"),
    ({"name": "ping", "params": []}, "invalid_field", "params"),
    ({"name": "ping", "more": 1}, "invalid_field", "more"),
)


async def test_what_the_device_cannot_do_is_refused_and_nothing_is_kept(yard: Yard) -> None:
    await yard.say_hello("ping", "log_level", "run:update")
    for body, code, field in REFUSED:
        answer = await post(yard, body)
        told = answer.json()
        assert (answer.status_code, told["code"], told["field"]) == (422, code, field), body
    path = f"/v1/devices/{yard.device.id}/commands"
    for wait in ("-1", "31", "1.5", "soon"):
        answer = await yard.owner.post(f"{path}?wait={wait}", json={"name": "ping"})
        assert (answer.status_code, answer.json()["field"]) == (422, "wait")
    assert await rows(yard) == 0


async def test_what_must_not_wait_is_refused_while_the_device_is_away(yard: Yard) -> None:
    for told in (False, True):
        if told:
            await yard.say_hello("ping", online=False)
        answer = await post(yard, {"name": "ping", "queue": False})
        assert (answer.status_code, answer.json()["code"]) == (503, "device_away")
        assert int(answer.headers["retry-after"]) > 0
    await yard.say_hello("ping")
    yard.clock.advance(STALE_S + 1)  # it went without a word
    answer = await post(yard, {"name": "ping", "queue": False})
    assert (answer.status_code, answer.json()["code"]) == (503, "device_away")
    assert await rows(yard) == 0
    await yard.say_hello("ping")
    answer = await post(yard, {"name": "ping", "queue": False, "ttl_s": 3600})
    assert (answer.status_code, answer.json()["queue"]) == (202, False)
    command = await yard.get(answer.json()["id"])
    assert command.expires_at - command.created_at == TTL_NOW_S


async def test_a_device_that_is_not_approved_is_asked_nothing(yard: Yard) -> None:
    pending = await yard.world.enrol(yard.owner, approve=False)
    answer = await yard.owner.post(f"/v1/devices/{pending.id}/commands", json={"name": "ping"})
    assert (answer.status_code, answer.json()["code"]) == (409, "device_not_approved")


async def test_no_more_wait_for_a_device_than_it_will_ever_do(yard: Yard) -> None:
    first = await yard.get(await yard.sent())
    async with yard.database.transaction() as tx:
        await tx.execute(
            "INSERT INTO commands (id, device_id, site_id, author, origin, name, params, state, created_at,"
            " expires_at, timeout_s, next_at, device_type, queue) SELECT gen_random_uuid(), device_id,"
            " site_id, author, origin, name, params, state, created_at, expires_at, timeout_s, next_at,"
            " device_type, queue FROM commands,"
            " generate_series(1, $1)",
            OPEN_PER_DEVICE - 3,
        )
    answers = await asyncio.gather(*(post(yard, {"name": "ping"}) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [202] * 2 + [429] * 4  # also all at once
    assert next(a for a in answers if a.status_code == 429).json()["code"] == "too_many_commands"
    assert await rows(yard) == OPEN_PER_DEVICE
    await yard.ack(first.id, Stage.DONE, ok=True)
    assert (await post(yard, {"name": "ping"})).status_code == 202


async def test_who_waits_is_answered_when_it_has_ended(yard: Yard) -> None:
    waiting = asyncio.create_task(post(yard, {"name": "ping"}, wait=LONG_S))
    yard.broker.listening.add(yard.device.id)
    gateway = yard.dispatcher()
    async with asyncio.timeout(10):
        while not yard.broker.published:
            await gateway.look()
    command_id = yard.broker.published[0].id
    await yard.ack(command_id, Stage.RECEIVED)
    await yard.ack(command_id, Stage.DONE, ok=True)
    async with asyncio.timeout(5):  # woken, or by the look of every second
        answer = await waiting
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")


async def test_who_waits_in_vain_is_told_how_far_it_came(yard: Yard) -> None:
    answer = await post(yard, {"name": "ping"}, wait=1)
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")


async def test_only_so_many_wait_and_a_gateway_that_stops_answers_them(yard: Yard) -> None:
    """One more is answered at once, and so are all at the end. Nobody takes all places."""
    parts = yard.world.gateway.parts
    command = await yard.get(await yard.sent())
    waits = Waits(parts.database, parts.shortlived)
    people = [uuid4() for _ in range(WAITERS_MAX // WAITERS_PER_PERSON)]
    many = []
    for person in people:
        many += [
            asyncio.create_task(waits.wait_ended(command, LONG_S, person)) for _ in range(WAITERS_PER_PERSON)
        ]
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            assert await waits.wait_ended(command, LONG_S, person) is command
    assert repr(waits) == f"<Waits {WAITERS_MAX}>"
    async with asyncio.timeout(5):
        assert await waits.wait_ended(command, LONG_S, uuid4()) is command
    many[0].cancel()  # who goes makes room
    await asyncio.wait(many[:1])
    many[0] = asyncio.create_task(waits.wait_ended(command, LONG_S, people[0]))
    await asyncio.sleep(0)
    assert repr(waits) == f"<Waits {WAITERS_MAX}>"
    waits.close()
    async with asyncio.timeout(10):
        assert {one.state for one in await asyncio.gather(*many)} == {State.QUEUED}


async def test_sent_again_it_is_the_same_command_as_it_is_by_then(yard: Yard) -> None:
    key = secrets.token_hex(16)
    first = await post(yard, {"name": "ping"}, idempotency_key=key)
    await yard.ack(first.json()["id"], Stage.DONE, ok=True)
    again = await post(yard, {"name": "ping"}, idempotency_key=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["state"] == "succeeded"
    assert again.headers["idempotency-replayed"] == "true"
    assert await rows(yard) == 1
    other = await post(yard, {"name": "log_level", "params": {"level": "info"}}, idempotency_key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_many_at_once_with_one_key_are_one_command(yard: Yard) -> None:
    key = secrets.token_hex(16)
    answers = await asyncio.gather(*(post(yard, {"name": "ping"}, idempotency_key=key) for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert await rows(yard) == 1


async def member(yard: Yard, name: str, role: Role | None) -> httpx.AsyncClient:
    """Somebody who is `role` in the owner's org."""
    client = await yard.world.person(name)
    home = (await yard.owner.get("/v1/sites")).json()["items"][0]
    me = (await client.get("/v1/me")).json()["id"]
    if role is not None:
        async with yard.database.transaction() as tx:
            await places.put_membership(tx, home["org_id"], None, me, role)
    return client


async def test_some_commands_take_a_greater_role(yard: Yard) -> None:
    mem = await member(yard, "mem", Role.MEMBER)
    adm = await member(yard, "adm", Role.ADMIN)
    assert (await post(yard, {"name": "ping"}, by=mem)).status_code == 202
    refused = await post(yard, {"name": "reboot"}, by=mem)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await post(yard, {"name": "reboot"}, by=adm)).status_code == 202


async def consented(yard: Yard, engineer: httpx.AsyncClient) -> str:
    """The owner lets the engineer support the device for ten minutes; the request's id."""
    path = f"/v1/devices/{yard.device.id}/support-requests"
    asked = await engineer.post(path, json={"reason": "E42", "duration_s": 600})
    assert asked.status_code == 201, asked.text
    request_id: str = asked.json()["id"]
    approved = await yard.owner.post(f"/v1/support-requests/{request_id}/approve", json={})
    assert approved.status_code == 200, approved.text
    return request_id


async def test_a_consent_is_enough_only_where_the_type_says_so(yard: Yard) -> None:
    engineer = await member(yard, "eng", Role.SUPPORT)
    assert (await post(yard, {"name": "ping"}, by=engineer)).status_code == 403
    await consented(yard, engineer)
    assert (await post(yard, {"name": "ping"}, by=engineer)).status_code == 403
    types = {"commands": {"ping": {"support": True}, "reboot": {"role": "admin"}}}
    async with yard.database.transaction() as tx:
        await tx.execute("UPDATE device_types SET capabilities = $1 WHERE id = 'linux'", types)
    sent = await post(yard, {"name": "ping", "ttl_s": 86_400}, by=engineer)
    assert sent.status_code == 202
    command = await yard.get(sent.json()["id"])
    assert command.expires_at <= yard.clock.wall() + 600  # no longer than the consent
    assert (await engineer.get(f"/v1/commands/{sent.json()['id']}")).status_code == 200
    assert (await post(yard, {"name": "reboot"}, by=engineer)).status_code == 403


async def test_commands_of_others_look_like_none(yard: Yard) -> None:
    stranger = await member(yard, "str", None)
    command_id = await yard.sent()
    theirs = await stranger.get(f"/v1/commands/{command_id}")
    nobodys = await stranger.get(f"/v1/commands/{secrets.token_hex(16)}")
    assert (theirs.status_code, theirs.content) == (nobodys.status_code, nobodys.content)
    assert theirs.status_code == 404
    assert (await post(yard, {"name": "ping"}, by=stranger)).status_code == 404
    assert await rows(yard) == 1


@pytest.mark.parametrize(
    ("scopes", "sends", "reads"), [(["commands"], 202, 403), (["devices:read"], 403, 200)]
)
async def test_an_api_token_needs_the_scope(yard: Yard, scopes: list[str], sends: int, reads: int) -> None:
    made = await yard.owner.post("/v1/me/api-tokens", json={"name": "script", "scopes": scopes})
    program = yard.world.program(made.json()["token"])
    command_id = await yard.sent()
    assert (await post(yard, {"name": "ping"}, by=program)).status_code == sends
    assert (await program.get(f"/v1/commands/{command_id}")).status_code == reads


async def test_it_is_told_live_and_written_into_the_audit_log(yard: Yard) -> None:
    command_id = await yard.sent()
    await yard.ack(command_id, Stage.RECEIVED)
    await yard.ack(command_id, Stage.DONE, ok=False, error="stuck")
    async with yard.database.reading() as tx:
        told = await tx.fetch("SELECT ref, device_id, site_id FROM events WHERE kind = 'command.changed'")
        audit = await tx.fetch(
            "SELECT record::jsonb AS r FROM audit_events WHERE record LIKE '%\"command.%' ORDER BY seq"
        )
    command = await yard.get(command_id)
    assert [tuple(row) for row in told] == [(str(command_id), yard.device.id, command.site_id)] * 3
    lines = [row["r"] for row in audit]
    assert [line["kind"] for line in lines] == ["command.sent", "command.ended"]
    assert [line["detail"]["command"] for line in lines] == [str(command_id)] * 2
    assert (lines[1]["actor"], lines[1]["detail"]["state"]) == (yard.device.id, "failed")
    assert lines[1]["detail"]["error"] == "stuck"


async def test_the_commands_parameters_stay_out_of_the_audit_log(yard: Yard) -> None:
    await yard.say_hello("run:canary-4711")
    await yard.sent(name="run", params={"name": "canary-4711"})
    async with yard.database.reading() as tx:
        found = await tx.fetchval("SELECT count(*) FROM audit_events WHERE record LIKE '%canary-4711%'")
    assert found == 0
