"""`python -m gateway audit-verify --config FILE`: has anybody changed the audit log?"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from gateway.errors import StoreUnavailableError
from gateway.settings import Settings
from gateway.store import audit
from gateway.store.database import Database
from runtime.clock import SYSTEM_CLOCK
from runtime.process import EXIT_BAD_SETTINGS, EXIT_OK
from runtime.settings import SettingsError, load

COMMAND = "audit-verify"
EXIT_BROKEN = 1  # the log was changed, or it could not be read


def audit_verify(arguments: Sequence[str]) -> int:
    """The exit code: 0 the chain holds, 1 it does not or cannot be read, 2 bad settings."""
    parser = argparse.ArgumentParser(prog=f"python -m gateway {COMMAND}")
    parser.add_argument("--config", type=Path, required=True, help="the gateway's settings file")
    parsed = parser.parse_args(arguments)
    try:
        settings = load(Settings, parsed.config)
        broken = asyncio.run(_first_broken(settings.database(), settings.database_field))
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    except (StoreUnavailableError, asyncpg.PostgresError) as error:
        print(f"gateway: the audit log cannot be read: {error}", file=sys.stderr)
        return EXIT_BROKEN
    if broken is not None:
        print(f"gateway: event {broken} of the audit log was altered, removed or moved", file=sys.stderr)
        return EXIT_BROKEN
    print("the audit log is whole")
    return EXIT_OK


async def _first_broken(url: str, field: str) -> int | None:
    database = Database(url, pool_max=1, wall=SYSTEM_CLOCK.wall)
    await database.check_url(field)
    await database.open()
    database.prepared = True  # a schema that is not there says so itself
    try:
        async with database.transaction() as tx:
            # One snapshot: events that are added meanwhile must not look like a head that does not fit.
            await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            return await audit.first_broken(tx)
    finally:
        await database.close()
