"""What stands in the database, to compare before and after."""

from __future__ import annotations

import asyncpg

# Counting what was refused is what they are for.
COUNTERS = frozenset({"rate_limits"})
# So are these lines of the audit log, which are told beside the request.
REFUSED = "kind IN ('login.failed', 'login.limited')"
BUT_REFUSED = {
    "audit_events": f"(SELECT * FROM audit_events WHERE NOT {REFUSED})",
    "audit_head": f"(SELECT seq - (SELECT count(*) FROM audit_events WHERE {REFUSED}) FROM audit_head)",
}


async def contents(connection: asyncpg.Connection[asyncpg.Record]) -> dict[str, str]:
    """How many rows each table has and a digest of all of them; without what counts refused requests."""
    names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    found = {}
    for name in sorted({str(row["tablename"]) for row in names} - COUNTERS):
        found[name] = await connection.fetchval(
            f"SELECT count(*) || ' rows ' || coalesce(md5(string_agg(t::text, ' ' ORDER BY t::text)), '')"
            f" FROM {BUT_REFUSED.get(name, name)} t"
        )
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The tables that differ."""
    return sorted(name for name in before | after if before.get(name) != after.get(name))
