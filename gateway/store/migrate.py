"""Numbered SQL files, applied once each, in order, under a lock, with checksums."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from gateway.errors import MigrationError

MIGRATIONS = Path(__file__).parent / "migrations"
# Any fixed number does: it only has to be the same in every gateway, so that two never migrate at once.
LOCK_KEY = 7_246_119_001
# Waiting for another gateway's migration, and a long ALTER of our own, both fit.
MIGRATION_TIMEOUT_S = 600.0

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load(folder: Path = MIGRATIONS) -> list[Migration]:
    """The migrations in order. MigrationError when a number is missing, double, or a name is odd."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path.name}: must be named 0001_what_it_does.sql")
        found.append(Migration(int(match[1]), path.stem, path.read_text("utf-8")))
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise MigrationError("migrations must be numbered 1, 2, 3 … without gaps")
    return found


async def migrate(connection: asyncpg.Connection[asyncpg.Record], migrations: list[Migration]) -> int:
    """Apply what is missing; how many that were.

    MigrationError when an applied file was changed later or the database is ahead of this program.
    """
    await connection.execute("SELECT pg_advisory_lock($1)", LOCK_KEY, timeout=MIGRATION_TIMEOUT_S)
    try:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        found = await missing(connection, migrations)
        for migration in found:
            await _apply(connection, migration)
        return len(found)
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", LOCK_KEY)


async def missing(
    connection: asyncpg.Connection[asyncpg.Record], migrations: list[Migration]
) -> list[Migration]:
    """What the database lacks. MigrationError as above."""
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return migrations
    rows = await connection.fetch("SELECT number, name, checksum FROM schema_migrations ORDER BY number")
    return _missing(migrations, {r["number"]: (r["name"], r["checksum"]) for r in rows})


def _missing(migrations: list[Migration], applied: dict[int, tuple[str, str]]) -> list[Migration]:
    known = {m.number: m for m in migrations}
    for number, (name, checksum) in applied.items():
        if number not in known:
            raise MigrationError(f"the database has migration {name}, which this program does not know")
        if known[number].checksum != checksum:
            raise MigrationError(f"migration {name} was changed after it was applied")
    return [m for m in migrations if m.number not in applied]


async def _apply(connection: asyncpg.Connection[asyncpg.Record], migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(migration.sql, timeout=MIGRATION_TIMEOUT_S)
        await connection.execute(
            "INSERT INTO schema_migrations (number, name, checksum) VALUES ($1, $2, $3)",
            migration.number,
            migration.name,
            migration.checksum,
        )
