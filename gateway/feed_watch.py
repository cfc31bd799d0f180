"""Watches the revocation feed in Postgres and wakes those that follow it.

The numbers in the table are the truth. The short-lived store's wake-ups only make the next look come at once;
without them (connection lost, Redis away) the look each second finds the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from gateway.errors import StoreUnavailableError
from gateway.policy.feed import must_reset
from gateway.shortlived.interface import ShortLived
from gateway.store import feed
from gateway.store.database import Database
from gateway.store.transaction import REVOCATION_CHANNEL
from runtime.clock import Clock
from runtime.logs import get_logger
from runtime.metrics import Gauge

HEARTBEAT_S = 1.0  # nodes judge the feed dead after 5 s: four may be lost
# Not ready when the last good look is older: one may be slow, three are an outage.
STALE_AFTER_S = 3.0

log = get_logger("gateway.feed")


class FeedWatch:
    """One per process. `run` is the task; `follow` is one reader."""

    def __init__(self, database: Database, shortlived: ShortLived, clock: Clock, head_gauge: Gauge) -> None:
        self._database = database
        self._shortlived = shortlived
        self._clock = clock
        self._head_gauge = head_gauge
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._closed = False
        self.head = 0
        """The last number seen; heartbeats carry it."""
        self._looks = 0
        self._restores = 0
        """How often the numbers went back: every reader must then start over."""
        self._away = True
        """Whether the last look failed; said once an outage, not once a second."""
        self._last_look: float | None = None
        """Monotonic seconds of the last look that Postgres answered; None: none yet."""

    def __repr__(self) -> str:
        return f"<FeedWatch head={self.head} fresh={self.is_fresh()}>"

    def is_fresh(self) -> bool:
        """Whether Postgres answered lately: the readiness check."""
        return self._last_look is not None and self._clock.monotonic() - self._last_look < STALE_AFTER_S

    async def run(self) -> None:
        """Look each second, and at once when notified. Ends only by cancellation."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear(), name="feed.hear")
            tasks.create_task(self._look_on(), name="feed.look")

    async def _hear(self) -> None:
        with self._shortlived.follow(REVOCATION_CHANNEL) as following:
            async for _ in following:
                self._wake.set()

    async def _look_on(self) -> None:
        while True:
            self._wake.clear()
            await self._look()
            await self._wait_wake()

    def look_now(self) -> None:
        """Do not wait for the next second."""
        self._wake.set()

    async def close(self) -> None:
        """End every reader (the process stops)."""
        self._closed = True
        async with self._changed:
            self._changed.notify_all()

    async def follow(self, after: int) -> AsyncIterator[dict[str, Any]]:
        """The lines of one reader, from its hello on; ends with `close`. Silent while Postgres is away."""
        async with self._database.transaction() as tx:
            head = await feed.head(tx)
        yield {"hello": head.lowest_kept, "head": head.n}
        position, reset, restores = after, must_reset(after, head.pruned, head.n), self._restores
        while not self._closed:
            looks = self._looks
            if reset or restores != self._restores:
                position, reset, restores = 0, False, self._restores
                yield {"reset": True}
            while position < self.head:
                target = self.head
                batch = await self._batch(position)
                if batch is None:
                    break  # silent until the next look that succeeds
                for entry in batch:
                    yield entry
                position = batch[-1]["n"] if batch else target
            else:
                if looks:
                    yield {"heartbeat": position}
            await self._wait_look(looks)

    async def _batch(self, position: int) -> list[dict[str, Any]] | None:
        """What came after `position`; None when Postgres does not answer, empty when all of it was pruned."""
        try:
            async with self._database.transaction() as tx:
                return await feed.entries_after(tx, position)
        except StoreUnavailableError:
            return None

    async def _wait_look(self, looks: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or self._looks != looks)

    async def _look(self) -> None:
        try:
            async with self._database.transaction(probe=True) as tx:
                head = await feed.head(tx)
        except StoreUnavailableError as error:
            self._note_away(str(error))
            return
        if self._away:
            self._away = False
            log.info("revocation feed is read", extra={"head": head.n})
        async with self._changed:
            self._restores += head.n < self.head  # the database was restored from an older copy
            self.head = head.n
            self._head_gauge.set(self.head)
            self._looks += 1
            self._last_look = self._clock.monotonic()
            self._changed.notify_all()

    async def _wait_wake(self) -> None:
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._wake.wait()
        except TimeoutError:
            return  # the regular look

    def _note_away(self, reason: str) -> None:
        if not self._away:
            self._away = True
            log.warning("revocation feed cannot be read", extra={"reason": reason})
