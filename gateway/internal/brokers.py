"""What stands beside a broker asks: may this device log in with this password, and who is revoked; and tells
what the broker refused to a device.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final, Literal

from fastapi import APIRouter
from pydantic import Field

from gateway.api.models import Body, Secret
from gateway.errors import Problem
from gateway.internal.peer import Ingest
from gateway.parts import Parts
from gateway.policy.limits import Limit
from gateway.policy.names import DEVICE_ID_PATTERN
from gateway.randomness import digest
from gateway.store import connections, devices
from gateway.store.transaction import AuditEvent

router = APIRouter(prefix="/internal/v1", tags=["internal"])


# A line a minute and device, from however many brokers: ingest tells it no oftener, by a clock of its own.
REFUSED_PER_DEVICE: Final = Limit("broker_refused", burst=1, refill_s=55.0)
REFUSED_MAX: Final = 100
"""Devices in one word of ingest's."""

_NO_NUL: Final = "^[^\\x00]*$"  # which no database keeps

DeviceId = Annotated[str, Field(pattern=f"^{DEVICE_ID_PATTERN.pattern}$")]


class BrokerLoginBody(Body):
    device_id: DeviceId
    password: Secret


class RefusedEntry(Body):
    """`topic`: of the first of `count` things that the device was not let do."""

    device_id: Annotated[str, Field(max_length=64, pattern=_NO_NUL)]
    what: Literal["publish", "subscribe", "will"]
    topic: Annotated[str, Field(max_length=200, pattern=_NO_NUL)]
    count: int = Field(ge=1, lt=2**53)


class RefusedBody(Body):
    refused: list[RefusedEntry] = Field(min_length=1, max_length=REFUSED_MAX)


@router.get("/devices/revocation-list")
async def revocation_list(parts: Parts) -> dict[str, str]:
    """Of the device CA, signed now: good for a week."""
    async with parts.database.reading() as reading:
        serials = await connections.revoked_serials(reading)
        signed = parts.keyring.device_ca.revocation_list(serials, reading.now)
    return {"pem": signed.decode("ascii")}


@router.post("/devices/broker-login", status_code=HTTPStatus.NO_CONTENT)
async def broker_login(body: BrokerLoginBody, parts: Parts) -> None:
    """The device is approved and this is its password."""
    async with parts.database.reading() as reading:
        good = await connections.may_log_in(reading, body.device_id, digest(body.password))
    if not good:
        raise Problem(HTTPStatus.UNAUTHORIZED, "wrong_login", "The device may not log in, or not with this.")


@router.post("/devices/refused", status_code=HTTPStatus.NO_CONTENT)
async def broker_refused(body: RefusedBody, peer: Ingest, parts: Parts) -> None:
    """The broker did not let these devices publish or hear: for the audit log, a line a minute and device."""
    for entry in body.refused:
        async with parts.database.reading() as reading:
            device = await devices.get(reading, entry.device_id)
        if device is None:  # a name in a certificate that is no device's, as an older installation's may be
            continue
        taken = await parts.shortlived.take([(REFUSED_PER_DEVICE, entry.device_id)])
        if taken.refused is not None:
            continue
        async with parts.database.transaction() as tx:
            tx.audit(
                AuditEvent(
                    "broker.refused",
                    entry.device_id,
                    site=device.site_id,
                    device=entry.device_id,
                    detail={
                        "what": entry.what,
                        "topic": entry.topic,
                        "count": entry.count,
                        "told_by": peer,
                    },
                )
            )
