"""Setting and reading configurations: what is checked, who may, two writers, versions, other sites."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from device_protocol.bodies import CONFIG_MAX
from gateway.policy.configuration import name_of
from gateway.store import configurations
from tests.gateway.configuration.conftest import Yard

BODY = {"health_every_s": 30, "log_level": "debug"}


async def test_nothing_is_wanted_at_first(yard: Yard) -> None:
    assert await yard.get() == {"desired": None, "reported": None, "drift": False, "sent_at": None}
    listed = (await yard.owner.get(f"{yard.path}/versions")).json()
    assert listed == {"items": [], "next_cursor": None}


async def test_what_is_set_is_wanted_until_the_device_says_that_it_runs_with_it(yard: Yard) -> None:
    made = await yard.put(BODY)
    wanted = made["desired"]
    assert (wanted["version"], wanted["body"], wanted["author"]) == (1, BODY, "owner")
    assert wanted["sha256"] == name_of(BODY)
    assert (made["reported"], made["drift"]) == (None, True)
    assert made == await yard.get()

    await yard.say(1, wanted["sha256"], told=1)
    after = await yard.get()
    assert after["drift"] is False
    said = after["reported"]
    assert (said["version"], said["sha256"], said["told"], said["error"]) == (1, wanted["sha256"], 1, None)

    await yard.put({})
    assert (await yard.get())["drift"] is True
    await yard.say(1, wanted["sha256"], told=2, error="its program ended with 1")
    refused = await yard.get()
    assert (refused["drift"], refused["reported"]["error"]) == (True, "its program ended with 1")


async def test_the_same_body_makes_no_version(yard: Yard) -> None:
    await yard.put(BODY)
    tag = await yard.tag()
    again = await yard.put(dict(reversed(BODY.items())), tag=tag)
    assert again["desired"]["version"] == 1
    assert await yard.tag() == tag
    assert len(await yard.audit()) == 1


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"health_every_s": 61}, "bad_parameter", "body.health_every_s"),
        ({"health_every_s": True}, "bad_parameter", "body.health_every_s"),
        ({"log_level": "loud"}, "bad_parameter", "body.log_level"),
        ({"Vent": 1}, "bad_parameter", "body.Vent"),
        ({"log_level": "info", "fan": 1, "vent": [1]}, "bad_parameter", "body.vent"),
        ({"a wall\n": 1}, "bad_parameter", "body"),
        ({f"m{n}": 1 for n in range(65)}, "bad_parameter", "body"),
        ({f"m{n}": "x" * 250 for n in range(40)}, "bad_parameter", "body"),
        ([], "invalid_field", "body"),
        (None, "invalid_field", "body"),
    ],
)
async def test_what_the_type_does_not_take_is_not_kept(
    yard: Yard, body: object, code: str, field: str
) -> None:
    refused = await yard.put(body, status=422)
    assert (refused["code"], refused["field"]) == (code, field)
    assert (await yard.get())["desired"] is None
    assert await yard.audit() == []


async def test_the_largest_is_taken(yard: Yard) -> None:
    room = CONFIG_MAX - len(json.dumps({f"m{n:02}": "" for n in range(31)}, separators=(",", ":")))
    body = {f"m{n:02}": "x" * 256 for n in range(30)} | {"m30": "x" * (room - 30 * 256)}
    assert len(json.dumps(body, separators=(",", ":"))) == CONFIG_MAX
    await yard.put(body)
    refused = await yard.put(body | {"m30": str(body["m30"]) + "x"}, status=422)
    assert refused["field"] == "body"


async def test_a_type_without_a_schema_takes_none(yard: Yard) -> None:
    changed = await yard.owner.patch(f"/v1/devices/{yard.device.id}", json={"type": "generic"})
    assert changed.status_code == 200
    assert (await yard.put({}, status=422))["code"] == "unsupported_configuration"


async def test_a_device_that_is_not_approved_is_not_configured(yard: Yard) -> None:
    pending = await yard.world.enrol(yard.owner, approve=False, name="New")
    answer = await yard.owner.put(f"/v1/devices/{pending.id}/configuration", json={"body": {}})
    assert (answer.status_code, answer.json()["code"]) == (409, "device_not_approved")


async def test_of_two_writers_who_saw_the_same_one_writes(yard: Yard) -> None:
    for _ in range(5):
        tag = await yard.tag()
        bodies = [{"log_level": "debug", "writer": n} for n in range(4)]
        answers = await asyncio.gather(
            *(yard.owner.put(yard.path, json={"body": body}, headers={"if-match": tag}) for body in bodies)
        )
        codes = [answer.status_code for answer in answers]
        assert sorted(codes) == [200, 412, 412, 412]
        won = bodies[codes.index(200)]
        assert (await yard.get())["desired"]["body"] == won
        await yard.put({})
    versions = [one["version"] for one in (await yard.owner.get(f"{yard.path}/versions")).json()["items"]]
    assert versions == list(range(10, 0, -1))


async def test_a_report_does_not_spoil_a_writers_tag(yard: Yard) -> None:
    """As elsewhere: the version counts what people set."""
    await yard.put(BODY)
    tag = await yard.tag()
    await yard.say(1, name_of(BODY), told=1)
    fresh = await yard.owner.get(yard.path, headers={"if-none-match": tag})
    assert fresh.status_code == 200
    same = await yard.owner.get(yard.path, headers={"if-none-match": fresh.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    await yard.put({}, tag=tag)
    assert (await yard.put(BODY, tag=tag, status=412))["code"] == "version_conflict"


async def test_versions_come_in_pages_newest_first(yard: Yard) -> None:
    for n in range(5):
        await yard.put({"n": n})
    first = (await yard.owner.get(f"{yard.path}/versions?limit=2")).json()
    assert [(one["version"], one["body"]) for one in first["items"]] == [(5, {"n": 4}), (4, {"n": 3})]
    last = (
        await yard.owner.get(f"{yard.path}/versions", params={"limit": 3, "cursor": first["next_cursor"]})
    ).json()
    assert [one["version"] for one in last["items"]] == [3, 2, 1]
    assert last["next_cursor"] is None


async def test_the_newest_versions_are_kept(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configurations, "VERSIONS_KEPT", 3)
    for n in range(7):
        await yard.put({"n": n})
    listed = (await yard.owner.get(f"{yard.path}/versions")).json()["items"]
    assert [one["version"] for one in listed] == [7, 6, 5]
    assert (await yard.get())["desired"]["version"] == 7


async def test_a_version_is_above_what_the_device_runs_with(yard: Yard) -> None:
    """After the database was put back: a device goes back to no lower version."""
    await yard.put(BODY)
    await yard.say(7, "ab" * 32)
    assert (await yard.put({}))["desired"]["version"] == 8


async def test_another_site_neither_sees_nor_means_it(yard: Yard) -> None:
    await yard.put(BODY)
    await yard.say(1, name_of(BODY), told=1)
    [site] = [one for one in (await yard.owner.get("/v1/sites")).json()["items"]]
    other = await yard.owner.post(f"/v1/orgs/{site['org_id']}/sites", json={"name": "Other"})
    moved = {"site_id": other.json()["id"]}
    assert (await yard.owner.patch(f"/v1/devices/{yard.device.id}", json=moved)).status_code == 200
    there = await yard.get()
    assert there == {"desired": None, "reported": None, "drift": False, "sent_at": None}
    assert (await yard.owner.get(f"{yard.path}/versions")).json()["items"] == []

    await yard.say(1, name_of(BODY))  # it goes on with what it has, and says so at the new place
    assert (await yard.get())["drift"] is True
    assert (await yard.put({}))["desired"]["version"] == 2

    back = {"site_id": site["id"]}
    assert (await yard.owner.patch(f"/v1/devices/{yard.device.id}", json=back)).status_code == 200
    assert (await yard.get())["desired"] is None  # what runs was wanted elsewhere
    listed = (await yard.owner.get(f"{yard.path}/versions")).json()["items"]
    assert [one["version"] for one in listed] == [1]


async def test_members_read_and_runners_write(yard: Yard) -> None:
    await yard.put(BODY)
    stranger = await yard.world.person("stranger")
    answers = [await stranger.get(yard.path), await stranger.put(yard.path, json={"body": {}})]
    assert [answer.status_code for answer in answers] == [404, 404]
    for scopes, reads, writes in ((["devices:read"], 200, 403), (["devices:write"], 403, 200)):
        made = await yard.owner.post("/v1/me/api-tokens", json={"name": scopes[0], "scopes": scopes})
        program = yard.world.program(made.json()["token"])
        assert (await program.get(yard.path)).status_code == reads
        assert (await program.put(yard.path, json={"body": BODY})).status_code == writes


async def test_it_is_told_live_and_written_into_the_audit_log_without_values(yard: Yard) -> None:
    await yard.put({"pass": "only-in-the-row"})
    async with yard.database.reading() as tx:
        told: list[Any] = await tx.fetch(
            "SELECT kind, device_id FROM events WHERE kind = 'configuration.changed'"
        )
    assert [tuple(row) for row in told] == [("configuration.changed", yard.device.id)]
    [record] = await yard.audit()
    assert json.loads(record)["detail"] == {
        "version": 1,
        "sha256": name_of({"pass": "only-in-the-row"}),
    }
    assert "only-in-the-row" not in record
