"""The schema before requests are served: put there by the owner's role, only looked at by the service's."""

from __future__ import annotations

import asyncpg

from gateway.errors import MigrationError, SchemaBehindError
from gateway.store import migrate, roles
from gateway.store.database import CONNECT_TIMEOUT_S, translated
from gateway.store.migrate import Migration
from gateway.store.transaction import COMMAND_TIMEOUT_S


async def put(service_url: str, owner_url: str | None, migrations: list[Migration]) -> int:
    """Apply what is missing and give the service's role its rights; how many were applied.

    `owner_url` None: there is one role for both, or somebody else migrates (`towline gateway migrate`): then
    SchemaBehindError while they have not. StoreUnavailableError when Postgres does not answer, MigrationError
    when a person must look.
    """
    try:
        async with translated():
            if owner_url is None:
                return await _by_service(service_url, migrations)
            return await _by_owner(service_url, owner_url, migrations)
    except asyncpg.PostgresError as error:
        raise MigrationError(f"a migration failed: {error}") from error


async def _by_service(service_url: str, migrations: list[Migration]) -> int:
    connection = await _connect(service_url)
    try:
        if await roles.may_migrate(connection):
            return await migrate.migrate(connection, migrations)
        behind = await migrate.missing(connection, migrations)
        if behind:
            raise SchemaBehindError(f"the schema lacks {behind[0].name}: run `towline gateway migrate`")
        return 0
    finally:
        connection.terminate()


async def _by_owner(service_url: str, owner_url: str, migrations: list[Migration]) -> int:
    service = await _connect(service_url)
    try:
        name: str = await service.fetchval("SELECT current_user")
        where: str = await service.fetchval("SELECT current_database()")
    finally:
        service.terminate()
    owner = await _connect(owner_url)
    try:
        if where != await owner.fetchval("SELECT current_database()"):
            raise MigrationError("the URL for migrations leads to another database than the service's")
        parted = name != await owner.fetchval("SELECT current_user")
        if parted:
            await roles.refuse_unfit(owner, name)
        applied = await migrate.migrate(owner, migrations)
        if parted:
            await roles.grant(owner, name)
        return applied
    finally:
        owner.terminate()


async def _connect(url: str) -> roles.Connection:
    return await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S)
