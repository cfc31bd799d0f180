"""The way out for somebody who lost a phone: one call ends what they are logged in with, wherever it is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from gateway.api.credentials import CredentialOf, acts, clear_login_cookie, require
from gateway.api.models import Body
from gateway.parts import Parts
from gateway.policy.access import Action
from gateway.store import people, sessions
from gateway.store.transaction import AuditEvent

router = APIRouter(tags=["login"])


class EverywhereBody(Body):
    api_tokens: Annotated[bool, Field(description="End the person's API tokens too.")] = False


class EverywhereAnswer(BaseModel):
    """How many of each ended."""

    logins: int
    api_tokens: int
    sessions: int


@router.post("/v1/me/logout-everywhere", openapi_extra=acts(Action.ACCOUNT, frees=True))
async def log_out_everywhere(
    credential: CredentialOf, response: Response, parts: Parts, body: EverywhereBody | None = None
) -> EverywhereAnswer:
    """End every login of the person, this one too: browsers, programs, apps with their refresh tokens.

    Their sessions end within two seconds, also those that an API token opened.
    """
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.ACCOUNT)
        if body is not None and body.api_tokens:
            ended = await people.end_all_of_user(tx, actor.user_id)
        else:
            ended = {
                "logins": await people.end_logins(tx, actor.user_id),
                "api_tokens": 0,
                "sessions": await sessions.end_of_user(tx, actor.user_id),
            }
        user = str(actor.user_id)
        tx.audit(AuditEvent("login.ended_everywhere", user, owner=user, detail=dict(ended)))
    clear_login_cookie(response, parts.settings)
    return EverywhereAnswer(**ended)
