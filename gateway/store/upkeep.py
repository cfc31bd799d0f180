"""Deleting what has no use any more. Sessions stay for a while: their labels must never come back."""

from __future__ import annotations

from gateway.store import events, feed
from gateway.store.transaction import Transaction, utc

# The list of past sessions that people may ask about; the audit log keeps the fact for ever.
SESSION_KEPT_S = 90 * 86_400.0
# Ended logins, used tokens, nonces: kept a day so that a late look finds out what happened.
TRACE_KEPT_S = 86_400.0
# What was wrong with a message is looked into within a month or not at all; its body is somebody's data.
DEAD_LETTER_KEPT_S = 30 * 86_400.0
COMMAND_KEPT_S = 90 * 86_400.0
# Read and no more needed, but for a look at what just happened.
LOG_KEPT_S = 3_600.0


async def run(tx: Transaction) -> int:
    """Rows deleted."""
    trace, session = utc(tx.now - TRACE_KEPT_S), utc(tx.now - SESSION_KEPT_S)
    gone = await tx.execute("DELETE FROM renewal_nonces WHERE expires_at < $1", tx.at)
    gone += await tx.execute("DELETE FROM rate_limits WHERE tat < $1", tx.at)
    gone += await tx.execute("DELETE FROM short_lived WHERE expires_at < $1", tx.at)
    gone += await tx.execute("DELETE FROM authorization_codes WHERE expires_at < $1", trace)
    gone += await tx.execute("DELETE FROM api_tokens WHERE expires_at < $1", session)
    gone += await tx.execute("DELETE FROM logins WHERE expires_at < $1", trace)
    gone += await tx.execute("DELETE FROM registration_tokens WHERE expires_at < $1", trace)
    gone += await tx.execute("DELETE FROM links WHERE expires_at < $1", trace)
    gone += await tx.execute("DELETE FROM invitations WHERE expires_at < $1", trace)
    gone += await tx.execute("DELETE FROM request_log WHERE at < $1", session)
    gone += await tx.execute("DELETE FROM sessions WHERE expires_at < $1", session)
    gone += await tx.execute("DELETE FROM device_certificates WHERE expires_at < $1", session)
    gone += await tx.execute("DELETE FROM idempotency_keys WHERE created_at < $1", trace)
    gone += await tx.execute("DELETE FROM dead_letters WHERE at < $1", utc(tx.now - DEAD_LETTER_KEPT_S))
    gone += await tx.execute(
        "DELETE FROM commands WHERE finished_at < $1 OR expires_at < $1", utc(tx.now - COMMAND_KEPT_S)
    )
    gone += await tx.execute("DELETE FROM log_consumers WHERE until < $1", trace)
    gone += await tx.execute(
        "DELETE FROM log_records r USING log_positions p WHERE p.topic = r.topic AND p.part = r.part"
        ' AND r."offset" < p.next AND r.at < $1',
        utc(tx.now - LOG_KEPT_S),
    )
    return gone + await feed.prune(tx) + await events.prune(tx)


async def database_bytes(tx: Transaction) -> int:
    """On the disk, with indexes and what is dead."""
    size: int = await tx.fetchval("SELECT pg_database_size(current_database())")
    return size
