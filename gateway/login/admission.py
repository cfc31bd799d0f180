"""Who may come in: from the claims of a provider to a user and a login, in one transaction."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from gateway.login.errors import NotAdmittedError
from gateway.login.flow import Person
from gateway.login.settings import ProviderSettings
from gateway.policy.access import Staff
from gateway.policy.usernames import usernames
from gateway.randomness import new_name_end
from gateway.store import identities, people
from gateway.store.transaction import AuditEvent, Transaction


def check_domain(person: Person, settings: ProviderSettings) -> None:
    """NotAdmittedError when the provider admits only some domains and does not vouch for one of them."""
    if not settings.email_domains:
        return
    if settings.preset == "google":
        # Anybody can open a Google account with an address elsewhere; `hd` says whose organisation it is in.
        domain = person.claims.get("hd")
    else:
        domain = (person.email or "").rpartition("@")[2] if person.email_verified else None
    if not isinstance(domain, str) or domain.casefold() not in settings.email_domains:
        raise NotAdmittedError(
            "email_domain", "Only people with a verified e-mail address of this organisation may log in here."
        )


async def admit(
    tx: Transaction, person: Person, provider_id: str, settings: ProviderSettings, reserved: Collection[str]
) -> UUID:
    """The user's id, held for a login; a new one at the first login, with a home of their own.
    NotAdmittedError.

    The key is (issuer, subject) and nothing else: an e-mail address that equals somebody's gives nothing.
    """
    check_domain(person, settings)
    # Two first logins at once must not make two users.
    await identities.lock(tx, person.issuer, person.subject)
    known = await identities.find(tx, person.issuer, person.subject)
    if known is not None:
        if not await people.hold_person(tx, known):
            raise NotAdmittedError(
                "account_disabled", "This account was disabled by an administrator.", user_id=known
            )
        await identities.note_use(
            tx, person.issuer, person.subject, provider_id, person.email, person.email_verified
        )
        return known
    if not settings.sign_up:
        raise NotAdmittedError(
            "no_account", "You have no account here, and new ones are not opened by logging in."
        )
    user_id = await _sign_up(tx, person, provider_id, reserved)
    await identities.add(
        tx, person.issuer, person.subject, user_id, provider_id, person.email, person.email_verified
    )
    return user_id


async def _sign_up(tx: Transaction, person: Person, provider_id: str, reserved: Collection[str]) -> UUID:
    claims = person.claims
    wishes = (claims.get("preferred_username"), person.email, claims.get("name"))
    for username in usernames(wishes, reserved, new_name_end()):
        user_id = await people.add_user(tx, username, None, Staff.USER)
        if user_id is not None:
            detail = {"username": username, "provider": provider_id}
            tx.audit(AuditEvent("user.created", str(user_id), owner=str(user_id), detail=detail))
            return user_id
    raise NotAdmittedError("no_account", "No free name was found for you. Try again.")
