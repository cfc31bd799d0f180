"""A log with some events, and a second store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from gateway.audit.witness import Witness
from gateway.metrics import GatewayMetrics, gateway_metrics
from gateway.store.database import Database
from gateway.store.transaction import AuditEvent
from runtime.clock import FakeClock
from runtime.metrics import Registry

ISSUER = "https://gateway.example.com"


class Log:
    """The audit log of one database, as the service has it, and as a superuser of it may treat it."""

    def __init__(self, url: str, owner_url: str, clock: FakeClock) -> None:
        self.database = Database(url, pool_max=4, wall=clock.wall)
        self._owner_url = owner_url
        self.written = 0

    async def open(self) -> Log:
        await self.database.open()
        self.database.prepared = True
        return self

    async def write(self, events: int = 1, site: str | None = "s_aaaaaaaaaaaaaaaa") -> None:
        """Each in a transaction of its own."""
        for _ in range(events):
            self.written += 1
            async with self.database.transaction() as tx:
                tx.audit(
                    AuditEvent(f"kind.{self.written}", "someone", site=site, detail={"text": "ü\n\u2028"})
                )

    async def tamper(self, *statements: str) -> None:
        """As its owner, with the triggers off: what a superuser of the database can do."""
        connection = await asyncpg.connect(self._owner_url)
        try:
            await connection.execute("ALTER TABLE audit_events DISABLE TRIGGER ALL")
            for statement in statements:
                await connection.execute(statement)
            await connection.execute("ALTER TABLE audit_events ENABLE TRIGGER ALL")
        finally:
            await connection.close()

    async def rewrite_from(self, seq: int) -> None:
        """A new chain from `seq` on, in which every hash fits."""
        await self.tamper(
            f"""
            DO $$
            DECLARE last bytea; one record; text text;
            BEGIN
                SELECT hash INTO last FROM audit_events WHERE seq = {seq} - 1;
                last := coalesce(last, decode(repeat('00', 32), 'hex'));
                FOR one IN SELECT * FROM audit_events WHERE seq >= {seq} ORDER BY seq LOOP
                    text := replace(one.record, 'someone', 'nobody');
                    UPDATE audit_events SET record = text, prev_hash = last,
                        hash = sha256(last || convert_to(text, 'UTF8')) WHERE audit_events.seq = one.seq;
                    last := sha256(last || convert_to(text, 'UTF8'));
                END LOOP;
                UPDATE audit_head SET hash = last;
            END $$
            """
        )


@pytest.fixture
async def log(database_url: str, owner_url: str, clock: FakeClock) -> AsyncIterator[Log]:
    made = await Log(database_url, owner_url, clock).open()
    yield made
    await made.database.close()


@pytest.fixture
def heads_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "second-store"
    folder.mkdir()
    return folder


class Witnessed:
    """A witness with metrics of its own: one gateway's."""

    def __init__(self, log: Log, folder: Path, keys_dir: Path, clock: FakeClock) -> None:
        self.metrics: GatewayMetrics = gateway_metrics(Registry())
        self.witness = Witness(
            log.database, folder, keys_dir, issuer=ISSUER, clock=clock, metrics=self.metrics
        )


@pytest.fixture
def witnessed(log: Log, heads_dir: Path, keys_dir: Path, clock: FakeClock) -> Witnessed:
    return Witnessed(log, heads_dir, keys_dir, clock)
