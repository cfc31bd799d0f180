"""Where a device sends its messages to, and as whom: asked with its key before it dials the broker."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from gateway.api.credentials import DEVICE, acts
from gateway.api.enrolments import decode_base64url, renewable
from gateway.api.limits import RENEW_PER_ADDRESS, take
from gateway.api.models import Body, Secret
from gateway.errors import Problem
from gateway.keys import csr
from gateway.parts import Parts
from gateway.randomness import digest, new_secret
from gateway.store import connections, devices

CONNECTION_PURPOSE = b"towline-connection-v1"

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


class ConnectionAnswer(BaseModel):
    prefix: Annotated[str, Field(description="The first four tokens of its topics.")]
    mqtt: Annotated[BrokerFacts | None, Field(description="null: this installation takes no messages.")]


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
        settings = parts.settings
        if settings.device_mqtt_url is None:
            return ConnectionAnswer(prefix=prefix, mqtt=None)
        password = None
        if settings.device_mqtt_url.startswith("mqtt://"):
            password = new_secret()
            await connections.put_password(tx, device_id, digest(password))
    ca = parts.keyring.server_ca.pem() if settings.agents_trust_server_ca else None
    return ConnectionAnswer(
        prefix=prefix, mqtt=BrokerFacts(url=settings.device_mqtt_url, ca=ca, password=password)
    )
