"""One topic of Kafka that takes nothing, while the others do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from runtime.event_log import kafka as kafka_module
from runtime.event_log.interface import CONTROL, DEAD, UP, LogError, LogRefusedError, LogWriter
from runtime.event_log.kafka import weakness
from runtime.tasks import TaskOwner
from tests.event_log.logs import (
    GIVE_UP_S,
    KafkaLog,
    RunningLog,
    append_surely,
    entry,
    numbered,
    numbers_of,
    read_all,
)

pytestmark = pytest.mark.xdist_group("kafka")

APPENDS = 30
WAIT_S = 30.0


@asynccontextmanager
async def admin_of(log: KafkaLog) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**log.address.options())
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def limit(log: KafkaLog, size: int) -> None:
    """Of the dead letters' topic: bytes of an append."""
    async with admin_of(log) as admin:
        name, configs = log.address.name(DEAD), {"max.message.bytes": str(size)}
        answer = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=configs)])
        assert [resource[0] for one in answer for resource in one.resources] == [0], answer


async def _append_for_ever(writer: LogWriter) -> None:
    while True:
        await writer.append(DEAD, 0, [entry(bytes(1000))])


async def refusing(log: KafkaLog) -> None:
    """As where somebody limited the topic or took a right away: an answer, and another producer each time."""
    await limit(log, 100)


async def taking_again(log: KafkaLog) -> None:
    await limit(log, 1 << 20)


async def gone(log: KafkaLog) -> None:
    """As where a part has no leader: the client tries on and on."""
    async with admin_of(log) as admin:
        await admin.delete_topics([log.address.name(DEAD)])


async def there_again(log: KafkaLog) -> None:
    async with admin_of(log) as admin:
        await admin.create_topics([NewTopic(log.address.name(DEAD), 1, 1)])


@pytest.mark.parametrize(("fall_sick", "recover"), [(refusing, taking_again), (gone, there_again)])
async def test_a_topic_that_takes_nothing_keeps_no_other_waiting(
    kafka_log: RunningLog,
    fall_sick: Callable[[KafkaLog], Awaitable[None]],
    recover: Callable[[KafkaLog], Awaitable[None]],
) -> None:
    assert isinstance(kafka_log, KafkaLog)
    writer, reader = await kafka_log.writer(GIVE_UP_S), await kafka_log.reader()
    base = await writer.append(UP, 3, numbered([0]))
    await fall_sick(kafka_log)
    letter = [entry(bytes(1000))]
    failures: list[LogError] = []
    sick, stop = asyncio.Event(), asyncio.Event()

    async def bury() -> None:
        while not stop.is_set():
            try:
                await writer.append(DEAD, 0, letter)
                assert not failures, "it takes some"
            except LogError as error:
                failures.append(error)
                sick.set()
            await asyncio.sleep(0.05)

    burying = TaskOwner("test").start(bury(), "bury")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_S):
        await sick.wait()
        count, longest = len(failures), 0.0
        for number in range(1, APPENDS + 1):
            began = loop.time()
            await append_surely(writer, UP, 3, numbered([number]))
            await append_surely(writer, CONTROL, 0, numbered([number]))
            longest = max(longest, loop.time() - began)
        while len(failures) < count + 2:
            await append_surely(writer, CONTROL, 0, numbered([0]))
        stop.set()
        await burying
    assert longest < GIVE_UP_S, "no append waited for one that is given up"
    await recover(kafka_log)
    await append_surely(writer, DEAD, 0, letter)
    records = await read_all(reader, UP, 3, base)
    assert list(dict.fromkeys(numbers_of(records))) == list(range(APPENDS + 1)), "in order, none left out"


async def test_an_append_at_any_moment_of_a_producers_end_is_soon_over(kafka_log: RunningLog) -> None:
    """Also the first of its topic, for which the client asks the broker where it is."""
    assert isinstance(kafka_log, KafkaLog)
    writer = await kafka_log.writer()
    await refusing(kafka_log)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(LogRefusedError):
            await _append_for_ever(writer)
    loop = asyncio.get_running_loop()
    tasks, longest = TaskOwner("test"), 0.0
    for step in range(APPENDS):
        refused = tasks.start(_refused(writer), "refused")
        await asyncio.sleep(step * 0.0005)  # sleeps: the moments are tried in turn
        began = loop.time()
        await append_surely(writer, UP, 3, numbered([step]))
        longest = max(longest, loop.time() - began)
        await refused
    assert longest < GIVE_UP_S


async def _refused(writer: LogWriter) -> None:
    with pytest.raises(LogRefusedError):
        await writer.append(DEAD, 0, [entry(bytes(1000))])


async def test_nobody_waits_for_the_end_of_a_producer_that_is_used_no_more(
    kafka_log: RunningLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take as long as its requests: 20 s, where a broker does not answer."""
    assert isinstance(kafka_log, KafkaLog)
    may_end, ends = asyncio.Event(), kafka_module._end

    async def late(producer: AIOKafkaProducer) -> None:
        await may_end.wait()
        await ends(producer)

    monkeypatch.setattr(kafka_module, "_end", late)
    writer, reader = await kafka_log.writer(), await kafka_log.reader()
    base = await writer.append(UP, 3, numbered([0]))
    await refusing(kafka_log)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(LogRefusedError):
            await _append_for_ever(writer)  # the limit holds from some moment on
        for number in range(1, 4):
            await writer.append(UP, 3, numbered([number]))
    assert not may_end.is_set()
    may_end.set()
    assert numbers_of(await read_all(reader, UP, 3, base)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("copies", "in_sync", "weak"), [(3, 2, False), (1, 1, True), (3, 1, True), (2, 2, True), (3, 3, True)]
)
def test_what_lets_kafka_lose_or_stop_is_known(copies: int, in_sync: int, weak: bool) -> None:
    assert (weakness(copies, in_sync) is not None) is weak


async def test_a_writer_says_at_its_start_what_kafka_may_lose(
    kafka_log: RunningLog, caplog: pytest.LogCaptureFixture
) -> None:
    """The tests' broker is one."""
    await kafka_log.writer()
    said = [record for record in caplog.records if "may lose" in record.getMessage()]
    assert {record.__dict__["topic"].rpartition(".")[2] for record in said} == {UP, CONTROL, DEAD}
    assert {(record.__dict__["copies"], record.__dict__["min_insync"]) for record in said} == {(1, 1)}
