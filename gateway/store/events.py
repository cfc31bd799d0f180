"""The numbered live events, what their followers may see, and whether they are still logged in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from gateway.policy.access import Role
from gateway.policy.live import Change, LiveEvent, Roles
from gateway.store.transaction import Transaction, unix, utc

READ_BATCH = 500  # one read; who lags more takes several
# A phone that was off over night goes on where it stopped; one that was off longer looks at everything anew.
KEPT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class EventHead:
    """`n` is the last number given, `pruned` the highest that was deleted."""

    n: int
    pruned: int


async def head(tx: Transaction) -> EventHead:
    row = await tx.fetchrow("SELECT n, pruned FROM event_head")
    assert row is not None  # the migration inserts it
    return EventHead(row["n"], row["pruned"])


async def after(tx: Transaction, position: int, upto: int | None = None) -> list[LiveEvent]:
    """At most READ_BATCH events behind `position`, in order, to `upto` (None: to the last)."""
    rows = await tx.fetch(
        "SELECT n, kind, at, org_id, site_id, user_id, device_id, ref FROM events"
        " WHERE n > $1 AND ($2::bigint IS NULL OR n <= $2) ORDER BY n LIMIT $3",
        position,
        upto,
        READ_BATCH,
    )
    return [
        LiveEvent(
            row["n"],
            unix(row["at"]),
            Change(
                row["kind"],
                org_id=row["org_id"],
                site_id=row["site_id"],
                user_id=row["user_id"],
                device_id=row["device_id"],
                ref=row["ref"],
            ),
        )
        for row in rows
    ]


async def roles_of(tx: Transaction, users: Iterable[UUID]) -> dict[UUID, Roles]:
    """What each of these people is, everywhere."""
    wanted = list(set(users))
    sites: dict[UUID, dict[str, Role]] = {user: {} for user in wanted}
    orgs: dict[UUID, dict[str, Role]] = {user: {} for user in wanted}
    known: dict[UUID, set[str]] = {user: set() for user in wanted}
    for row in await tx.fetch(
        "SELECT user_id, site_id, role FROM site_roles WHERE user_id = ANY($1)", wanted
    ):
        sites[row["user_id"]][row["site_id"]] = Role.of(row["role"])
    for row in await tx.fetch(
        "SELECT user_id, org_id, max(role) FILTER (WHERE site_id IS NULL) AS role FROM memberships"
        " WHERE user_id = ANY($1) GROUP BY user_id, org_id",
        wanted,
    ):
        known[row["user_id"]].add(row["org_id"])
        if row["role"] is not None:
            orgs[row["user_id"]][row["org_id"]] = Role.of(row["role"])
    return {user: Roles(sites[user], orgs[user], known[user]) for user in wanted}


async def still_in(
    tx: Transaction, logins: Sequence[UUID], tokens: Sequence[UUID], idle_s: float
) -> set[UUID]:
    """Those of the logins and API tokens that last, for many followers in one look (see `still_stands`).

    A browser's login (one with a cookie) that was idle for `idle_s` has ended; a stream is no use of it.
    """
    rows = await tx.fetch(
        "SELECT l.id FROM logins l JOIN users u ON u.id = l.user_id WHERE l.id = ANY($1)"
        " AND l.ended_at IS NULL AND l.expires_at > $3 AND u.disabled_at IS NULL"
        " AND (l.token_sha256 IS NULL OR l.seen_at > $4)"
        " UNION ALL SELECT t.id FROM api_tokens t JOIN users u ON u.id = t.user_id WHERE t.id = ANY($2)"
        " AND t.ended_at IS NULL AND t.expires_at > $3 AND u.disabled_at IS NULL",
        list(logins),
        list(tokens),
        tx.at,
        utc(tx.now - idle_s),
    )
    return {row["id"] for row in rows}


async def prune(tx: Transaction) -> int:
    """Forget what is older than KEPT_S; how many."""
    await tx.execute("SELECT 1 FROM event_head FOR UPDATE")
    last: int | None = await tx.fetchval(
        "WITH gone AS (DELETE FROM events WHERE at < $1 RETURNING n) SELECT max(n) FROM gone",
        utc(tx.now - KEPT_S),
    )
    if last is None:
        return 0
    pruned: int = await tx.fetchval(
        "UPDATE event_head SET pruned = $1 FROM (SELECT pruned FROM event_head) was"
        " RETURNING $1::bigint - was.pruned",
        last,
    )
    return pruned
