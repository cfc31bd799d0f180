"""Kafka's own: TLS, topics that are made, and what its client is kept from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from runtime.event_log.interface import CONTROL, PARTS, UP, LogUnavailableError
from runtime.event_log.kafka import KafkaAddress, KafkaReader, KafkaWriter
from runtime.event_log.seldom import EVERY_S, LINES_MAX, Seldom
from runtime.settings import SettingsError
from runtime.tasks import TaskOwner
from testbed.kafka import KafkaServer
from tests.event_log.logs import (
    GIVE_UP_S,
    KafkaLog,
    RunningLog,
    append_surely,
    frozen,
    numbered,
    numbers_of,
    read_all,
    until_available,
)

kafka_only = pytest.mark.xdist_group("kafka")
PART = 2


@pytest.fixture
async def ends() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@kafka_only
async def test_by_tls_with_a_certificate(kafka: KafkaServer, ends: AsyncExitStack) -> None:
    address = kafka.tls_address("tls")
    writer, reader = KafkaWriter(address), KafkaReader(address)
    for one in (writer, reader):
        ends.push_async_callback(one.close)
        await until_available(one.start)
    base = await writer.append(UP, PART, numbered([1, 2]))
    assert numbers_of(await read_all(reader, UP, PART, base)) == [1, 2]


@kafka_only
async def test_without_what_tls_demands_there_is_no_log(kafka: KafkaServer, tmp_path: Path) -> None:
    address = kafka.tls_address("tls")
    stranger = KafkaAddress(address.servers, ca=address.ca)
    for wrong in (stranger, KafkaAddress(address.servers), replace(kafka.address("tls"), ca=address.ca)):
        writer = KafkaWriter(wrong)
        with pytest.raises(LogUnavailableError):
            await writer.start()
        await writer.close()
    assert address.certificate is not None
    with pytest.raises(SettingsError, match=r"log\.ca"):
        await KafkaWriter(replace(address, ca=address.key)).start()
    with pytest.raises(SettingsError, match=r"log\.certificate"):
        await KafkaWriter(replace(address, key=tmp_path / "none")).start()


@kafka_only
async def test_topics_keep_the_parts_that_they_have(kafka_log: RunningLog) -> None:
    """Only those that are missing are made; the number of parts of an installation is its own."""
    assert isinstance(kafka_log, KafkaLog)
    admin = AIOKafkaAdminClient(**kafka_log.address.options())
    await admin.start()
    try:
        await admin.create_topics([NewTopic(kafka_log.address.name(UP), 3, 1)])
    finally:
        await admin.close()
    writer, reader = await kafka_log.writer(), await kafka_log.reader()
    assert {topic: writer.parts(topic) for topic in PARTS} == {**PARTS, UP: 3}
    assert sorted(await reader.ends(UP)) == [0, 1, 2]


@kafka_only
async def test_what_is_null_there_is_empty_here(kafka_log: RunningLog) -> None:
    """Whoever may write there may leave out what our writers never do."""
    assert isinstance(kafka_log, KafkaLog)
    reader = await kafka_log.reader()
    producer = AIOKafkaProducer(**kafka_log.address.options())
    await producer.start()
    try:
        sent = await producer.send_and_wait(
            kafka_log.address.name(UP), partition=PART, headers=[("topic", None), ("detail", b"x")], key=b"k"
        )
    finally:
        await producer.stop()
    [record] = await read_all(reader, UP, PART, sent.offset)
    assert (record.entry.key, record.entry.value) == (b"k", b"")
    assert record.entry.headers == (("topic", b""), ("detail", b"x"))


@kafka_only
async def test_an_append_waits_for_what_became_of_the_one_before(kafka_log: RunningLog) -> None:
    """The client tries on what was given up: another batch beside it would be in the log twice and more."""
    writer, reader = await kafka_log.writer(GIVE_UP_S), await kafka_log.reader()
    other = await kafka_log.writer()
    base = await writer.append(UP, PART, numbered([0]))
    async with frozen(kafka_log):
        for number in (1, 2, 3):
            with pytest.raises(LogUnavailableError):
                await writer.append(UP, PART, numbered([number]))
    await append_surely(other, CONTROL, 0, numbered([0]))  # it takes a moment to come to itself
    last = await writer.append(UP, PART, numbered([4]))
    assert numbers_of(await read_all(reader, UP, PART, base)) == [0, 1, 4]
    assert last == base + 2


@kafka_only
async def test_one_that_was_closed_takes_nothing_more(kafka_log: RunningLog) -> None:
    """Nor does an append that waited for its turn open it again."""
    writer = await kafka_log.writer(GIVE_UP_S)
    tasks = TaskOwner("test")
    async with frozen(kafka_log):
        waiting = [tasks.start(writer.append(UP, PART, numbered([1])), "append") for _ in range(3)]
        await asyncio.sleep(0)
        await writer.close()
    await asyncio.wait(waiting)
    assert all(isinstance(one.exception(), LogUnavailableError) for one in waiting)
    with pytest.raises(LogUnavailableError, match="closed"):
        await writer.append(UP, PART, numbered([1]))


class Target(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, int]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), getattr(record, "left_out", 0)))


def test_the_same_line_is_said_seldom() -> None:
    target, now = logging.Logger("target"), [0.0]
    heard = Target()
    target.addHandler(heard)
    library = logging.Logger("library")
    library.addHandler(Seldom(target, lambda: now[0]))
    for number in range(5):
        library.error("no connection to %s", number)
    library.warning("another line")
    now[0] += EVERY_S
    library.error("no connection to %s", 9)
    assert heard.lines == [("no connection to 0", 0), ("another line", 0), ("no connection to 9", 4)]
    for number in range(3 * LINES_MAX):
        library.error(f"line {number}")
    assert len(heard.lines) == 3 + 3 * LINES_MAX
    seldom = library.handlers[0]
    assert isinstance(seldom, Seldom)
    assert len(seldom._said) <= LINES_MAX
