"""What the service's database role may do: write what it serves, and nothing else. The owner's role migrates.

With one role for both (a small installation) triggers alone keep the audit log, and whoever has the service's
password can drop those. With two they cannot.
"""

from __future__ import annotations

from typing import TypeAlias

import asyncpg

from gateway.errors import MigrationError
from gateway.store.migrate import LOCK_KEY, MIGRATION_TIMEOUT_S

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SCHEMA = "public"
EVERYTHING = "SELECT, INSERT, UPDATE, DELETE"
# Tables where the service may do less. A new table that is not here is one whose rows come and go.
LESS = {
    "audit_events": "SELECT, INSERT",
    "audit_head": "SELECT, UPDATE",
    "revocation_head": "SELECT, UPDATE",
    "schema_migrations": "SELECT",
    "site_roles": "SELECT",  # a view
}
# Functions that do with the owner's rights what the service needs and may not do itself.
FUNCTIONS = ("keep_history_parts(date, date, date)",)
# What gives more than a table's rights: roles of Postgres's own that read or write past them.
_POWERS = (
    "pg_write_all_data",
    "pg_execute_server_program",
    "pg_write_server_files",
    "pg_maintain",
    "pg_database_owner",
)


async def may_migrate(connection: Connection) -> bool:
    """Whether this connection's role can make tables here."""
    found: bool = await connection.fetchval("SELECT has_schema_privilege($1, 'CREATE')", SCHEMA)
    return found


async def grant(owner: Connection, service: str) -> None:
    """Give the role `service` its rights and no others, the same however often. `owner` made the tables.

    MigrationError when it has more by other ways.
    """
    await owner.execute("SELECT pg_advisory_lock($1)", LOCK_KEY, timeout=MIGRATION_TIMEOUT_S)
    try:
        async with owner.transaction():
            await _grant(owner, service)
        await _refuse_too_much(owner, service)
    finally:
        if not owner.is_closed():
            await owner.execute("SELECT pg_advisory_unlock($1)", LOCK_KEY)


async def _grant(owner: Connection, service: str) -> None:
    database, role = await owner.fetchrow("SELECT current_database(), $1::text", service) or ("", "")
    to, here = _quoted(role), _quoted(database)
    for statement in (
        f"REVOKE CREATE, TEMPORARY ON DATABASE {here} FROM PUBLIC, {to}",
        f"GRANT CONNECT ON DATABASE {here} TO {to}",
        f"REVOKE CREATE ON SCHEMA {SCHEMA} FROM PUBLIC, {to}",
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {to}",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA {SCHEMA} FROM PUBLIC, {to}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {SCHEMA} TO {to}",
    ):
        await owner.execute(statement)
    for table in await _tables(owner):
        rights = LESS.get(table, EVERYTHING)
        await owner.execute(f"GRANT {rights} ON {SCHEMA}.{_quoted(table)} TO {to}")
    for function in FUNCTIONS:
        await owner.execute(f"GRANT EXECUTE ON FUNCTION {SCHEMA}.{function} TO {to}")


async def _tables(owner: Connection) -> list[str]:
    """Tables and views of ours."""
    rows = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'p', 'v')"
        " AND pg_has_role(relowner, 'MEMBER') ORDER BY relname",
        SCHEMA,
    )
    return [row["relname"] for row in rows]


async def refuse_unfit(owner: Connection, service: str) -> None:
    """MigrationError when `service` has what two roles are there to part: then they protect nothing."""
    found = await owner.fetchrow(
        """
        SELECT
            r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls AS powerful,
            (SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FROM pg_class c
             WHERE c.relowner = r.oid AND c.relnamespace = $2::regnamespace AND c.relkind IN ('r', 'p', 'v')
            ) AS owned,
            (SELECT string_agg(o.rolname, ', ' ORDER BY o.rolname) FROM pg_roles o
             WHERE o.oid <> r.oid AND pg_has_role(r.oid, o.oid, 'MEMBER')
             AND (o.rolsuper OR o.rolcreaterole OR o.rolname = ANY($3) OR o.rolname = current_user)
            ) AS member_of
        FROM pg_roles r WHERE r.rolname = $1
        """,
        service,
        SCHEMA,
        list(_POWERS),
    )
    assert found is not None  # it logged in
    if found["powerful"]:
        raise _unfit(
            service, "is a superuser, or may make roles or databases, replicate or pass row security"
        )
    if found["owned"]:
        once = "once, as a superuser: REASSIGN OWNED BY the service's role TO the owner's"
        raise _unfit(service, f"owns {found['owned']} ({once})")
    if found["member_of"]:
        raise _unfit(service, f"is a member of {found['member_of']}")


async def _refuse_too_much(owner: Connection, service: str) -> None:
    """Rights that came from somebody else than `owner` are still there."""
    if await owner.fetchval("SELECT has_schema_privilege($1, $2, 'CREATE')", service, SCHEMA):
        raise _unfit(service, f"may make tables in the schema {SCHEMA}")
    changes = "UPDATE, DELETE, TRUNCATE, TRIGGER"
    if await owner.fetchval(
        "SELECT has_table_privilege($1, $2, $3)", service, f"{SCHEMA}.audit_events", changes
    ):
        raise _unfit(service, "may change audit_events")


def _unfit(service: str, why: str) -> MigrationError:
    return MigrationError(f"the service's database role {service} {why}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
