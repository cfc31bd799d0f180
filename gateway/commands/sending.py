"""The one entry by which a command begins, whoever sends it: a person, an automation, a reset."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal
from uuid import UUID

from device_protocol import strict_json
from device_protocol.envelope import TRACE
from device_protocol.ids import RANDOM_BYTES, uuid7
from gateway.errors import Problem
from gateway.policy import capabilities
from gateway.policy.access import Resource
from gateway.policy.capabilities import (
    BadParameterError,
    Capability,
    UnsupportedError,
    may_by_role,
    may_send,
)
from gateway.policy.commands import OPEN_PER_DEVICE, TTL_DEFAULT_S, TTL_NOW_S
from gateway.store import commands, device_types
from gateway.store.commands import Grounds, Order
from gateway.store.device_types import Asked
from gateway.store.devices import Device
from gateway.store.transaction import AuditEvent, Transaction
from runtime.logs import get_logger

# With the rest of the message they stay far below what a broker passes on and a small device can hold.
PARAMS_MAX: Final = 4096
AWAY_RETRY_S: Final = 30  # a device that lost its line is back in about that time, or not soon

Origin = Literal["api", "automation", "reset"]

log = get_logger("gateway.commands")


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks for it: how they see the device, and by what they are here."""

    user_id: UUID
    resource: Resource
    login_id: UUID | None
    api_token_id: UUID | None
    support_id: UUID | None
    """The consent of `resource`."""


@dataclass(frozen=True, slots=True)
class Sender:
    """On whose behalf. `actor` is for the audit log, `author` for people."""

    actor: str
    author: str
    origin: Origin
    person: Person | None
    """None: nobody, and what may send it was decided elsewhere."""
    until: float | None = None
    """What entitles them ends then, and so does the command; None: it does not end."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be done. `queue` False: now or not at all, whatever `ttl_s` is."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    ttl_s: int = TTL_DEFAULT_S
    timeout_s: int | None = None
    """None: as the type says."""
    queue: bool = True
    trace: str | None = None
    """`traceparent` of whoever asks; None: a new trace begins here."""


async def send(tx: Transaction, device: Device, sender: Sender, wanted: Wanted, lease_s: float) -> Order:
    """Check it all, then store it; give the order to `Dispatcher.publish_now` once this is committed.

    `device` is held by the transaction. Problem, and nothing stored, when it may not, cannot or need not be.
    `lease_s`: the dispatcher's.
    """
    if device.status != "approved":
        raise Problem(HTTPStatus.CONFLICT, "device_not_approved", f"The device is {device.status}.")
    asked = await device_types.of_device(tx, device.id)
    capability = _chosen(asked, sender, wanted)
    if not wanted.queue and not asked.online:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "device_away",
            "The device is not connected, and the command may not wait for it.",
            retry_after_s=AWAY_RETRY_S,
        )
    if await commands.count_open(tx, device.id) >= OPEN_PER_DEVICE:  # the device is held: nobody adds one
        raise Problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too_many_commands",
            f"{OPEN_PER_DEVICE} commands wait for the device. Wait until some have ended.",
            retry_after_s=AWAY_RETRY_S,
        )
    expires_at = tx.now + (wanted.ttl_s if wanted.queue else min(wanted.ttl_s, TTL_NOW_S))
    command = await commands.add(
        tx,
        command_id=UUID(uuid7(int(tx.now * 1000), secrets.token_bytes(RANDOM_BYTES))),
        device_id=device.id,
        site_id=device.site_id,
        device_type=asked.type.id,
        author=sender.author,
        origin=sender.origin,
        grounds=_grounds(capability, sender.person),
        name=wanted.name,
        params=wanted.params,
        queue=wanted.queue,
        expires_at=expires_at if sender.until is None else min(expires_at, sender.until),
        timeout_s=capability.timeout_s if wanted.timeout_s is None else wanted.timeout_s,
        trace=new_trace(wanted.trace),
        lease_s=lease_s,
    )
    # Parameters may hold what people call secret: they stay in the row, which goes; the log is for ever.
    detail = {"command": str(command.id), "name": command.name, "origin": command.origin}
    tx.audit(AuditEvent("command.sent", sender.actor, site=device.site_id, device=device.id, detail=detail))
    facts = {"command": str(command.id), "command_name": command.name, "device": device.id}
    log.info("a command is made", extra=facts | {"trace": command.trace})
    return Order(command, asked.org_id)


def new_trace(parent: str | None = None) -> str:
    """A `traceparent` (W3C Trace Context): one id for the command's whole way, `parent`'s if that is one."""
    trace_id = secrets.token_hex(16)
    if parent is not None and TRACE.fullmatch(parent) is not None:
        trace_id = parent.split("-")[1]
    return f"00-{trace_id}-{secrets.token_hex(8)}-01"


def _chosen(asked: Asked, sender: Sender, wanted: Wanted) -> Capability:
    if len(strict_json.dumps(wanted.params)) > PARAMS_MAX:
        raise _bad_parameter("params", f"more than {PARAMS_MAX} bytes")
    known = capabilities.read(asked.type.capabilities)
    try:
        capability = capabilities.choose(known, asked.announced, wanted.name, wanted.params)
    except UnsupportedError as error:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "unsupported_command", str(error), field="name"
        ) from error
    except BadParameterError as error:
        raise _bad_parameter(error.field, str(error)) from error
    if sender.person is not None and not may_send(capability, sender.person.resource):
        raise Problem(HTTPStatus.FORBIDDEN, "forbidden", "Your role does not allow this command.")
    return capability


def _grounds(capability: Capability, person: Person | None) -> Grounds | None:
    """What must still be so when the device is told."""
    if person is None:
        return None
    by_role = may_by_role(capability, person.resource)
    return Grounds(
        person.user_id,
        person.login_id,
        person.api_token_id,
        role=capability.role if by_role else None,
        support_id=None if by_role else person.support_id,
    )


def _bad_parameter(field: str, why: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "bad_parameter", why, field=field)
