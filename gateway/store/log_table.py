"""The log in Postgres: what Kafka is to a larger installation (runtime.event_log.interface).

An append takes its part's row of `log_heads` and holds it to its commit: nobody sees an offset before those
below it, and none is left out. (A sequence hands out numbers before the commit: who commits late is then
passed over by who reads meanwhile.)
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from gateway.errors import StoreUnavailableError
from gateway.shortlived.interface import Following, ShortLived
from gateway.store.database import Database
from gateway.store.transaction import Reading, Row, Transaction
from runtime.event_log.interface import (
    PARTS,
    READ_MAX,
    Entry,
    LogGoneError,
    LogRefusedError,
    LogUnavailableError,
    Record,
    check_append,
)
from runtime.tasks import TaskOwner

# An append wakes those who read its topic. Where wakes do not arrive, readers look for themselves so often:
# what devices say is then late by no more.
LOOK_EVERY_S = 0.25
# A wake is never lost while the line is well; this is for a line that is dead and does not know it yet.
LOOK_ANYWAY_S = 2.0
TASKS_END_S = 5.0

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_COLUMNS = ("topic", "part", "offset", "at", "key", "headers", "value", "behind")

# Bytes that a part may hold of what no consumer has stored: days of what one machine's devices say. Were
# there no end to it the disk would fill, and with it the whole database stops. Devices keep what comes then.
UNREAD_MAX = 32 * 1024 * 1024


class LogFullError(Exception):
    """The part holds all that it may of what nobody has stored: later there will be room."""


async def parts(tx: Transaction) -> dict[str, int]:
    """How many parts each topic has. A topic that has none gets as many as a new installation has."""
    found = await _parts(tx)
    missing = [(topic, part) for topic, count in PARTS.items() if topic not in found for part in range(count)]
    if not missing:
        return found
    # Two gateways may do so at once: both put in the same rows.
    await tx.execute(
        "INSERT INTO log_heads (topic, part, next) SELECT *, 0 FROM unnest($1::text[], $2::integer[])"
        " ON CONFLICT DO NOTHING",
        [topic for topic, _ in missing],
        [part for _, part in missing],
    )
    return await _parts(tx)


async def _parts(reading: Reading) -> dict[str, int]:
    rows = await reading.fetch("SELECT topic, count(*) AS parts FROM log_heads GROUP BY topic")
    return {row["topic"]: row["parts"] for row in rows}


async def append(tx: Transaction, topic: str, part: int, entries: Sequence[Entry]) -> int:
    """The first one's offset. Nobody else appends to the part until this is committed. LogRefusedError,
    LogFullError; then the transaction is to be given up.
    """
    check_append(entries)
    sizes = [entry.size for entry in entries]
    head = await tx.fetchrow(
        "UPDATE log_heads h SET next = h.next + $3, bytes = h.bytes + $4 WHERE h.topic = $1 AND h.part = $2"
        " RETURNING h.next, h.bytes, (SELECT r.behind FROM log_records r WHERE r.topic = $1 AND r.part = $2"
        ' AND r."offset" = coalesce('
        "(SELECT p.next FROM log_positions p WHERE p.topic = $1 AND p.part = $2), 0)) AS read",
        topic,
        part,
        len(entries),
        sum(sizes),
    )
    if head is None:
        raise LogRefusedError(f"there is no part {part} of {topic}")
    # Nothing at the position: all of it was read.
    if head["read"] is not None and head["bytes"] - head["read"] > UNREAD_MAX:
        raise LogFullError(f"{topic}/{part} holds {UNREAD_MAX} bytes that nobody has stored")
    first: int = head["next"] - len(entries)
    behind = accumulate(sizes, initial=head["bytes"] - sum(sizes))
    rows = (
        (topic, part, first + n, *_stored(entry), before)
        for n, (entry, before) in enumerate(zip(entries, behind, strict=False))
    )
    await tx.copy("log_records", _COLUMNS, rows)
    tx.wake(_channel(topic))
    return first


def _stored(entry: Entry) -> tuple[object, ...]:
    headers = [[name, b64encode(value).decode("ascii")] for name, value in entry.headers]
    return _EPOCH + entry.at_ms * _MILLISECOND, entry.key, json.dumps(headers), entry.value


def _record(row: Row) -> Record:
    headers = tuple((name, b64decode(value)) for name, value in json.loads(row["headers"]))
    entry = Entry(row["key"], row["value"], (row["at"] - _EPOCH) // _MILLISECOND, headers)
    return Record(row["topic"], row["part"], row["offset"], entry)


def _channel(topic: str) -> str:
    return f"towline_log_{topic}"


class TableReader:
    """A LogReader; see there. `shortlived` brings the wakes, and must run; somebody must probe `database`,
    else this is turned away for good once Postgres was gone.
    """

    def __init__(self, database: Database, shortlived: ShortLived) -> None:
        self._database = database
        self._shortlived = shortlived
        self._tasks = TaskOwner("log reader")
        self._parts: dict[str, int] = {}
        self._heard: dict[str, Following] = {}
        self._woken = asyncio.Event()
        self._turn = 0

    def __repr__(self) -> str:
        return f"<TableReader of {sorted(self._heard)}>"

    async def start(self) -> None:
        async with _logs_errors(), self._database.transaction() as tx:
            self._parts = await parts(tx)

    async def close(self) -> None:
        for following in self._heard.values():
            following.close()
        await self._tasks.close(TASKS_END_S)
        self._heard.clear()

    def parts(self, topic: str) -> int:
        return self._parts[topic]

    async def ends(self, topic: str) -> dict[int, int]:
        async with _logs_errors(), self._database.reading() as reading:
            found = await _heads(reading, [topic])
        if not found:
            raise LogRefusedError(f"there is no topic {topic}")
        return {part: end for (_, part), end in found.items()}

    async def read(
        self, positions: Mapping[tuple[str, int], int], *, most: int, wait_s: float
    ) -> list[Record]:
        self._follow({topic for topic, _ in positions})
        until = _now() + wait_s
        while True:
            # Before the look: what is committed after it wakes us.
            self._woken.clear()
            found = await self._look(positions, most)
            left = until - _now()
            if found or left <= 0:
                return found
            await self._wait(left)

    async def _look(self, positions: Mapping[tuple[str, int], int], most: int) -> list[Record]:
        async with _logs_errors(), self._database.reading() as reading:
            ends = await _heads(reading, sorted({topic for topic, _ in positions}))
            news = await _news(reading, positions, ends)
            if not news:
                return []
            # Each part has its turn to be the first: one that is always full keeps none of them waiting.
            self._turn += 1
            turn = self._turn % len(news)
            return await _records(reading, news[turn:] + news[:turn], most)

    def _follow(self, topics: set[str]) -> None:
        for topic in topics - set(self._heard):
            following = self._shortlived.follow(_channel(topic))
            self._heard[topic] = following
            self._tasks.start(self._hear(following), topic)

    async def _hear(self, following: Following) -> None:
        async for _ in following:
            self._woken.set()

    async def _wait(self, left_s: float) -> None:
        live = all(following.live for following in self._heard.values())
        try:
            async with asyncio.timeout(min(left_s, LOOK_ANYWAY_S if live else LOOK_EVERY_S)):
                await self._woken.wait()
        except TimeoutError:
            return


Wanted = tuple[str, int, int]
"""Topic, part, first offset."""


async def _heads(reading: Reading, topics: list[str]) -> dict[tuple[str, int], int]:
    """The offset that each part's next record will have."""
    rows = await reading.fetch("SELECT topic, part, next FROM log_heads WHERE topic = ANY($1)", topics)
    return {(row["topic"], row["part"]): row["next"] for row in rows}


