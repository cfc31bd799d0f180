"""The gateway's side of a link with binding `browser`: look at it, then turn the click into a code."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter

from gateway.api.credentials import Credential, CredentialOf, acts, logged_in, permitted
from gateway.api.models import CodeAnswer, LinkAnswer, LinkBody, moment, support_notice
from gateway.errors import BadTokenError, Problem, login_needed
from gateway.parts import GatewayParts, Parts
from gateway.policy.access import Action, Resource
from gateway.policy.durations import LINK_CODE_TTL_S
from gateway.policy.links import LinkRefusal, refuse_code, refuse_look
from gateway.randomness import digest, new_secret
from gateway.store import sessions
from gateway.store.sessions import Link
from gateway.store.transaction import Transaction, utc

router = APIRouter(prefix="/v1/links", tags=["links"])

_TEXTS = {
    LinkRefusal.BINDING: (HTTPStatus.FORBIDDEN, "This link does not open this way."),
    LinkRefusal.USED: (HTTPStatus.GONE, "The link was used. Open the device again."),
    LinkRefusal.EXPIRED: (HTTPStatus.GONE, "The link has expired. Open the device again."),
    LinkRefusal.ENDED: (HTTPStatus.GONE, "The session has ended. Open the device again."),
    LinkRefusal.KIND: (HTTPStatus.FORBIDDEN, "This link is for another kind of service."),
    LinkRefusal.BAD: (HTTPStatus.BAD_REQUEST, "This is not a link of this gateway."),
}


def link_problem(refusal: LinkRefusal) -> Problem:
    """The refusal as the API tells it; its value is the problem's code."""
    status, detail = _TEXTS[refusal]
    return Problem(status, refusal.value, detail)


@router.post("/inspect", openapi_extra=acts(Action.LINK_INSPECT, frees=True))
async def inspect_link(body: LinkBody, credential: CredentialOf, parts: Parts) -> LinkAnswer:
    """What the link opens. Consumes nothing."""
    async with parts.database.transaction() as tx:
        link = await _own_link(tx, parts, credential, body.token, Action.LINK_INSPECT)
        refusal = refuse_look(link.facts, tx.now)
        if refusal is not None:
            raise link_problem(refusal)
    session = link.session
    return LinkAnswer(
        device=session.device_name,
        owner=session.owner,
        service=session.service,
        expires_at=moment(session.expires_at),
        support=support_notice(session),
    )


@router.post("/code", openapi_extra=acts(Action.LINK_CODE))
async def issue_code(body: LinkBody, credential: CredentialOf, parts: Parts) -> CodeAnswer:
    """A one-time code for the session's own user, good for ten seconds. A newer one replaces it."""
    code = new_secret()
    async with parts.database.transaction() as tx:
        link = await _own_link(tx, parts, credential, body.token, Action.LINK_CODE)
        refusal = refuse_code(link.facts, tx.now)
        if refusal is not None:
            raise link_problem(refusal)
        await sessions.put_code(tx, link.jti, digest(code), utc(tx.now + LINK_CODE_TTL_S))
    return CodeAnswer(code=code, url=f"{parts.settings.session_url(link.session.label)}#code.{code}")


async def _own_link(
    tx: Transaction, parts: GatewayParts, credential: Credential, token: str, action: Action
) -> Link:
    """The link, when it is for the person who asks in their browser."""
    if credential.kind != "cookie":
        # The binding is to the browser that holds the login: a bearer token is no browser.
        raise login_needed()
    actor = await logged_in(tx, parts, credential)
    try:
        claims = parts.tokens.read_link(token, tx.now)
    except BadTokenError as error:
        raise link_problem(LinkRefusal.BAD) from error
    link = await sessions.link_by_jti(tx, claims.jti)
    mine = link is not None and link.session.user_id == actor.user_id
    return permitted(actor, action, link, Resource(mine=True) if mine else None, "link")
