"""Comparing the log, or an export of it, with itself and with its signed heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gateway.audit.export import ExportReading
from gateway.audit.heads import HeadsReading, SignedHead
from gateway.policy.audit_chain import Fault, Head, Row, Walk, wrong_row
from gateway.store import audit
from gateway.store.database import Database
from gateway.store.transaction import Transaction

Progress = Callable[[int], None]
"""Told how many events were read, now and then."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came out. `last` None: no head was compared with."""

    events: int
    heads: int = 0
    last: SignedHead | None = None
    fault: Fault | None = None
    heads_faults: list[str] = field(default_factory=list)
    """What is wrong with the heads' file itself."""

    @property
    def is_whole(self) -> bool:
        return self.fault is None and not self.heads_faults


async def verify_log(
    database: Database,
    heads: HeadsReading | None,
    progress: Progress,
    *,
    exported: Iterator[Row] | None = None,
) -> Finding:
    """The log in the database, in one snapshot: events that are added meanwhile do not look like a head that
    does not fit. `exported`: rows that must be in it, smallest number first, instead of heads.
    """
    if exported is None:
        walk = Walk(iter(heads or ()))
    else:
        walk = Walk((Head(row.seq, row.hash) for row in exported), claim="the export")
    async with database.transaction() as tx:
        await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        fault = await _over(tx, walk, progress) or walk.end(await audit.head(tx))
    return _finding(walk, heads, fault)


def verify_whole_export(export: ExportReading, heads: HeadsReading | None, progress: Progress) -> Finding:
    """An export of the whole log: as good as the log was when it was made."""
    walk = Walk(iter(heads or ()))
    fault = None
    for row in export:
        fault = walk.over((row,))
        if fault is not None:
            break
        progress(row.seq)
    if fault is None:
        fault = walk.end(export.head)
    return _finding(walk, heads, fault)


def verify_part(export: ExportReading, heads: HeadsReading | None, progress: Progress) -> Finding:
    """An export of one site: each row by itself, and by its head where one was signed. What lies between them
    is others': that the rows are in the log shows the log alone (`verify_log` with `exported`).
    """
    signed = iter(heads or ())
    last, compared, head, fault = 0, 0, next(signed, None), None
    for row in export:
        why = wrong_row(row)
        if row.seq <= last or row.seq > export.head.seq:
            why = "is not where it belongs"
        while head is not None and head.seq < row.seq:
            head = next(signed, None)
        if why is None and head is not None and head.seq == row.seq:
            compared += 1
            why = None if head.hash == row.hash else "rewritten: the head signed at the time says otherwise"
        if why is not None:
            fault = Fault(row.seq, row.seq, why)
            break
        last = row.seq
        progress(export.events)
    for _ in signed:  # the file's own faults behind the last event count too
        continue
    return Finding(
        export.events,
        compared,
        None if heads is None else heads.last,
        fault,
        [] if heads is None else heads.faults,
    )


async def _over(tx: Transaction, walk: Walk, progress: Progress) -> Fault | None:
    after = 0
    while rows := await audit.chain(tx, after):
        fault = walk.over(rows)
        if fault is not None:
            return fault
        after = rows[-1].seq
        progress(after)
    return None


def _finding(walk: Walk, heads: HeadsReading | None, fault: Fault | None) -> Finding:
    if heads is None:
        return Finding(walk.last.seq, fault=fault)
    for _ in walk.heads:
        continue
    return Finding(walk.last.seq, walk.compared, heads.last, fault, heads.faults)
