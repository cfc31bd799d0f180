"""What devices say over HTTPS where no broker is in reach: into the same intake as what a broker brings."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema

from gateway.api.credentials import DEVICE, acts, credential_of
from gateway.api.limits import TELEMETRY_PER_DEVICE, take
from gateway.api.models import Body
from gateway.errors import BadTokenError, Problem
from gateway.handing_over import MESSAGES_MAX, IngestUnavailableError
from gateway.parts import GatewayParts, Parts
from gateway.store import connections

TELEMETRY_PATH: Final = "/v1/telemetry"
MESSAGE_MAX: Final = 32 * 1024
"""Characters of one message: the bytes that a broker takes. What is over 24 KiB becomes a dead letter."""
MESSAGE_MEMBER: Final = re.compile(r"messages\.[0-9]+\.message")
"""Where a body has the texts that may be odd: ingest judges them, each by itself."""
RETRY_S: Final = 5  # as the device's own first patience

router = APIRouter(tags=["messages"])


def _text(value: object) -> str:
    """Any text, half a surrogate pair too, which pydantic's own refuses with all messages beside it."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    if len(value) > MESSAGE_MAX:
        raise ValueError(f"must have at most {MESSAGE_MAX} characters")
    return value


class SaidMessage(Body):
    """One message, as it would be published on the topic of this kind."""

    kind: Literal["state", "telemetry", "event", "heartbeat"]
    message: Annotated[
        str,
        PlainValidator(_text),
        WithJsonSchema({"type": "string", "maxLength": MESSAGE_MAX, "title": "Message"}),
        Field(
            description="The envelope's JSON, as text: its bytes stay as they are, and what is wrong with one"
            " is no other's affair.",
        ),
    ]


class TelemetryBody(Body):
    messages: Annotated[list[SaidMessage], Field(min_length=1, max_length=MESSAGES_MAX)]


class AcceptedNumber(BaseModel):
    boot: int
    seq: int


class RefusedMessage(BaseModel):
    """A dead letter outside of the line. `id` null: it could not be read."""

    id: str | None
    reason: str


class TelemetryAnswer(BaseModel):
    """`accepted`: the log durably holds everything up to this number; null: nothing is known to be kept."""

    accepted: AcceptedNumber | None
    refused: list[RefusedMessage]


@router.post(TELEMETRY_PATH, openapi_extra=acts(DEVICE))
async def say(body: TelemetryBody, request: Request, parts: Parts) -> TelemetryAnswer:
    """Take a device's numbered messages, in their order, by the token of its connection. What the answer does
    not accept the device keeps and says again: some of it may have been taken nevertheless.
    """
    device_id = _device(parts, request)
    await take(parts, request, (TELEMETRY_PER_DEVICE, device_id))
    async with parts.database.reading() as reading:
        found = await connections.status_of(reading, device_id)
    if found is None:
        raise _bad_token()
    status, prefix = found
    if status != "approved":
        raise Problem(HTTPStatus.FORBIDDEN, f"device_{status}", f"The device is {status}.")
    try:
        said = [(one.kind, one.message) for one in body.messages]
        taken = await parts.handing_over.take(device_id, prefix, said)
    except IngestUnavailableError:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "ingest_unavailable",
            "Messages cannot be taken now.",
            retry_after_s=RETRY_S,
        ) from None
    accepted = taken.accepted
    return TelemetryAnswer(
        accepted=None if accepted is None else AcceptedNumber(boot=accepted.boot, seq=accepted.seq),
        refused=[RefusedMessage(id=id, reason=reason) for id, reason in taken.refused],
    )


def _device(parts: GatewayParts, request: Request) -> str:
    """Whose token it is."""
    credential = credential_of(request, parts)
    try:
        return parts.tokens.read_device(
            credential.value if credential.kind == "bearer" else "", parts.clock.wall()
        )
    except BadTokenError:
        raise _bad_token() from None


def _bad_token() -> Problem:
    return Problem(
        HTTPStatus.UNAUTHORIZED, "bad_device_token", "This is no token of a device, or it is over."
    )
