"""What keeps the log is killed, or stands still: nothing that it took is lost, and all goes on in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from runtime.event_log.interface import UP, LogReader, LogUnavailableError, LogWriter, Record
from runtime.tasks import TaskOwner
from tests.event_log.logs import (
    GIVE_UP_S,
    RunningLog,
    append_surely,
    frozen,
    numbered,
    numbers_of,
    read_all,
    silent,
)

PART = 4
SIZE = 5


def check(records: Sequence[Record], base: int, taken: dict[int, int]) -> None:
    """`taken`: number → its offset as the writer was told. What was sent again may be there again, behind."""
    values = {one.offset: int(one.entry.value) for one in records}
    assert [one.offset for one in records] == list(range(base, base + len(records)))
    for number, offset in taken.items():
        assert [values[offset + i] for i in range(SIZE)] == list(range(number * SIZE, (number + 1) * SIZE))
    firsts = list(dict.fromkeys(numbers_of(records)))
    assert firsts == list(range(len(taken) * SIZE)), "in order, none left out"


class Traffic:
    """One writer that appends on and on, and a reader that follows, over whatever happens."""

    def __init__(self, writer: LogWriter, reader: LogReader, base: int) -> None:
        self._writer, self._reader, self._base = writer, reader, base
        self._end = asyncio.Event()
        self._written = asyncio.Event()
        self._took = asyncio.Condition()
        self.taken: dict[int, int] = {}
        self.read: list[Record] = []

    async def write(self) -> None:
        while not self._end.is_set():
            number = len(self.taken)
            entries = numbered(range(number * SIZE, (number + 1) * SIZE))
            self.taken[number] = await append_surely(self._writer, UP, PART, entries)
            async with self._took:
                self._took.notify_all()
        self._written.set()

    async def follow(self) -> None:
        while not (self._written.is_set() and self._has_all()):
            at = self._base + len(self.read)
            try:
                self.read += await self._reader.read({(UP, PART): at}, most=50, wait_s=0.2)
            except LogUnavailableError:
                await asyncio.sleep(0.05)

    def _has_all(self) -> bool:
        return not self.taken or self._base + len(self.read) >= max(self.taken.values()) + SIZE

    async def wait_more(self, appends: int) -> None:
        wanted = len(self.taken) + appends
        async with asyncio.timeout(60), self._took:
            await self._took.wait_for(lambda: len(self.taken) >= wanted)

    def end(self) -> None:
        self._end.set()


async def test_kill_and_return(log: RunningLog) -> None:
    writer, reader = await log.writer(GIVE_UP_S), await log.reader()
    base = (await reader.ends(UP))[PART]
    traffic = Traffic(writer, reader, base)
    async with asyncio.TaskGroup() as group:
        writing, following = group.create_task(traffic.write()), group.create_task(traffic.follow())
        await traffic.wait_more(20)
        log.kill()
        await log.come_back()
        await traffic.wait_more(20)
        traffic.end()
        await asyncio.wait([writing, following])
    check(await read_all(reader, UP, PART, base), base, traffic.taken)
    check(traffic.read, base, traffic.taken)


async def test_one_that_stands_still_is_said_and_goes_on(log: RunningLog) -> None:
    writer, reader = await log.writer(GIVE_UP_S), await log.reader()
    base = await writer.append(UP, PART, numbered(range(SIZE)))
    taken = {0: base}
    async with frozen(log):
        for _ in range(2):  # the second waits for what became of the first
            with pytest.raises(LogUnavailableError):
                await writer.append(UP, PART, numbered(range(SIZE, 2 * SIZE)))
    for number in range(1, 4):
        entries = numbered(range(number * SIZE, (number + 1) * SIZE))
        taken[number] = await append_surely(writer, UP, PART, entries)
    check(await read_all(reader, UP, PART, base), base, taken)


async def test_a_reader_says_when_it_hears_nothing(log: RunningLog) -> None:
    """Else a log that is away would look like one without news."""
    writer, reader = await log.writer(), await log.reader()
    base = await writer.append(UP, PART, numbered([1]))
    place = {(UP, PART): base + 1}
    assert await reader.read(place, most=10, wait_s=0.1) == []
    async with silent(log), asyncio.timeout(15):
        with pytest.raises(LogUnavailableError):
            await reader.read(place, most=10, wait_s=60)
        with pytest.raises(LogUnavailableError):
            await reader.ends(UP)
    assert await append_surely(writer, UP, PART, numbered([2])) > base
    assert set(numbers_of(await read_all(reader, UP, PART, base + 1))) == {2}


async def test_a_writer_ends_soon_while_the_log_stands_still(log: RunningLog) -> None:
    writer = await log.writer(GIVE_UP_S)
    tasks = TaskOwner("test")
    async with frozen(log):
        waiting = [tasks.start(writer.append(UP, part, numbered([1])), "append") for part in range(3)]
        await asyncio.wait(waiting)
        assert all(isinstance(one.exception(), LogUnavailableError) for one in waiting)
        async with asyncio.timeout(20):
            await writer.close()
