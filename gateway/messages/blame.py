"""Who is to blame when the database does not take a batch: a record in it, or none of them.

Only what a record itself is to blame for may make it a dead letter. A right that is missing, a column that
a migration took away, a partition that is not there yet: for these everything waits until somebody mends it.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

import asyncpg

# Of defects of ours, so many records in so long: one that hostile messages trip here and there goes on past
# them, one that trips at whatever comes stops, and loses nothing.
DEFECTS_MAX: Final = 20
DEFECTS_WITHIN_S: Final = 3600.0


class Blame(Enum):
    """Whose it is."""

    RECORD = "record"
    """A value that a column, or a rule of the table, does not take."""
    DEFECT = "defect"
    """Ours: no error of the database's. One of the records may have tripped it."""
    NO_PART = "no_part"
    """The history has no partition for that day."""
    NOBODY = "nobody"
    """What has nothing to do with what the records say."""


def blame(error: Exception) -> Blame:
    """`error`: of a transaction while the database is there."""
    if isinstance(error, asyncpg.CheckViolationError):
        # A row that no partition takes has the same code as a rule, but no rule's name.
        return Blame.RECORD if error.constraint_name else Blame.NO_PART
    if isinstance(error, asyncpg.DataError | asyncpg.NotNullViolationError):
        return Blame.RECORD
    if isinstance(error, asyncpg.UniqueViolationError):
        return Blame.RECORD if (error.table_name or "").startswith("device_history") else Blame.NOBODY
    if isinstance(error, asyncpg.PostgresError):
        return Blame.NOBODY
    return Blame.DEFECT


def is_too_slow(error: Exception) -> bool:
    """Whether Postgres ended a statement for the time that it took."""
    return isinstance(error.__cause__, asyncpg.QueryCanceledError)


class Defects:
    """How many records defects of ours have put away lately. Time is an argument, seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def __repr__(self) -> str:
        return f"<Defects {len(self._times)}>"

    def one_more(self, now: float) -> bool:
        """Whether one more record may be put away; then it is counted."""
        while self._times and now - self._times[0] >= DEFECTS_WITHIN_S:
            self._times.popleft()
        if len(self._times) >= DEFECTS_MAX:
            return False
        self._times.append(now)
        return True
