"""Logins that were refused, for the audit log: bounded, and told beside the request.

Strangers may be refused as often as they like, and the log is kept for ever. So the first refusal of its kind
gets a line at once, and what follows within `WINDOW_S` is counted and told by one more line. When too many
kinds are open, a kind becomes coarser: without its address, then without its account. No answer waits for any
of this: what is known of an account must not show in how long a refusal takes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal
from uuid import UUID

from gateway.errors import StoreUnavailableError
from gateway.policy.names import printable
from gateway.store.database import Database
from gateway.store.transaction import AuditEvent
from runtime.client_address import group_of
from runtime.clock import Clock
from runtime.logs import get_logger

Way = Literal["password", "welcome", "provider"]

# Short enough for somebody who reads along, long enough that a flood of weeks stays a small part of the log.
WINDOW_S = 900.0
# Kinds that are open at once, by how much they name. Strangers from anywhere cannot take the place of what is
# told to accounts. With two lines a kind this is under 60,000 lines a day and gateway while hundreds of
# addresses guess without a pause.
ROOM: Final = {"account and address": 100, "account": 100, "address": 100}
# How late the count of what followed may come.
LOOK_EVERY_S = 15.0
RETRY_S = 1.0  # Postgres was away just now
WHY_MAX = 120  # characters of our own words about a provider's answer

log = get_logger("gateway.refused_logins")


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused login. Nothing here was typed by the person: people type passwords as names."""

    way: Way
    reason: str
    """The problem's code, or what the code hides from strangers (`account_disabled`)."""
    address: str | None
    """None: of several addresses."""
    account: UUID | None = None
    """Whose login it would have been; None: nobody's, or it is not known."""
    provider: str | None = None
    why: str | None = None
    """More about the first one, in our own words."""

    def coarser(self) -> Iterator[tuple[str | None, Refusal]]:
        """This kind and coarser ones, each with the room that it needs; None: there are only a few such."""
        if self.account is not None:
            yield "account and address", self
            yield "account", replace(self, address=None)
        else:
            yield "address", self
        yield None, replace(self, address=None, account=None, why=None)

    @property
    def key(self) -> tuple[object, ...]:
        group = None if self.address is None else group_of(self.address)
        return self.way, self.reason, self.account, self.provider, group


@dataclass(slots=True)
class _Open:
    """A kind whose window is open. `untold`: refusals that no line has counted yet."""

    first: Refusal
    room: str | None
    since: float
    untold: int = 0
    told: bool = False


class RefusedLogins:
    """Those of one gateway. `run` tells them; `close` tells the rest."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._open: dict[tuple[object, ...], _Open] = {}
        self._rooms: Counter[str] = Counter()
        self._opened = asyncio.Event()
        self._telling = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<RefusedLogins {len(self._open)} kinds open>"

    def note(self, refusal: Refusal) -> None:
        """Count it, in memory: its line comes soon, or with the count at the window's end."""
        for room, kind in refusal.coarser():
            found = self._open.get(kind.key)
            if found is None and (room is None or self._rooms[room] < ROOM[room]):
                found = self._open[kind.key] = _Open(kind, room, self._clock.monotonic())
                if room is not None:
                    self._rooms[room] += 1
                self._opened.set()
            if found is not None:
                found.untold += 1
                return

    async def run(self) -> None:
        """Tell for ever what is due."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._opened.wait()
            except TimeoutError:
                pass  # windows may be over
            self._opened.clear()
            try:
                await self.tell()
            except StoreUnavailableError:
                self._opened.set()
                await asyncio.sleep(RETRY_S)

    async def tell(self, *, everything: bool = False) -> None:
        """Write the lines that are due: of new kinds, and of those whose window is over; with `everything`
        all others too. StoreUnavailableError leaves them due.
        """
        async with self._telling:
            ended = self._clock.monotonic() - WINDOW_S
            due = {
                key: one.untold
                for key, one in self._open.items()
                if everything or not one.told or one.since <= ended
            }
            lines = [_line(self._open[key], count) for key, count in due.items() if count]
            if lines:
                async with self._database.transaction() as tx:
                    for line in lines:
                        tx.audit(line)
            for key, count in due.items():
                self._told(key, count, over=self._open[key].since <= ended)

    def _told(self, key: tuple[object, ...], count: int, *, over: bool) -> None:
        one = self._open[key]
        one.told, one.untold = True, one.untold - count
        if over and one.untold:  # it came while the line was written
            one.since = self._clock.monotonic()
        elif over:
            del self._open[key]
            if one.room is not None:
                self._rooms[one.room] -= 1

    async def close(self) -> None:
        """Tell the counts that there are; the log says so when Postgres does not take them."""
        try:
            await self.tell(everything=True)
        except StoreUnavailableError:
            lost = sum(one.untold for one in self._open.values())
            log.error("refused logins are missing in the audit log", extra={"count": lost})


def _line(one: _Open, count: int) -> AuditEvent:
    first = one.first
    detail: dict[str, Any] = {"way": first.way, "reason": first.reason, "times": count}
    if first.address is None:
        detail["many_addresses"] = True
    else:
        detail["address"] = first.address
    if first.provider is not None:
        detail["provider"] = first.provider
    if one.told:
        detail["followed"] = True  # counts what came behind the line of the first
    elif first.why is not None:
        detail["why"] = printable(first.why, WHY_MAX)
    kind = "login.limited" if first.reason == "too_many_requests" else "login.failed"
    return AuditEvent(
        kind, "anonymous", owner=None if first.account is None else str(first.account), detail=detail
    )
