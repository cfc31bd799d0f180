"""What a device's page says of its messages: in words, bounded, and never as markup."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.api.device_view import (
    COMMANDS_SHOWN,
    READINGS_SHOWN,
    WORD_MAX,
    health,
    offered,
    readings,
    shown_command,
)
from gateway.policy.access import Resource, Role
from gateway.store.device_types import Asked, DeviceType
from gateway.store.messages import Latest
from tests.gateway.commands.conftest import Yard
from tests.gateway.commands.conftest import clock as clock
from tests.gateway.commands.conftest import yard as yard
from tests.gateway.commands.test_api import member

AT = datetime(2026, 7, 1, tzinfo=UTC)
LEVEL = {"type": "object", "required": ["level"], "properties": {"level": {"type": "string"}}}
COMMANDS = {"ping": {"support": True}, "reboot": {"role": "admin"}, "log_level": {"params": LEVEL}}

ALL = frozenset(COMMANDS)


def latest(**body: Any) -> Latest:
    return Latest(AT, AT, 1, 1, "telemetry", body)


def asked(announced: frozenset[str] | None, commands: Any = None) -> Asked:
    capabilities = {"commands": COMMANDS if commands is None else commands}
    return Asked("o", DeviceType("linux", "Linux", capabilities, 1, 0.0), True, announced)


def test_readings_have_their_last_value_and_their_span() -> None:
    many = {"n": 5, "min": 20.0, "max": 21.123456789, "mean": 20.5, "last": 21.0}
    shown = readings(latest(values={"b": many, "a": True, "c": "x" * 200, "d": 3}))
    assert [(one.name, one.value, one.span) for one in shown] == [
        ("a", "yes", ""),
        ("b", "21", "20 to 21.1235, 5 samples"),
        ("c", "x" * WORD_MAX + "…", ""),
        ("d", "3", ""),
    ]
    assert readings(None) == []
    assert len(readings(latest(values={f"r{n}": n for n in range(200)}))) == READINGS_SHOWN


def test_health_says_what_the_device_told() -> None:
    body = {"uptime_s": 93_784.5, "memory": {"total": 4e9, "available": 1e9}, "load": 0.5, "rssi": -61}
    assert health(latest(**body, sensors={"door": False})) == [
        ("Up for", "1 d 2 h"),
        ("Memory free", "1,000 MB of 4,000 MB"),
        ("Load", "0.5"),
        ("Radio", "-61 dBm"),
        ("door", "no"),
    ]
    assert health(latest(uptime_s=60.0)) == [("Up for", "0 h 1 min")]
    assert health(None) == []


@pytest.mark.parametrize(
    ("role", "consented", "announced", "names"),
    [
        (Role.MEMBER, False, ALL, ["ping"]),
        (Role.ADMIN, False, ALL, ["ping", "reboot"]),
        (Role.OWNER, False, frozenset({"ping"}), ["ping"]),
        (Role.OWNER, False, None, []),  # no hello yet: nobody knows
        (Role.SUPPORT, True, ALL, ["ping"]),
        (Role.SUPPORT, False, ALL, []),
    ],
)
def test_only_what_this_person_may_and_the_device_can_is_offered(
    role: Role, consented: bool, announced: frozenset[str] | None, names: list[str]
) -> None:
    found = offered(asked(announced), Resource(role, consented=consented))
    assert [one.name for one in found] == names
    assert all(one.grave is (one.name == "reboot") for one in found)


def test_a_type_that_cannot_be_read_offers_nothing() -> None:
    assert offered(asked(ALL, {"ping": {"timeout_s": "soon"}}), Resource(Role.OWNER)) == []


async def test_an_answer_that_came_before_the_brokers_receipt_looks_like_no_fault(yard: Yard) -> None:
    found = await yard.get(await yard.sent())
    made = found.created_at
    quick = replace(found, sent_at=made + 0.033, took_at=made + 0.026, done_at=None, logged_at=made + 0.03)
    assert shown_command(quick).way == "the broker's receipt +33 ms · received +26 ms → logged +30 ms"
    assert shown_command(replace(quick, sent_at=None)).way == "received +26 ms → logged +30 ms"
    assert shown_command(found).way == ""


async def test_the_page_has_it_all_and_no_markup_of_the_devices(yard: Yard) -> None:
    path = f"/devices/{yard.device.id}"
    empty = (await yard.owner.get(path)).text
    assert "No readings yet" in empty
    assert "never connected" in empty.partition("What it says")[2]
    assert "enabled = true" in empty
    assert "data-command" not in empty
    await yard.say_hello("ping", "log_level")
    there = (await yard.owner.get(path)).text
    assert "enabled = true" not in there
    assert 'data-command="ping"' in there
    assert 'data-command="log_level"' not in there
    assert 'data-command="reboot"' not in there
    ids = [await yard.sent() for _ in range(COMMANDS_SHOWN + 1)]
    await yard.execute(
        "INSERT INTO device_states (device_id, kind, site_id, boot, seq, type, at, received_at, body)"
        " VALUES ($1, 'telemetry', $2, 1, 1, 'telemetry', now(), now(), $3)",
        yard.device.id,
        (await yard.get(ids[0])).site_id,
        {"values": {"temperature": 21.5, "note": "<script>alert(1)</script>"}},
    )
    page = (await yard.owner.get(path)).text
    assert "<strong>21.5</strong>" in page
    assert "<script>alert" not in page
    shown = sorted(ids[1:], key=lambda one: page.index(f'data-sent="{one}"'))
    assert shown == ids[:0:-1]  # the newest first
    assert str(ids[0]) not in page
    supporter = await member(yard, "sup", Role.SUPPORT)
    seen = (await supporter.get(path)).text
    assert "21.5" in seen
    assert "data-command" not in seen
