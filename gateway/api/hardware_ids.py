"""Hardware ids that somebody else's device was enrolled with: the way out for who has the true one."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter
from pydantic import AfterValidator, Field

from gateway.api.credentials import CredentialOf, acts, require
from gateway.api.models import Body, HardwareId
from gateway.errors import not_found
from gateway.parts import Parts
from gateway.policy.access import Action
from gateway.policy.names import clean_name
from gateway.policy.support import REASON_MAX
from gateway.store import devices
from gateway.store.transaction import AuditEvent

router = APIRouter(tags=["enrolment"])


class FreeBody(Body):
    hardware_id: HardwareId
    reason: Annotated[
        str,
        AfterValidator(lambda text: clean_name(text, REASON_MAX)),
        Field(description="What those read who run the site of the device that has it."),
    ]


@router.post(
    "/v1/hardware-ids/free",
    status_code=HTTPStatus.NO_CONTENT,
    openapi_extra=acts(Action.HARDWARE_ID_FREE),
)
async def free_hardware_id(body: FreeBody, credential: CredentialOf, parts: Parts) -> None:
    """Let another device enrol with an id that one has which does not bear it.

    The device that had it stays as it is: it never was anything by that id. Its site's audit log says why.
    """
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.HARDWARE_ID_FREE)
        found = await devices.free_hardware_id(tx, body.hardware_id)
        if found is None:
            raise not_found("hardware id in use")
        device, site = found
        detail = {"hardware_id": body.hardware_id, "reason": body.reason}
        user = str(actor.user_id)
        tx.audit(AuditEvent("device.hardware_id_freed", user, site=site, device=device, detail=detail))
