"""Logins of programs and apps: how they begin, go on by refreshing, end when a secret was in two hands."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

from gateway.errors import BadTokenError
from gateway.parts import GatewayParts
from gateway.policy.authorization import verifier_fits
from gateway.policy.refresh import Trade, judge_refresh
from gateway.randomness import digest
from gateway.store import api_tokens, codes, people, refresh, sessions
from gateway.store.transaction import AuditEvent, Transaction, utc
from gateway.tokens.opaque import family_of, new_refresh_token


@dataclass(frozen=True, slots=True)
class Given:
    """What a program gets; the secrets are not kept here."""

    access_token: str
    expires_in: int
    """Seconds."""
    refresh_token: str


async def begin(
    tx: Transaction,
    parts: GatewayParts,
    user_id: UUID,
    kind: str,
    client_id: str,
    address: str,
    provider: str | None = None,
) -> tuple[UUID, Given]:
    """A new login of a program with its first tokens. `kind`, `provider`: how its person logged in; they are
    held (`people.hold_person`).
    """
    settings = parts.settings
    expires_at = tx.now + settings.refresh_absolute_s
    login_id = await refresh.add_program_login(
        tx, user_id, kind, client_id, utc(expires_at), provider=provider, address=address
    )
    family = uuid4()
    token = new_refresh_token(family)
    idle_at = min(tx.now + settings.refresh_idle_s, expires_at)
    await refresh.add_family(tx, family, login_id, digest(token), utc(idle_at))
    user = str(user_id)
    detail = {"kind": kind, "client": client_id, "address": address, "login": str(login_id)}
    tx.audit(AuditEvent("login.begun", user, owner=user, detail=detail))
    return login_id, _given(tx, parts, user_id, login_id, expires_at, token)


async def trade(
    tx: Transaction, parts: GatewayParts, token: str, client_id: str, address: str
) -> Given | None:
    """New tokens for a refresh token. None: it is good for nothing; a used one ended its login: commit."""
    try:
        row = await refresh.lock_family(tx, family_of(token))
    except BadTokenError:
        return None
    if row is None:
        return None
    presented = digest(token)
    decision = judge_refresh(row.family, client_id, presented, tx.now, parts.settings.refresh_grace_s)
    if decision is Trade.REFUSED:
        return None
    if decision is Trade.REUSED:
        await end(tx, row.login_id, row.user_id, "login.refresh_reused", address)
        return None
    if decision is Trade.REPEAT:
        # Harmless after a lost answer, and the one trace of somebody who was quick.
        detail = {"client": client_id, "address": address, "login": str(row.login_id)}
        tx.audit(AuditEvent("login.refresh_repeated", "anonymous", owner=str(row.user_id), detail=detail))
    successor = new_refresh_token(row.id)
    idle_at = min(tx.now + parts.settings.refresh_idle_s, row.login_expires_at)
    await refresh.rotate(tx, row.id, presented, digest(successor), idle_at)
    return _given(tx, parts, row.user_id, row.login_id, row.login_expires_at, successor)


async def redeem(
    tx: Transaction,
    parts: GatewayParts,
    code: str,
    client_id: str,
    redirect_uri: str,
    verifier: str,
    address: str,
) -> Given | None:
    """The login that an authorization code stands for. None: it is good for nothing (commit that).

    Whatever is wrong beside it, a code that was presented is used up: it was in the wrong hands.
    """
    code_sha256 = digest(code)
    person = await codes.person_of(tx, code_sha256)
    if person is None:
        return None
    await people.hold_person(tx, person)  # whether they may log in is said by the code, below
    found = await codes.lock(tx, code_sha256)
    if found is None:
        return None
    if found.used:
        if found.gave_login_id is not None:
            await end(tx, found.gave_login_id, found.user_id, "login.code_reused", address)
        return None
    fits = found.client_id == client_id and found.redirect_uri == redirect_uri
    if not (
        fits and found.live and tx.now < found.expires_at and verifier_fits(verifier, found.code_challenge)
    ):
        await codes.use_up(tx, code_sha256, None)
        return None
    login_id, given = await begin(tx, parts, found.user_id, found.kind, client_id, address, found.provider)
    await codes.use_up(tx, code_sha256, login_id)
    return given


async def end(tx: Transaction, login_id: UUID, user_id: UUID, kind: str, address: str) -> None:
    """End the login and what it opened; `kind` says in the audit log why. Once: a second time is not told."""
    if not await people.end_login(tx, login_id):
        return
    ended = await sessions.end_of_login(tx, login_id)
    detail = {"login": str(login_id), "sessions": ended, "address": address}
    tx.audit(AuditEvent(kind, "anonymous", owner=str(user_id), detail=detail))


async def end_api_token(tx: Transaction, token_id: UUID, user_id: UUID, actor: str) -> bool:
    """End an API token of the person's and what it opened. False: they have no such token."""
    ended = await api_tokens.end(tx, token_id, user_id)
    if ended is None:
        return False
    detail = {"token": str(token_id), "sessions": ended}
    tx.audit(AuditEvent("api_token.ended", actor, owner=str(user_id), detail=detail))
    return True


def _given(
    tx: Transaction, parts: GatewayParts, user_id: UUID, login_id: UUID, login_expires_at: float, token: str
) -> Given:
    ttl_s = max(1, min(parts.settings.access_token_ttl_s, int(login_expires_at - tx.now)))
    return Given(parts.tokens.access(user_id, login_id, tx.now, ttl_s), ttl_s, token)
