"""What every log promises to who writes and reads it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence

import pytest

from runtime.event_log.interface import (
    APPEND_MAX,
    AT_MS_END,
    CONTROL,
    DEAD,
    ENTRY_OVERHEAD,
    PARTS,
    UP,
    Entry,
    LogGoneError,
    LogRefusedError,
    LogUnavailableError,
)
from runtime.tasks import TaskOwner
from tests.event_log.logs import RunningLog, entry, numbered, numbers_of, read_all

PART = 3
SOON_S = 5.0


async def test_what_is_appended_is_read_as_it_was_and_in_its_order(log: RunningLog) -> None:
    writer, reader = await log.writer(), await log.reader()
    base = (await reader.ends(UP))[PART]
    now = int(time.time() * 1000)
    wanted = [
        Entry(b"d_aaaaaaaaaaaaaaaa", b'{"v":1}', now, (("topic", b"o/s/t/d/state"), ("trace", b"\x00\xff"))),
        Entry(b"d_bbbbbbbbbbbbbbbb", bytes(range(256)), now - 1),
        Entry(b"", b"", now + 1, (("dead", b""),)),
    ]
    assert await writer.append(UP, PART, wanted) == base
    assert await writer.append(UP, PART, wanted[:1]) == base + len(wanted)
    assert await writer.append(UP, PART, wanted[1:]) == base + len(wanted) + 1

    found = await read_all(reader, UP, PART, base)
    assert [one.entry for one in found] == wanted + wanted
    assert [one.offset for one in found] == list(range(base, base + 2 * len(wanted)))
    assert {(one.topic, one.part) for one in found} == {(UP, PART)}


async def test_a_reader_begins_anywhere_and_again(log: RunningLog) -> None:
    writer, reader = await log.writer(), await log.reader()
    base = await writer.append(UP, PART, numbered(range(30)))
    for begin in (20, 0, 29, 7, 7):
        assert numbers_of(await read_all(reader, UP, PART, base + begin)) == list(range(begin, 30))
    few = await reader.read({(UP, PART): base + 10}, most=4, wait_s=SOON_S)
    assert numbers_of(few) == [10, 11, 12, 13]


async def test_the_ends_are_what_comes_next(log: RunningLog) -> None:
    writer, reader = await log.writer(), await log.reader()
    before = await reader.ends(UP)
    assert sorted(before) == list(range(PARTS[UP]))
    assert writer.parts(UP) == PARTS[UP]
    for part in (0, 5):
        assert await writer.append(UP, part, numbered(range(part + 1))) == before[part]
    assert await reader.ends(UP) == before | {0: before[0] + 1, 5: before[5] + 6}
    for topic in PARTS:
        assert len(await reader.ends(topic)) == reader.parts(topic) == writer.parts(topic) == PARTS[topic]


async def test_one_full_part_keeps_no_other_waiting(log: RunningLog) -> None:
    """They come before all of it was read: after as much of it as is read ahead, at the latest."""
    writer, reader = await log.writer(), await log.reader()
    full = (UP, 1)
    bases = {full: await writer.append(*full, [entry(bytes(2048))] * 400)}
    for _ in range(3):
        await writer.append(*full, [entry(bytes(2048))] * 400)
    for place in ((UP, 2), (CONTROL, 0)):
        bases[place] = await writer.append(*place, numbered(range(3)))
    at, found = dict(bases), dict.fromkeys(bases, 0)
    while min(found.values()) < 3:
        records = await reader.read(at, most=50, wait_s=SOON_S)
        assert 0 < len(records) <= 50
        for one in records:
            assert one.offset == at[one.topic, one.part]
            at[one.topic, one.part] += 1
            found[one.topic, one.part] += 1
    assert found[full] < 1000


async def test_a_reader_that_waits_is_told(log: RunningLog) -> None:
    writer, reader = await log.writer(), await log.reader()
    place = (CONTROL, 1)
    base = (await reader.ends(CONTROL))[1]
    assert await reader.read({place: base}, most=10, wait_s=0.3) == []
    tasks = TaskOwner("test")
    for number in range(3):
        waiting = tasks.start(reader.read({place: base + number}, most=10, wait_s=60), "read")
        await asyncio.sleep(0)
        await writer.append(*place, numbered([number]))
        async with asyncio.timeout(SOON_S):
            assert numbers_of(await waiting) == [number]


async def test_two_writers_of_one_part_leave_no_hole_and_mix_no_append(log: RunningLog) -> None:
    """While a reader follows: it sees each offset once, in order, and never one before those below it."""
    writers, reader = [await log.writer(), await log.writer()], await log.reader()
    base = (await reader.ends(UP))[PART]
    size, rounds = 5, 15

    async def write(which: int) -> list[int]:
        return [
            await writers[which].append(UP, PART, numbered([which * 1000 + turn] * size))
            for turn in range(rounds)
        ]

    async def follow() -> list[int]:
        seen: list[int] = []
        while len(seen) < 2 * rounds * size:
            records = await reader.read({(UP, PART): base + len(seen)}, most=7, wait_s=SOON_S)
            assert [one.offset - base for one in records] == list(range(len(seen), len(seen) + len(records)))
            seen += numbers_of(records)
        return seen

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        following = group.create_task(follow())
        writing = [group.create_task(write(which)) for which in range(2)]
    seen = following.result()
    firsts = {
        first - base: (which, turn)
        for which in range(2)
        for turn, first in enumerate(writing[which].result())
    }
    assert len(firsts) == 2 * rounds
    for first, (which, turn) in firsts.items():
        assert seen[first : first + size] == [which * 1000 + turn] * size
    for which in range(2):
        assert writing[which].result() == sorted(writing[which].result())


async def test_appends_of_one_writer_to_one_part_go_in_their_order(log: RunningLog) -> None:
    writer, reader = await log.writer(), await log.reader()
    base = (await reader.ends(UP))[PART]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(writer.append(UP, PART, numbered([n, n]))) for n in range(20)]
    assert [task.result() for task in tasks] == [base + 2 * n for n in range(20)]
    assert numbers_of(await read_all(reader, UP, PART, base)) == [n for n in range(20) for _ in range(2)]


async def test_a_cancelled_append_lets_the_next_one_through(log: RunningLog) -> None:
    writer, reader = await log.writer(), await log.reader()
    base = (await reader.ends(UP))[PART]
    tasks = TaskOwner("test")
    for turn in range(10):
        cancelled = tasks.start(writer.append(UP, PART, numbered([turn])), "cancelled")
        for _ in range(turn):
            await asyncio.sleep(0)
        cancelled.cancel()
        async with asyncio.timeout(SOON_S):
            await writer.append(UP, PART, numbered([turn]))
    found = numbers_of(await read_all(reader, UP, PART, base))
    assert list(dict.fromkeys(found)) == list(range(10))
    assert max(map(found.count, range(10))) <= 2


def refused() -> dict[str, tuple[str, int, Sequence[Entry]]]:
    header = (("No Header", b""),)
    return {
        "nothing": (UP, PART, []),
        "too large": (UP, PART, [entry(b"x" * (APPEND_MAX // 2))] * 2),
        "too many": (UP, PART, [Entry(b"", b"", 0)] * (APPEND_MAX // ENTRY_OVERHEAD + 1)),
        "before 1970": (UP, PART, [Entry(b"k", b"v", -1)]),
        "after the year 9999": (UP, PART, [Entry(b"k", b"v", AT_MS_END)]),
        "a header's name": (UP, PART, [Entry(b"k", b"v", 0, header)]),
        "no such part": (UP, PARTS[UP], [entry(b"v")]),
        "no such topic": ("nosuch", 0, [entry(b"v")]),
    }


@pytest.mark.parametrize("what", refused())
async def test_what_it_never_takes_is_refused_and_the_next_is_taken(log: RunningLog, what: str) -> None:
    writer, reader = await log.writer(), await log.reader()
    base = (await reader.ends(UP))[PART]
    topic, part, entries = refused()[what]
    with pytest.raises(LogRefusedError):
        await writer.append(topic, part, entries)
    assert await writer.append(UP, PART, numbered([1])) == base
    assert (await reader.ends(UP))[PART] == base + 1


async def test_no_reader_stands_in_what_there_is_not(log: RunningLog) -> None:
    reader = await log.reader()
    for place in ((UP, PARTS[UP]), ("nosuch", 0)):
        with pytest.raises(LogRefusedError):
            await reader.read({place: 0}, most=1, wait_s=1)
    with pytest.raises(LogRefusedError):
        await reader.ends("nosuch")


@pytest.mark.parametrize("entries", [1, APPEND_MAX // ENTRY_OVERHEAD])
async def test_the_largest_append_fits(log: RunningLog, entries: int) -> None:
    writer, reader = await log.writer(), await log.reader()
    room = APPEND_MAX // entries - ENTRY_OVERHEAD
    value, now = secrets.token_bytes(room), int(time.time() * 1000)
    base = await writer.append(UP, PART, [Entry(b"", value, now)] * entries)
    found = await read_all(reader, UP, PART, base, most=5000)
    assert len(found) == entries
    assert {one.entry.value for one in found} == {value}


async def test_what_is_kept_no_more_is_said_with_where_it_begins(log: RunningLog) -> None:
    writer, reader = await log.writer(), await log.reader()
    base = await writer.append(DEAD, 0, numbered(range(10)))
    other = await writer.append(UP, PART, numbered([5]))
    await log.forget(DEAD, 0, base + 4)

    async def read_both() -> None:
        while True:  # the other part's records may come first
            await reader.read({(DEAD, 0): base, (UP, PART): other}, most=100, wait_s=SOON_S)

    for _ in range(2):
        with pytest.raises(LogGoneError) as gone:
            await read_both()
        assert (gone.value.topic, gone.value.part, gone.value.earliest) == (DEAD, 0, base + 4)
    again = await reader.read({(DEAD, 0): gone.value.earliest}, most=100, wait_s=SOON_S)
    assert numbers_of(again) == list(range(4, 10))

    await log.forget(DEAD, 0, base + 10)
    with pytest.raises(LogGoneError) as gone:
        await reader.read({(DEAD, 0): base + 4}, most=100, wait_s=SOON_S)
    assert gone.value.earliest == base + 10
    assert await reader.read({(DEAD, 0): base + 10}, most=100, wait_s=0.1) == []


async def test_beyond_the_end_is_gone_too(log: RunningLog) -> None:
    """A log that was put back to an older state: whoever waited there would miss what comes."""
    writer, reader = await log.writer(), await log.reader()
    base = await writer.append(UP, 7, numbered(range(3)))
    with pytest.raises(LogGoneError) as gone:
        await reader.read({(UP, 7): base + 4}, most=10, wait_s=SOON_S)
    assert gone.value.earliest <= base
    assert numbers_of(await read_all(reader, UP, 7, gone.value.earliest))[-3:] == [0, 1, 2]


async def test_one_that_is_not_there_is_said_soon(log: RunningLog) -> None:
    writer = await log.lost_writer(log._ends)
    async with asyncio.timeout(SOON_S * 2):
        with pytest.raises(LogUnavailableError):
            await writer.start()
        await writer.close()
