"""Types of devices: read by everybody, written by the installation's staff."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest

from device_protocol.schema import Schema
from gateway.api.device_types import TYPES_MAX
from gateway.policy import capabilities
from gateway.policy.access import Staff
from gateway.policy.capabilities import BadParameterError
from gateway.store import users
from tests.gateway.commands.conftest import Yard

BODY: dict[str, Any] = {"name": "Greenhouse", "capabilities": {"commands": {"water": {"timeout_s": 5}}}}


@pytest.fixture
async def staff(yard: Yard) -> httpx.AsyncClient:
    client = await yard.world.person("staff")
    async with yard.database.transaction() as tx:
        await users.set_staff(tx, UUID((await client.get("/v1/me")).json()["id"]), Staff.ADMIN)
    return client


async def test_a_type_is_made_changed_and_used(yard: Yard, staff: httpx.AsyncClient) -> None:
    made = await staff.put("/v1/device-types/greenhouse", json=BODY)
    assert (made.status_code, made.json()["version"]) == (200, 1)
    assert made.json()["capabilities"] == BODY["capabilities"]
    same = await staff.put("/v1/device-types/greenhouse", json=BODY)
    assert same.json() == made.json()  # nothing changed: no new version
    path = f"/v1/devices/{yard.device.id}"
    changed = await yard.owner.patch(path, json={"type": "greenhouse"})
    assert (changed.status_code, changed.json()["type"]) == (200, "greenhouse")
    assert (await yard.owner.post(f"{path}/commands", json={"name": "water"})).status_code == 202
    refused = await yard.owner.post(f"{path}/commands", json={"name": "ping"})
    assert refused.json()["code"] == "unsupported_command"


async def test_two_who_change_a_type_do_not_overwrite_each_other(staff: httpx.AsyncClient) -> None:
    made = await staff.put("/v1/device-types/greenhouse", json=BODY)
    tag = made.headers["etag"]
    read = await staff.get("/v1/device-types/greenhouse")
    assert read.headers["etag"] == tag
    newer = {**BODY, "name": "Hothouse"}
    first = await staff.put("/v1/device-types/greenhouse", json=newer, headers={"if-match": tag})
    second = await staff.put("/v1/device-types/greenhouse", json=BODY, headers={"if-match": tag})
    assert (first.status_code, second.status_code) == (200, 412)
    again = await staff.get("/v1/device-types/greenhouse", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304


async def test_what_is_no_capability_is_refused(staff: httpx.AsyncClient) -> None:
    bad = {"name": "Bad", "capabilities": {"commands": {"water": {"params": {"pattern": "(a+)+$"}}}}}
    answer = await staff.put("/v1/device-types/bad", json=bad)
    assert (answer.status_code, answer.json()["field"]) == (422, "capabilities")
    assert (await staff.get("/v1/device-types/bad")).status_code == 404


async def test_a_device_is_of_a_type_that_exists(yard: Yard) -> None:
    answer = await yard.owner.patch(f"/v1/devices/{yard.device.id}", json={"type": "teapot"})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_device_type")


async def test_a_token_says_what_its_device_is(yard: Yard) -> None:
    soil = await yard.world.enrol(yard.owner, name="Soil", type="esp32")
    found = (await yard.owner.get(f"/v1/devices/{soil.id}")).json()
    assert (found["type"], found["status"]) == ("esp32", "approved")
    assert (await yard.owner.get(f"/v1/devices/{yard.device.id}")).json()["type"] == "linux"
    answer = await yard.owner.post("/v1/registration-tokens", json={"type": "teapot"})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_device_type")


async def test_what_an_esp32_can_do(yard: Yard) -> None:
    """As the firmware's command.c and configuration.c take it."""
    found = (await yard.owner.get("/v1/device-types/esp32")).json()["capabilities"]
    commands = capabilities.read(found)
    assert sorted(commands) == ["identify", "log_level", "ping", "reboot", "update"]
    update = {"url": "https://x/f", "size": 9, "sha256": "ab" * 32, "version": "1.2.3"}
    capabilities.choose(commands, None, "update", update)
    for name, value in {"url": "ftp://x/f", "size": 0, "sha256": "AB" * 32, "version": "a b"}.items():
        with pytest.raises(BadParameterError):
            capabilities.choose(commands, None, "update", update | {name: value})
    config = Schema(found["config"])
    assert config.fault({"health_every_s": 10, "report_s": 60, "log_level": "debug"}) is None
    for wrong in ({"health_every_s": 1.5}, {"report_s": 4}, {"log_level": "loud"}, {"x": 1}):
        assert config.fault(wrong) is not None, wrong


async def test_types_are_listed_and_are_not_made_without_end(yard: Yard, staff: httpx.AsyncClient) -> None:
    first = (await yard.owner.get("/v1/device-types", params={"limit": 1})).json()
    rest = (await yard.owner.get("/v1/device-types", params={"cursor": first["next_cursor"]})).json()
    assert [one["id"] for one in first["items"] + rest["items"]] == ["esp32", "generic", "linux"]
    async with yard.database.transaction() as tx:
        await tx.execute(
            "INSERT INTO device_types (id, name, capabilities, changed_at)"
            " SELECT 't' || n, 'T', '{\"commands\": {}}', $1 FROM generate_series(4, $2) n",
            tx.at,
            TYPES_MAX,
        )
    answer = await staff.put("/v1/device-types/greenhouse", json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_device_types")
    assert (await staff.put("/v1/device-types/t4", json=BODY)).status_code == 200
