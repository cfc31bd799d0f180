"""How a login of a browser begins, whichever way the person proved who they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from fastapi import Request

from gateway.api.credentials import cookie_name, cookie_of
from gateway.api.limits import address_of
from gateway.parts import GatewayParts
from gateway.policy.user_agents import short_user_agent
from gateway.randomness import digest, new_secret
from gateway.store import logins, people
from gateway.store.transaction import AuditEvent, Transaction, utc


@dataclass(frozen=True, slots=True)
class BrowserLogin:
    """`secret` is the cookie's value, handed out once."""

    id: UUID
    secret: str


async def begin_login(
    tx: Transaction,
    parts: GatewayParts,
    request: Request,
    user_id: UUID,
    kind: Literal["password", "welcome", "provider"],
    provider: str | None = None,
) -> BrowserLogin:
    """A new login under a new secret: the one that the browser had before, planted or not, ends.

    The person is held (`people.hold_person`).
    """
    secret, address = new_secret(), address_of(request)
    login_id = await people.add_login(
        tx,
        user_id,
        digest(secret),
        kind,
        utc(tx.now + parts.settings.login_duration_s),
        provider=provider,
        address=address,
        user_agent=short_user_agent(request.headers.get("user-agent")),
    )
    former = cookie_of(request, cookie_name(parts.settings))
    if former is not None:
        await logins.replace(tx, digest(former), user_id, login_id)
    detail = {"kind": kind, "address": address} | ({} if provider is None else {"provider": provider})
    tx.audit(AuditEvent("login.begun", str(user_id), owner=str(user_id), detail=detail))
    return BrowserLogin(login_id, secret)
