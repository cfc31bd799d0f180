"""What must be true of the store before requests are served, and what keeps it small."""

from __future__ import annotations

import asyncio

from gateway.errors import SchemaBehindError, StoreUnavailableError
from gateway.parts import GatewayParts
from gateway.policy.access import Staff
from gateway.policy.usernames import USERNAME_RULE, is_username
from gateway.store import identities, migrate, people, schema, upkeep
from gateway.store.transaction import AuditEvent, Transaction
from runtime.logs import get_logger

# Postgres may start after the gateway; this often is cheap and soon enough.
RETRY_S = 0.5
# Rows that no longer matter do no harm for a few minutes.
UPKEEP_EVERY_S = 300.0
# Nobody waits for it; after an outage of days there is much to delete.
UPKEEP_STATEMENT_S = 60.0

log = get_logger("gateway.preparation")


async def prepare(parts: GatewayParts, admin_password: str | None) -> None:
    """Migrate and create the administrator, as soon as Postgres answers. MigrationError is for a person."""
    migrations, said = migrate.load(), ""
    while True:
        try:
            await _migrate(parts, migrations)
            parts.database.prepared = True
            parts.feed.look_now()
            await _put_administrator(parts, admin_password)
            parts.administered.set()
            return
        except StoreUnavailableError as error:
            awaited = "the migrations" if isinstance(error, SchemaBehindError) else "Postgres"
            if said != awaited:
                said = awaited
                log.warning(f"waiting for {awaited}", extra={"reason": str(error)})
            await asyncio.sleep(RETRY_S)


async def keep_tidy(parts: GatewayParts) -> None:
    """Delete what has no use any more, for ever."""
    while True:
        await asyncio.sleep(UPKEEP_EVERY_S)
        try:
            async with parts.database.transaction(statement_s=UPKEEP_STATEMENT_S) as tx:
                gone = await upkeep.run(tx)
                parts.metrics.database_bytes.set(await upkeep.database_bytes(tx))
        except StoreUnavailableError:
            log.info("upkeep waits for Postgres")
            continue
        if gone:
            log.info("upkeep", extra={"rows": gone})


async def _migrate(parts: GatewayParts, migrations: list[migrate.Migration]) -> None:
    settings = parts.settings
    applied = await schema.put(settings.database(), settings.migration_database(), migrations)
    log.info("schema is right", extra={"applied": applied})


async def _put_administrator(parts: GatewayParts, password: str | None) -> None:
    """The local administrator exists and has the password of the file; a changed one ends old logins,
    API tokens and sessions.

    Never somebody who logs in by a provider.
    """
    settings = parts.settings
    if password is None and parts.welcome_sha256 is None:
        return
    async with parts.database.transaction() as tx:
        user = await people.find_user(tx, settings.admin_username)
        taken = user is not None and await identities.of_user(tx, user["id"])
    if taken:
        # Anybody may have signed up under this name before it was set: they must not become administrator.
        log.error(
            "admin_username belongs to a person of a login provider: set another one",
            extra={"username": settings.admin_username},
        )
        return
    if user is None and not is_username(settings.admin_username):
        # Somebody who has such a name from before keeps it; nobody new gets one.
        log.error(
            f"admin_username {USERNAME_RULE}: there is no administrator of the settings",
            extra={"username": settings.admin_username},
        )
        return
    if user is not None and (
        password is None or await parts.passwords.check(user["password_hash"], password)
    ):
        return
    password_hash = None if password is None else await parts.passwords.hash(password)
    async with parts.database.transaction() as tx:
        await _write_administrator(tx, settings.admin_username, password_hash, known=user is not None)


async def _write_administrator(
    tx: Transaction, username: str, password_hash: str | None, *, known: bool
) -> None:
    user_id = await people.put_user(tx, username, password_hash, Staff.ADMIN)
    if known:
        # As when somebody's password is changed through the API: who had the old one may have more by now.
        await people.end_all_of_user(tx, user_id)
    kind = "user.password_changed" if known else "user.created"
    tx.audit(AuditEvent(kind, "settings", owner=str(user_id), detail={"username": username}))
