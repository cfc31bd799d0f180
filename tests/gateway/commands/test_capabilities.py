"""What a type's devices can be asked, and by whom."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gateway.policy import capabilities
from gateway.policy.access import Resource, Role
from gateway.policy.capabilities import BadCapabilitiesError, BadParameterError, UnsupportedError, may_send
from gateway.store.migrate import load

LEVEL = {
    "type": "object",
    "additionalProperties": False,
    "required": ["level"],
    "properties": {"level": {"type": "string", "enum": ["debug", "info"]}},
}
SOURCE: dict[str, Any] = {
    "commands": {
        "ping": {"timeout_s": 10, "support": True},
        "reboot": {"role": "admin"},
        "log_level": {"params": LEVEL},
        "run": {
            "params": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}},
            }
        },
    }
}


def test_the_types_of_the_schema_can_be_read() -> None:
    schema = "".join(one.sql for one in load())
    linux = re.search(r"'Linux device', '(\{.*?\})', 'epoch'", schema, re.DOTALL)
    assert linux is not None
    known = capabilities.read(json.loads(linux[1]))
    assert set(known) == {"ping", "reboot", "log_level", "run"}
    assert known["reboot"].role is Role.ADMIN
    assert not known["ping"].support
    capabilities.choose(known, {"run:backup"}, "run", {"name": "backup"})


def test_a_command_that_fits_is_chosen() -> None:
    known = capabilities.read(SOURCE)
    assert capabilities.choose(known, None, "ping", {}).timeout_s == 10
    assert capabilities.choose(known, {"log_level"}, "log_level", {"level": "info"}).name == "log_level"
    assert capabilities.choose(known, {"run:backup"}, "run", {"name": "backup"}).name == "run"


@pytest.mark.parametrize(
    ("name", "params", "announced"),
    [
        ("dance", {}, None),
        ("ping", {}, set()),
        ("ping", {}, {"reboot"}),
        ("run", {"name": "backup"}, {"run:update"}),
        ("run", {"name": "backup"}, {"run"}),
    ],
)
def test_what_the_type_or_the_device_does_not_know_is_unsupported(
    name: str, params: dict[str, Any], announced: set[str] | None
) -> None:
    with pytest.raises(UnsupportedError):
        capabilities.choose(capabilities.read(SOURCE), announced, name, params)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"level": "loud"}, "params.level"),
        ({"level": 1}, "params.level"),
        ({}, "params.level"),
        ({"level": "info", "more": 1}, "params"),
    ],
)
def test_parameters_are_what_the_type_says(params: dict[str, Any], field: str) -> None:
    with pytest.raises(BadParameterError) as caught:
        capabilities.choose(capabilities.read(SOURCE), None, "log_level", params)
    assert caught.value.field == field
    assert "loud" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ({}, "commands"),
        ({"commands": []}, "commands"),
        ({"commands": {}, "more": 1}, "more"),
        ({"commands": {"No": {}}}, "commands"),
        ({"commands": {f"c{n}": {} for n in range(65)}}, "commands"),
        ({"commands": {"ping": 1}}, "commands.ping"),
        ({"commands": {"ping": {"params": {"typ": "object"}}}}, "commands.ping.params"),
        ({"commands": {"ping": {"params": True}}}, "commands.ping.params"),
        ({"commands": {"ping": {"timeout_s": 0}}}, "commands.ping.timeout_s"),
        ({"commands": {"ping": {"timeout_s": True}}}, "commands.ping.timeout_s"),
        ({"commands": {"ping": {"role": "support"}}}, "commands.ping.role"),
        ({"commands": {"ping": {"role": ["member"]}}}, "commands.ping.role"),
        ({"commands": {"ping": {"support": 1}}}, "commands.ping.support"),
        ({"commands": {"ping": {"exec": "rm"}}}, "commands.ping"),
        ({"commands": {}, "config": {"pattern": "(a+)+"}}, "config"),
    ],
)
def test_bad_capabilities_name_the_place(source: dict[str, Any], where: str) -> None:
    with pytest.raises(BadCapabilitiesError) as caught:
        capabilities.read(source)
    assert str(caught.value).startswith(f"{where}:")


@pytest.mark.parametrize(
    ("name", "role", "consented", "may"),
    [
        ("ping", Role.MEMBER, False, True),
        ("ping", None, True, True),
        ("ping", Role.SUPPORT, True, True),
        ("ping", Role.SUPPORT, False, False),
        ("ping", None, False, False),
        ("reboot", Role.MEMBER, False, False),
        ("reboot", Role.ADMIN, False, True),
        ("reboot", Role.OWNER, False, True),
        ("reboot", Role.SUPPORT, True, False),
        ("log_level", None, True, False),
    ],
)
def test_who_may_send_it(name: str, role: Role | None, consented: bool, may: bool) -> None:
    capability = capabilities.read(SOURCE)[name]
    assert may_send(capability, Resource(role, consented=consented)) is may