async def _news(
    reading: Reading, positions: Mapping[tuple[str, int], int], ends: Mapping[tuple[str, int], int]
) -> list[Wanted]:
    """The parts that have something to read. LogGoneError, LogRefusedError."""
    news = []
    for (topic, part), position in positions.items():
        end = ends.get((topic, part))
        if end is None:
            raise LogRefusedError(f"there is no part {part} of {topic}")
        if position > end:
            raise await _gone(reading, topic, part)
        if position < end:
            news.append((topic, part, position))
    return news


async def _records(reading: Reading, wanted: list[Wanted], most: int) -> list[Record]:
    """Each of `wanted` has records at and after its offset, or had. Each gets an even share of `most`."""
    topics, numbers, firsts = zip(*wanted, strict=True)
    rows = await reading.fetch(
        'SELECT * FROM (SELECT w.n, r.*, sum(octet_length(r.value)) OVER (ORDER BY w.n, r."offset") AS upto'
        " FROM unnest($1::text[], $2::integer[], $3::bigint[]) WITH ORDINALITY AS w (topic, part, first, n)"
        " CROSS JOIN LATERAL (SELECT * FROM log_records l WHERE l.topic = w.topic AND l.part = w.part"
        ' AND l."offset" >= w.first ORDER BY l."offset" LIMIT $4) r) found'
        ' WHERE upto - octet_length(value) < $5 ORDER BY n, "offset" LIMIT $6',
        list(topics),
        list(numbers),
        list(firsts),
        max(1, most // len(wanted)),
        READ_MAX,
        most,
    )
    found = [_record(row) for row in rows]
    begins = {(one.topic, one.part): one.offset for one in reversed(found)}
    for number, (topic, part, first) in enumerate(wanted):
        begin = begins.get((topic, part))
        # The first always finds room: where it has nothing, all of it was deleted. Of the others that shows
        # in their turn.
        if begin != first and (begin is not None or number == 0):
            raise await _gone(reading, topic, part)
    return found


async def _gone(reading: Reading, topic: str, part: int) -> LogGoneError:
    earliest: int = await reading.fetchval(
        'SELECT coalesce((SELECT min("offset") FROM log_records WHERE topic = $1 AND part = $2), next)'
        " FROM log_heads WHERE topic = $1 AND part = $2",
        topic,
        part,
    )
    return LogGoneError(topic, part, earliest)


@asynccontextmanager
async def _logs_errors() -> AsyncIterator[None]:
    try:
        yield
    except StoreUnavailableError as error:
        raise LogUnavailableError(str(error)) from error


def _now() -> float:
    return asyncio.get_running_loop().time()
