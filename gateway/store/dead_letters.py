"""What could not be taken, with its reason: each record of the log once."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.policy.messages import Letter
from gateway.store.transaction import Transaction


async def add(tx: Transaction, letters: Iterable[Letter]) -> None:
    """One that is there already stays as it is."""
    await tx.executemany(
        "INSERT INTO dead_letters (at, reason, detail, topic, device_id, site_id, size, body, log_topic,"
        " log_part, log_offset) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
        " ON CONFLICT (log_topic, log_part, log_offset) DO NOTHING",
        [
            (
                letter.received_at,
                letter.reason.value,
                letter.detail,
                letter.topic,
                letter.device_id,
                letter.site_id,
                letter.size,
                letter.body,
                *letter.place,
            )
            for letter in letters
        ],
    )
