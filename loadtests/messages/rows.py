"""What became of messages, as the database has it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from testbed.waiting import eventually

STORED_S: Final = 300.0  # what the log has is in the database by then


@dataclass(frozen=True, slots=True)
class Way:
    """What the database has of what was made in a span: rows, repeats among them, and their way in ms."""

    rows: int
    doubled: int
    last_us: float
    """Unix µs of the last one's commit."""
    p50_ms: float
    p99_ms: float


class Rows:
    """What a benchmark asks of the database, by one connection of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(asyncpg.connect(url))

    def close(self) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()

    def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = self._runner.run(self._connection.fetch(query, *args))
        return found

    def prefix(self, device_id: str) -> str:
        """Of the device's topics."""
        [row] = self.fetch(
            "SELECT concat_ws('/', s.org_id, s.id, d.type, d.id) AS prefix"
            " FROM devices d JOIN sites s ON s.id = d.site_id WHERE d.id = $1",
            device_id,
        )
        return str(row["prefix"])

    def wait_stored(self, number: int, ids: Sequence[str]) -> None:
        """Until so many messages of these devices are there, counted by their numbers."""

        def stored() -> bool:
            [row] = self.fetch(
                "SELECT coalesce(sum(seq), 0) AS n FROM device_lines WHERE device_id = ANY($1)", list(ids)
            )
            return bool(row["n"] >= number)

        eventually(f"{number} messages are stored", stored, STORED_S)

    def way(self, begun_us: int, ids: Sequence[str]) -> Way:
        """Of what these devices made since."""
        [row] = self.fetch(
            "WITH said AS (SELECT device_id, boot, seq,"
            " extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1e6 AS stored_us,"
            " (body -> 'values' ->> 'sent_us')::bigint AS made_us FROM device_history"
            " WHERE device_id = ANY($1))"
            " SELECT count(*) AS rows, count(*) - count(DISTINCT (device_id, boot, seq)) AS doubled,"
            " max(stored_us) AS last_us,"
            " percentile_cont(0.5) WITHIN GROUP (ORDER BY stored_us - made_us) / 1e3 AS p50,"
            " percentile_cont(0.99) WITHIN GROUP (ORDER BY stored_us - made_us) / 1e3 AS p99"
            " FROM said WHERE made_us >= $2",
            list(ids),
            begun_us,
        )
        return Way(row["rows"], row["doubled"], *(float(row[name]) for name in ("last_us", "p50", "p99")))
