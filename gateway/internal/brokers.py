"""What stands beside a broker asks: may this device log in with this password, and who is revoked."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from gateway.api.models import Body, Secret
from gateway.errors import Problem
from gateway.parts import Parts
from gateway.policy.names import DEVICE_ID_PATTERN
from gateway.randomness import digest
from gateway.store import connections

router = APIRouter(prefix="/internal/v1", tags=["internal"])


class BrokerLoginBody(Body):
    device_id: Annotated[str, Field(pattern=f"^{DEVICE_ID_PATTERN.pattern}$")]
    password: Secret


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
