"""Two requests of which one is in the middle: it holds its rows, has decided, and is not committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx

from tests.gateway.world import World

Answer = Coroutine[Any, Any, httpx.Response]

POLL_S = 0.01
DEADLINE_S = 15.0  # milliseconds, and what a busy machine adds
STATEMENT_S = 3 * DEADLINE_S  # instead of the product's 3 s, which would end what stands still (conftest.py)
_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


class Pause:
    """Somebody who holds rows that others need."""

    def __init__(self, look: asyncpg.Connection[asyncpg.Record]) -> None:
        self._look = look

    async def until_waiting(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while await self._look.fetchval(_WAITING) < count:  # noqa: ASYNC110 (Postgres tells nobody)
                await asyncio.sleep(POLL_S)


# Every transaction that writes something takes it right before its end.
AUDIT_HEAD = "SELECT 1 FROM audit_head FOR UPDATE"


@asynccontextmanager
async def paused(world: World, lock: str = AUDIT_HEAD) -> AsyncIterator[Pause]:
    """Whoever comes to the rows that the statement locks waits there until the end of the block."""
    holds, looks = [await asyncpg.connect(world.settings.database_url) for _ in range(2)]
    try:
        async with holds.transaction():
            await holds.execute(lock)
            yield Pause(looks)  # not in a transaction: there one sees the backends of its beginning
    finally:
        await holds.close()
        await looks.close()


async def meanwhile(
    world: World, first: Answer, *others: Answer, lock: str = AUDIT_HEAD
) -> list[httpx.Response]:
    """`first` stands still at `lock` when the others come, one behind the other; then all go on.

    At the audit log's head it has decided, and is not committed.
    """
    running: list[asyncio.Task[httpx.Response]] = []
    async with asyncio.TaskGroup() as group, paused(world, lock) as pause:
        for one in (first, *others):
            running.append(group.create_task(one))
            await pause.until_waiting(len(running))
    return [task.result() for task in running]
