"""What devices of one type can be asked to do, and whether somebody may ask it of them.

A type's capabilities are `{"commands": {NAME: {"params": schema, "timeout_s": 60, "role": "member",
"support": false}}, "config": schema}`; the schemas are device_protocol.schema's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from device_protocol.schema import Schema, SchemaError
from device_protocol.topics import TOKEN
from gateway.policy.access import Resource, Role
from gateway.policy.commands import TIMEOUT_MAX_S

TIMEOUT_DEFAULT_S: Final = 60
COMMANDS_MAX: Final = 64  # a device with more has a language of its own: it takes `run`
RUN: Final = "run"
"""Runs one of the device's own executables: its `name` is announced as `run:NAME`."""

_MEMBERS: Final = frozenset({"params", "timeout_s", "role", "support"})
_ROLES: Final = {"member": Role.MEMBER, "admin": Role.ADMIN, "owner": Role.OWNER}


class BadCapabilitiesError(ValueError):
    """They are none; the text says where and why."""


class UnsupportedError(Exception):
    """The device does not know the command; the text says which."""


class BadParameterError(Exception):
    """`field` of the parameters is not what the type says; the text says why, never with the value."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


@dataclass(frozen=True, slots=True)
class Capability:
    """One command that a type knows."""

    name: str
    params: Schema
    timeout_s: int = TIMEOUT_DEFAULT_S
    """From its receipt by the device, when the sender sets none."""
    role: Role = Role.MEMBER
    """The least that may send it."""
    support: bool = False
    """Whether the owner's consent to support is enough."""


Capabilities = Mapping[str, Capability]
"""By the command's name."""


def read(source: Mapping[str, Any]) -> Capabilities:
    """BadCapabilitiesError."""
    unknown = set(source) - {"commands", "config"}
    if unknown:
        raise BadCapabilitiesError(f"{min(unknown)}: there is no such member")
    commands = source.get("commands")
    if not isinstance(commands, dict) or len(commands) > COMMANDS_MAX:
        raise BadCapabilitiesError(f"commands: must be an object of at most {COMMANDS_MAX}")
    if "config" in source:
        _schema(source["config"], "config")
    return {name: _capability(name, one) for name, one in commands.items()}


def choose(
    capabilities: Capabilities, announced: Collection[str] | None, name: str, params: Mapping[str, Any]
) -> Capability:
    """The capability by which the device does `name` with these. UnsupportedError, BadParameterError.

    `announced`: what the device itself said it executes; None: it has not said hello yet, and its type alone
    decides (the device refuses what it cannot).
    """
    capability = capabilities.get(name)
    if capability is None:
        raise UnsupportedError(f"Devices of this type know no command {name!r}.")
    fault = capability.params.fault(dict(params))
    if fault is not None:
        raise BadParameterError(field_of("params", fault), fault)
    wanted = f"{RUN}:{params.get('name')}" if name == RUN else name
    if announced is not None and wanted not in announced:
        raise UnsupportedError(f"The device has not announced {wanted!r}.")
    return capability


def may_by_role(capability: Capability, resource: Resource) -> bool:
    """Whether the role of somebody who sees the device so is enough to send this to it."""
    return resource.role is not None and resource.role >= capability.role


def may_send(capability: Capability, resource: Resource) -> bool:
    """As `may_by_role`, or by a consent where that is enough."""
    return may_by_role(capability, resource) or (capability.support and resource.consented)


def _capability(name: str, source: object) -> Capability:
    where = f"commands.{name}"
    if TOKEN.fullmatch(name) is None:
        raise BadCapabilitiesError("commands: a name is 1..64 characters of a-z, 0-9, _ and -")
    if not isinstance(source, dict) or set(source) - _MEMBERS:
        raise BadCapabilitiesError(f"{where}: must be an object of {', '.join(sorted(_MEMBERS))}")
    timeout_s = source.get("timeout_s", TIMEOUT_DEFAULT_S)
    if type(timeout_s) is not int or not 1 <= timeout_s <= TIMEOUT_MAX_S:
        raise BadCapabilitiesError(f"{where}.timeout_s: must be 1..{TIMEOUT_MAX_S} whole seconds")
    role = source.get("role", "member")
    if not isinstance(role, str) or role not in _ROLES:
        raise BadCapabilitiesError(f"{where}.role: must be one of {', '.join(_ROLES)}")
    support = source.get("support", False)
    if not isinstance(support, bool):
        raise BadCapabilitiesError(f"{where}.support: must be true or false")
    params = source.get("params", {"type": "object", "additionalProperties": False})
    return Capability(name, _schema(params, f"{where}.params"), timeout_s, _ROLES[role], support)


def _schema(source: object, where: str) -> Schema:
    try:
        return Schema(source)
    except SchemaError as error:
        raise BadCapabilitiesError(f"{where}: {error}") from error


def field_of(root: str, fault: str) -> str:
    """Of `a: b: missing` it is root.a.b."""
    path = takewhile(lambda part: part.isidentifier(), fault.split(": ")[:-1])
    return ".".join((root, *path))
