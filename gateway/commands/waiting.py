"""Waiting for a command's end without holding anything: a look when something changed, and each second."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final
from uuid import UUID

from gateway.errors import StoreUnavailableError
from gateway.policy.commands import FINAL
from gateway.shortlived.interface import Following, ShortLived
from gateway.store import commands
from gateway.store.commands import COMMAND_CHANNEL, Command
from gateway.store.database import Database

WAIT_MAX_S: Final = 30  # under the minute after which proxies give a silent answer up
# Each looks whenever any command changes; who finds no place is answered at once and asks again later.
WAITERS_MAX: Final = 200
# So that nobody takes all of them: ten people's scripts find a place.
WAITERS_PER_PERSON: Final = 20
LOOK_EVERY_S: Final = 1.0


class Waits:
    """Those who wait at this gateway."""

    def __init__(self, database: Database, shortlived: ShortLived) -> None:
        self._database = database
        self._shortlived = shortlived
        self._following: set[Following] = set()
        self._persons: Counter[UUID] = Counter()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Waits {len(self._following)}>"

    async def wait_ended(self, command: Command, wait_s: float, person: UUID) -> Command:
        """The command as it is when it has ended, or when the time is over, whichever comes first. At once
        when there is no place, for this person or at all.
        """
        if wait_s <= 0 or self._closed or len(self._following) >= WAITERS_MAX:
            return command
        if self._persons[person] >= WAITERS_PER_PERSON:
            return command
        end = asyncio.get_running_loop().time() + wait_s
        with self._shortlived.follow(COMMAND_CHANNEL) as following:
            self._following.add(following)
            self._persons[person] += 1
            try:
                return await self._look_on(command, following, end)
            finally:
                self._following.discard(following)
                self._leave(person)

    def close(self) -> None:
        """Everybody is answered now (the process stops)."""
        self._closed = True
        for following in list(self._following):
            following.close()

    def _leave(self, person: UUID) -> None:
        self._persons[person] -= 1
        if not self._persons[person]:
            del self._persons[person]

    async def _look_on(self, command: Command, following: Following, end: float) -> Command:
        while True:
            command = await self._now(command)
            left_s = end - asyncio.get_running_loop().time()
            if command.state in FINAL or left_s <= 0:
                return command
            try:
                async with asyncio.timeout(min(LOOK_EVERY_S, left_s)):
                    await anext(following)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return command

    async def _now(self, command: Command) -> Command:
        """As it was while Postgres is away: it is made, whatever the answer says of its state."""
        try:
            async with self._database.reading() as tx:
                return await commands.get(tx, command.id) or command
        except StoreUnavailableError:
            return command
