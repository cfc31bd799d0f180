"""Which parts of the log this consumer reads: its share, for as long as it says that it lives.

A lease only spares consumers from doing the same work. What keeps two of them from both writing it is the
position, which a batch moves from where it read to where it ended, or not at all (`positions.advance`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID, uuid4

from gateway.store import positions
from gateway.store.database import Database
from gateway.store.positions import Part, Position
from gateway.store.transaction import Transaction

RENEW_EVERY_S: Final = 1.0
# Two renewals may fail: after a restart of Postgres nobody moves. A killed consumer's parts wait so long.
LEASE_S: Final = 3.0


class Leases:
    """One consumer's. `held`: where to read next, of each part that is ours."""

    def __init__(self, database: Database) -> None:
        self.owner: UUID = uuid4()
        self.held: dict[Part, int] = {}
        self._database = database
        self._known: frozenset[Part] = frozenset()
        self._taken = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Leases {self.owner} held={len(self.held)}>"

    async def renew(self, parts: Mapping[str, int]) -> None:
        """Say that we live, and take our share of so many parts of each topic.

        StoreUnavailableError: what we hold we go on to hold, as far as we know.
        """
        wanted = frozenset((topic, part) for topic, count in parts.items() for part in range(count))
        async with self._database.transaction(probe=True) as tx:
            alive = await positions.live(tx, self.owner, LEASE_S)
            if wanted - self._known:
                await positions.add_missing(tx, sorted(wanted))
            await positions.renew(tx, self.owner, LEASE_S)
            found = await positions.all_of(tx)
            for topic, count in parts.items():
                await self._share(tx, topic, -(-count // alive), found)
            found = await positions.all_of(tx)
        self._known = wanted
        self._taken.set()
        mine = {part for part, position in found.items() if position.owner == self.owner and part in wanted}
        # What a batch moved meanwhile is newer than what was found.
        self.held = {part: self.held.get(part, found[part].next) for part in sorted(mine)}

    async def _share(self, tx: Transaction, topic: str, share: int, found: Mapping[Part, Position]) -> None:
        mine = sum(1 for (of, _), position in found.items() if of == topic and position.owner == self.owner)
        if mine < share:
            await positions.claim(tx, self.owner, topic, share - mine, LEASE_S)
        elif mine > share:
            await positions.release(tx, self.owner, topic, mine - share)

    async def wait_taken(self, wait_s: float) -> None:
        """Until the next renewal, or so long."""
        self._taken.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._taken.wait()
        except TimeoutError:
            return

    def of(self, topics: Iterable[str]) -> dict[Part, int]:
        """Where to read next, of our parts of these topics."""
        chosen = set(topics)
        return {part: position for part, position in self.held.items() if part[0] in chosen}

    def moved(self, moves: Mapping[Part, tuple[int, int]]) -> None:
        """These were committed."""
        for part, (_, new) in moves.items():
            if part in self.held:
                self.held[part] = new

    def forget(self, parts: Iterable[Part]) -> None:
        """Ours no more, or not where we thought: the next renewal learns it anew."""
        for part in parts:
            self.held.pop(part, None)

    async def leave(self) -> None:
        """Give everything up, so that others need not wait."""
        self.held.clear()
        async with self._database.transaction() as tx:
            await positions.leave(tx, self.owner)
