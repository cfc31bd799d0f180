"""Where a device sends its messages to, and as whom: asked with its key before it dials the broker."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from device_protocol.numbers import NOTHING
from gateway.api.credentials import DEVICE, acts
from gateway.api.device_messages import TELEMETRY_PATH
from gateway.api.enrolments import decode_base64url, renewable
from gateway.api.limits import RENEW_PER_ADDRESS, take
from gateway.api.models import Body, Secret
from gateway.errors import Problem
from gateway.keys import csr
from gateway.parts import GatewayParts, Parts
from gateway.randomness import digest, new_secret
from gateway.store import connections, devices, messages
from gateway.store.transaction import Transaction

CONNECTION_PURPOSE = b"towline-connection-v1"
TOKEN_TTL_S: Final = 900  # as a person's access token; whether the device may still is looked up each time

router = APIRouter(tags=["messages"])


class ConnectionBody(Body):
    nonce: Annotated[Secret, Field(description="Of `/v1/devices/{device_id}/certificate/challenge`.")]
    signature: Annotated[
        Secret,
        Field(description="By the device's key over `towline-connection-v1`, the nonce's bytes and its id."),
    ]


class BrokerFacts(BaseModel):
    url: Annotated[str, Field(description="`mqtts://host:port`, or `mqtt://` on loopback.")]
    ca: Annotated[str | None, Field(description="PEM of whom to trust as the broker; null: the system's.")]
    password: Annotated[
        str | None,
        Field(description="Its user name is its id. null: the broker asks for the device's certificate."),
    ]


class Known(BaseModel):
    boot: int
    seq: int


class TelemetryFacts(BaseModel):
    url: Annotated[str, Field(description="Where to POST messages; see `/v1/telemetry`.")]
    token: Annotated[str, Field(description="Bearer, for that alone.")]
    expires_in: Annotated[int, Field(description="Seconds; then ask for the connection again.")]
    known: Annotated[
        Known, Field(description="The highest number that was ever taken from it, 0.0 for none.")
    ]


class ConnectionAnswer(BaseModel):
    prefix: Annotated[str, Field(description="The first four tokens of its topics.")]
    mqtt: Annotated[BrokerFacts | None, Field(description="null: there is no broker for it.")]
    telemetry: Annotated[
        TelemetryFacts | None,
        Field(description="For where the broker cannot be reached; null: there is no other way."),
    ]


@router.post("/v1/devices/{device_id}/connection", openapi_extra=acts(DEVICE))
async def connection(
    device_id: str, body: ConnectionBody, request: Request, parts: Parts
) -> ConnectionAnswer:
    """The device's topics and its broker, against the signed nonce. A password given before ends."""
    await take(parts, request, (RENEW_PER_ADDRESS, None))
    nonce = decode_base64url(body.nonce, "nonce")
    signature = decode_base64url(body.signature, "signature")
    message = CONNECTION_PURPOSE + nonce + device_id.encode()
    async with parts.database.transaction() as tx:
        device = await renewable(tx, device_id)
        if not csr.signature_holds(device.public_key, signature, message):
            raise Problem(HTTPStatus.FORBIDDEN, "bad_signature", "The signature is not by the device's key.")
        if not await devices.burn_nonce(tx, device_id, digest(body.nonce)):
            raise Problem(HTTPStatus.FORBIDDEN, "bad_nonce", "The nonce is unknown, used or too old.")
        prefix = await connections.prefix_of(tx, device_id)
        assert prefix is not None  # the device is held
        return ConnectionAnswer(
            prefix=prefix,
            mqtt=await _broker(tx, parts, device_id),
            telemetry=await _other(tx, parts, device_id),
        )


async def _broker(tx: Transaction, parts: GatewayParts, device_id: str) -> BrokerFacts | None:
    settings = parts.settings
    if settings.device_mqtt_url is None:
        return None
    password = None
    if settings.device_mqtt_url.startswith("mqtt://"):
        password = new_secret()
        await connections.put_password(tx, device_id, digest(password))
    ca = parts.keyring.server_ca.pem() if settings.agents_trust_server_ca else None
    return BrokerFacts(url=settings.device_mqtt_url, ca=ca, password=password)


async def _other(tx: Transaction, parts: GatewayParts, device_id: str) -> TelemetryFacts | None:
    if not parts.handing_over.is_offered:
        return None
    known = (await messages.lines_of(tx, [device_id])).get(device_id, NOTHING)
    return TelemetryFacts(
        url=f"{parts.settings.public_url}{TELEMETRY_PATH}",
        token=parts.tokens.device(device_id, tx.now, TOKEN_TTL_S),
        expires_in=TOKEN_TTL_S,
        known=Known(boot=known.boot, seq=known.seq),
    )
