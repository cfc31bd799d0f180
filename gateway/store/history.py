"""What devices said, by time: one partition a day (UTC), made ahead and dropped after retention."""

from __future__ import annotations

from datetime import timedelta

from gateway.store.transaction import Transaction

DAYS_AHEAD = 7  # a gateway that nobody restarts for a week still has where to write


async def keep_parts(tx: Transaction, days: int) -> int:
    """Partitions made and dropped, so that there are those of the last `days` days and of the next week.

    Run at the start of what writes and each hour. It waits at most 2 s for readers, then fails: try later.
    """
    today = tx.at.date()
    first = today - timedelta(days=days)
    made: int = await tx.fetchval(
        "SELECT keep_history_parts($1, $2, $3)", first, today + timedelta(days=DAYS_AHEAD), first
    )
    return made
