"""Dead letters that are tried again, some at a time: what can be stored by now is, once, as if it came late.

A transaction takes the devices' lines before the letters, in the order in which consumers do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias

import asyncpg

from device_protocol.errors import Reason
from gateway.messages.telling import change
from gateway.policy.device_clock import Boot, ms_of, window
from gateway.policy.messages import Applied, Arrival, Facts, Fault, HistoryRow
from gateway.policy.replaying import taken_up, try_again
from gateway.store import messages, replays
from gateway.store.database import Database
from gateway.store.replays import Kept, Wanted
from gateway.store.transaction import AuditEvent, Transaction

AT_ONCE: Final = 50  # 3 MB at most, of the largest
# Nobody waits for it but who runs the command; locks of consumers are held for a batch of theirs.
STATEMENT_S: Final = 10.0

Key: TypeAlias = tuple[str, datetime, int, int]
"""Of a row of the history."""


@dataclass(slots=True)
class Replayed:
    """One go. `next`: the number after which there may be more; None: that was all."""

    looked: int = 0
    stored: list[int] = field(default_factory=list)
    known: list[int] = field(default_factory=list)
    """What they say was stored already: the device said it again, or another letter holds the same."""
    left: list[tuple[Kept, Fault]] = field(default_factory=list)
    next: int | None = None


async def replay(
    database: Database, wanted: Wanted, after: int, who: str, *, days: int, dry: bool
) -> Replayed:
    """Try the next ones above the number `after`. `dry`: only say what would come of it.

    What the database refuses stays, and costs no other: of a go with such a one a smaller one is tried.
    What it refuses before any is tried is no letter's fault, and raised. StoreUnavailableError.
    """
    most, refused = AT_ONCE, ""
    while True:
        try:
            async with database.transaction(statement_s=STATEMENT_S) as tx:
                return await _Go(tx, who, dry=dry).run(wanted, after, most, days, refused)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            if refused:
                raise
            refused = type(error).__name__ if most == 1 else ""
            most = max(1, most // 2)


class _Go:
    """One transaction's."""

    def __init__(self, tx: Transaction, who: str, *, dry: bool) -> None:
        self._tx = tx
        self._who = who
        self._dry = dry
        self._done = Replayed()
        self._rows: dict[Key, HistoryRow] = {}
        self._of: dict[int, HistoryRow] = {}
        self._applied: list[Applied] = []

    async def run(self, wanted: Wanted, after: int, most: int, days: int, refused: str) -> Replayed:
        """`refused`: why the database does not take the only one of this go."""
        letters = await replays.waiting(self._tx, wanted, after, most)
        done = self._done
        done.looked = len(letters)
        done.next = letters[-1].n if len(letters) == most else None
        if refused:
            done.left += [(letter, Fault(Reason.STORE_REFUSED, refused)) for letter in letters]
            return done
        tried = [
            (letter, taken_up(letter.place, letter.topic, letter.body, ms_of(letter.at)))
            for letter in letters
        ]
        facts = await self._facts([arrival for _, arrival in tried], days)
        held = {letter.n for letter in letters}
        if not self._dry:
            held = await replays.hold(self._tx, held)
        await self._decide([one for one in tried if one[0].n in held], facts)
        if not self._dry:
            await self._write()
        return done

    async def _facts(self, arrivals: Sequence[Arrival], days: int) -> Facts:
        tx = self._tx
        named = sorted({arrival.topic.device for arrival in arrivals if arrival.topic is not None})
        boots = {
            (arrival.topic.device, arrival.standing.number.boot)
            for arrival in arrivals
            if arrival.topic is not None and arrival.standing is not None
        }
        return Facts(
            devices=await messages.devices_of(tx, named),
            window=window(tx.now, days),
            lines=await messages.lines_of(tx, named, hold=not self._dry),
            boots=await messages.boots_of(tx, sorted(boots)),
        )

    async def _decide(self, tried: Sequence[tuple[Kept, Arrival]], facts: Facts) -> None:
        """A boot that the first of them makes known is known to those behind it."""
        boots: dict[tuple[str, int], Boot] = dict(facts.boots)
        facts = Facts(facts.devices, facts.window, facts.lines, boots)
        found: list[tuple[Kept, HistoryRow, Applied]] = []
        for letter, arrival in tried:
            outcome = try_again(arrival, letter.reason, facts, whole=len(letter.body) == letter.size)
            if isinstance(outcome, Fault):
                self._done.left.append((letter, outcome))
                continue
            boots |= outcome.boots
            found += [(letter, row, outcome) for row in outcome.history]
        there = await messages.ids_of(self._tx, [row for _, row, _ in found])
        for letter, row, applied in found:
            self._take(letter, row, applied, there)

    def _take(
        self,
        letter: Kept,
        row: HistoryRow,
        applied: Applied,
        there: Mapping[Key, str],
    ) -> None:
        also = self._rows.get(row.key)
        holder = there.get(row.key) or (None if also is None else also.id)
        if holder is None:
            self._rows[row.key] = row
            self._applied.append(applied)
            self._of[letter.n] = row
            self._done.stored.append(letter.n)
        elif holder == row.id:
            self._done.known.append(letter.n)
        else:
            fault = Fault(Reason.REUSED_NUMBER, "another message has its number")
            self._done.left.append((letter, fault))

    async def _write(self) -> None:
        tx, done = self._tx, self._done
        await messages.add_history(tx, list(self._rows.values()))
        for applied in self._applied:  # an older one after a newer one changes nothing
            await messages.put_states(tx, applied.states)
            await messages.put_boots(tx, applied.boots)
        if done.stored or done.known:
            await replays.mark(tx, [*done.stored, *done.known])
        told = {one for applied in self._applied for one in applied.told}  # who follows now, and may
        for subject in sorted({(device, _change_of(kind)) for device, kind in told}):
            tx.tell(change(subject))
        for site, count in Counter(row.site_id for row in self._rows.values()).items():
            numbers = [n for n, row in self._of.items() if row.site_id == site]
            detail = {"letters": count, "first": min(numbers), "last": max(numbers)}
            tx.audit(AuditEvent("dead_letters.replayed", self._who, site=site, detail=detail))


def _change_of(kind: str) -> str:
    return "device.message" if kind == "event" else "device.state"
