"""The log in Kafka. The only module that knows its client, aiokafka.

Appends are batches of an idempotent producer with acks=all: its retries neither lose, double nor reorder, and
go on as long as they are given. Readers belong to no group: where one stands is the caller's to keep.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

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
from runtime.event_log.seldom import say_seldom
from runtime.event_log.settings import KafkaSettings
from runtime.logs import get_logger
from runtime.tasks import TaskOwner
from runtime.tls_files import load_ca, load_pair

REQUEST_S: Final = 3.0
"""One request; a healthy broker answers in milliseconds. What is asked again is asked for longer in all."""
START_S: Final = 10.0
"""Connect, find the topics, make those that are missing."""
APPEND_S: Final = 10.0
"""One append with all its retries: longer than the election of a new leader (about 6 s)."""
END_S: Final = 10.0
"""At the end: what is on its way may be answered, or time out."""
BATCH_MAX: Final = 1024 * 1024
"""The broker's own limit (message.max.bytes); APPEND_MAX stays below it."""
FETCH_WAIT_S: Final = 0.2
"""The broker holds a question for news for so long; a reader that is put elsewhere waits for that answer."""
FETCH_PART_MAX: Final = 1024 * 1024
"""Bytes of one part in an answer; one append always fits."""
SILENT_S: Final = 5.0
"""A broker that answers nothing for so long is away: else its silence would look like no news."""
LOOK_S: Final = 1.0
"""So often a reader that waits sees whether the broker still answers."""
RETRY_S: Final = 0.1

# It will be refused again: by its size, its times, or for want of rights.
_REFUSALS = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidTimestampError,
    kafka_errors.CorruptRecordException,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.PolicyViolationError,
)

log = get_logger("runtime.event_log.kafka")


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """Where Kafka is. `servers`: host:port each. `ca` None: plain; `certificate` and `key`: what we show."""

    servers: tuple[str, ...]
    prefix: str = "towline"
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    context: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    """To speak TLS by, in place of one that is made of the files for each client: whoever has it may keep it
    up to date with them.
    """

    def name(self, topic: str) -> str:
        """The topic's name at Kafka."""
        return f"{self.prefix}.{topic}"

    def options(self) -> dict[str, Any]:
        """What every client of it is given. SettingsError for files that cannot be used."""
        options = {
            "bootstrap_servers": list(self.servers),
            "client_id": "towline",
            "request_timeout_ms": int(REQUEST_S * 1000),
            "retry_backoff_ms": int(RETRY_S * 1000),
        }
        context = self.context or self.tls()
        return options if context is None else options | {"security_protocol": "SSL", "ssl_context": context}

    def tls(self) -> ssl.SSLContext | None:
        """Of the files as they are now; None: plain. SettingsError for files that cannot be used."""
        if self.ca is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        load_ca(context, self.ca, "log.ca")
        if self.certificate is not None and self.key is not None:
            load_pair(context, self.certificate, self.key, "log")
        return context


def address_of(settings: KafkaSettings) -> KafkaAddress:
    """With one context for all clients. SettingsError for files that cannot be used."""
    if settings.is_plain_abroad:
        log.warning(
            "no TLS to Kafka on another machine: who is between reads and changes what devices say",
            extra={"servers": list(settings.servers)},
        )
    address = KafkaAddress(settings.servers, settings.prefix, settings.ca, settings.certificate, settings.key)
    return replace(address, context=address.tls())


TopicPart = tuple[str, int]
"""A part: the topic's name in the log and its number."""


class KafkaWriter:
    """A LogWriter; see there. A part whose append was given up takes the next one once that one's fate is
    known: its retries go on meanwhile. The other parts do not wait for it, nor for the end of a producer that
    can be used no more.
    """

    def __init__(self, address: KafkaAddress, *, append_s: float = APPEND_S) -> None:
        """`append_s`: of one append with all its retries."""
        say_seldom("aiokafka", log)
        self._address = address
        self._append_s = append_s
        self._parts: dict[str, int] = {}
        self._turns: defaultdict[TopicPart, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._unsettled: dict[TopicPart, tuple[AIOKafkaProducer, asyncio.Future[Any]]] = {}
        """What is on its way, and what was given up while it was."""
        self._changing = asyncio.Lock()
        self._closed = False
        self._tasks = TaskOwner("kafka writer")
        self._producer: AIOKafkaProducer | None = None
        self._endings: dict[AIOKafkaProducer, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<KafkaWriter {self._address.prefix} unsettled={sorted(self._unsettled)}>"

    async def start(self) -> None:
        self._parts = await _topics(self._address, say_weak=True)
        await self._running()

    async def close(self) -> None:
        self._closed = True
        async with self._changing:  # one that begins just now is ended too
            if self._producer is not None:
                self._give_up(self._producer)
        if self._endings:
            await asyncio.wait(list(self._endings.values()), timeout=2 * END_S)
        await self._tasks.close(END_S)

    def parts(self, topic: str) -> int:
        return self._parts[topic]

    async def append(self, topic: str, part: int, entries: Sequence[Entry]) -> int:
        check_append(entries)
        at = (topic, part)
        if not 0 <= part < self._parts.get(topic, 0):
            raise LogRefusedError(f"there is no part {part} of {topic}")
        async with self._turns[at]:
            try:
                async with asyncio.timeout(self._append_s):
                    await self._settle(at)
                    return await self._append(at, entries)
            except TimeoutError as error:
                raise LogUnavailableError("kafka did not take it in time") from error

    async def _settle(self, at: TopicPart) -> None:
        """What was given up before must not come into the log behind what comes now."""
        if at in self._unsettled:
            producer, earlier = self._unsettled[at]
            await asyncio.wait([earlier])
            self._settled(at, producer, earlier)

    def _settled(self, at: TopicPart, producer: AIOKafkaProducer, sent: asyncio.Future[Any]) -> None:
        """It is known what became of it, or it never will be."""
        del self._unsettled[at]
        if sent.exception() is not None:
            # The producer has counted this batch and the broker has not: it would take no other from it.
            self._give_up(producer)

    async def _append(self, at: TopicPart, entries: Sequence[Entry]) -> int:
        producer = await self._running()
        batch = producer.create_batch()
        for entry in entries:
            headers = list(entry.headers)
            if batch.append(key=entry.key, value=entry.value, timestamp=entry.at_ms, headers=headers) is None:
                raise LogRefusedError("the append is larger than a batch")
        batch.close()
        try:
            sent = await producer.send_batch(batch, self._address.name(at[0]), partition=at[1])
        except KafkaError as error:
            self._give_up(producer)
            raise LogUnavailableError(_told(error)) from error
        sent.add_done_callback(_noted)
        self._unsettled[at] = (producer, sent)
        await asyncio.wait([sent])
        self._settled(at, producer, sent)
        return self._offset(sent)

    def _offset(self, sent: asyncio.Future[Any]) -> int:
        error = sent.exception()
        if error is not None:
            if isinstance(error, _REFUSALS):
                raise LogRefusedError(_told(error)) from error
            raise LogUnavailableError(_told(error)) from error
        metadata = sent.result()
        if metadata is None or metadata.offset < 0:
            # Ended with its producer; or a retry of what the broker had so long ago that it forgot where.
            raise LogUnavailableError("kafka did not say where it is")
        return int(metadata.offset)

    async def _running(self) -> AIOKafkaProducer:
        async with self._changing:
            if self._closed:
                raise LogUnavailableError("closed")
            if self._producer is None:
                self._producer = await _begun(self._address)
            return self._producer

    def _give_up(self, producer: AIOKafkaProducer) -> None:
        """The next append gets another one. What waits in this one is told that its fate is not known, once
        nothing of this one is on its way any more.
        """
        if self._producer is producer:
            self._producer = None
            ending = self._endings[producer] = self._tasks.start(_end(producer), "end")
            ending.add_done_callback(lambda _: self._endings.pop(producer))


async def _begun(address: KafkaAddress) -> AIOKafkaProducer:
    producer = AIOKafkaProducer(
        **address.options(),
        acks="all",
        enable_idempotence=True,
        max_batch_size=BATCH_MAX,
        max_request_size=2 * BATCH_MAX,  # of one record, which the batch's limit bounds
    )
    try:
        async with _kafkas_errors(START_S):
            await producer.start()
            # All at once, not each at its first append: who waited for that would wait in vain if the
            # producer were ended meanwhile, for another topic's sake.
            await producer.client.set_topics([address.name(topic) for topic in PARTS])
    except BaseException:
        await producer.stop()
        raise
    return producer


async def _end(producer: AIOKafkaProducer) -> None:
    """Also while Kafka is away: its own `stop` would wait for every batch, that is for Kafka."""
    try:
        async with asyncio.timeout(END_S):
            await producer._sender.close()  # once what is on its way was answered or timed out
    except TimeoutError:
        log.warning("requests to kafka did not end")
    waiting = producer._message_accumulator
    _let_go(batch for part in waiting._batches.values() for batch in part)  # nothing sends them now
    try:
        async with asyncio.timeout(END_S):
            await producer.stop()
    except (TimeoutError, KafkaError, OSError) as error:
        log.warning("connections to kafka did not end", extra={"reason": _told(error)})
    # What was given to it meanwhile, now that it takes no more; and what was on its way without end.
    _let_go(batch for part in waiting._batches.values() for batch in part)
    _let_go(waiting._pending_batches)


def _let_go(batches: Iterable[Any]) -> None:
    """Nobody need wait for them: their futures say None."""
    for batch in list(batches):
        batch.done_noack()


class KafkaReader:
    """A LogReader; see there."""

    def __init__(self, address: KafkaAddress, *, silent_s: float = SILENT_S) -> None:
        say_seldom("aiokafka", log)
        self._address = address
        self._silent_s = silent_s
        self._parts: dict[str, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._at: dict[TopicPartition, int] = {}
        """Where the client stands; empty: it must be put where the caller says."""
        self._placed_at = 0.0

    def __repr__(self) -> str:
        return f"<KafkaReader {self._address.prefix} at {self._at}>"

    async def start(self) -> None:
        self._parts = await _topics(self._address)
        consumer = AIOKafkaConsumer(
            **self._address.options(),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",  # never elsewhere than where the caller says
            fetch_max_wait_ms=int(FETCH_WAIT_S * 1000),
            fetch_max_bytes=READ_MAX,
            max_partition_fetch_bytes=FETCH_PART_MAX,
        )
        try:
            async with _kafkas_errors(START_S):
                await consumer.start()
        except BaseException:
            await consumer.stop()
            raise
        self._consumer = consumer

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        try:
            async with asyncio.timeout(END_S):
                await consumer.stop()
        except (TimeoutError, KafkaError, OSError) as error:
            log.warning("connections to kafka did not end", extra={"reason": _told(error)})

    def parts(self, topic: str) -> int:
        return self._parts[topic]

    async def ends(self, topic: str) -> dict[int, int]:
        if topic not in self._parts:
            raise LogRefusedError(f"there is no topic {topic}")
        name = self._address.name(topic)
        async with _kafkas_errors(REQUEST_S):
            found = await self._started().end_offsets(
                [TopicPartition(name, part) for part in range(self._parts[topic])]
            )
        return {place.partition: offset for place, offset in found.items()}

    async def read(
        self, positions: Mapping[tuple[str, int], int], *, most: int, wait_s: float
    ) -> list[Record]:
        consumer = self._started()
        try:
            self._place(consumer, positions)
            records = await self._records(consumer, most, wait_s)
        except BaseException:
            # The client may have gone on, and the caller has not.
            self._at.clear()
            raise
        for record in records:
            self._at[TopicPartition(self._address.name(record.topic), record.part)] = record.offset + 1
        return records

    def _place(self, consumer: AIOKafkaConsumer, positions: Mapping[TopicPart, int]) -> None:
        wanted = {}
        for (topic, part), position in positions.items():
            if not 0 <= part < self._parts.get(topic, 0):
                raise LogRefusedError(f"there is no part {part} of {topic}")
            wanted[TopicPartition(self._address.name(topic), part)] = position
        if consumer.assignment() != set(wanted):
            consumer.assign(list(wanted))
            self._at.clear()
        moved = {place: position for place, position in wanted.items() if self._at.get(place) != position}
        for place, position in moved.items():
            consumer.seek(place, position)
            self._at[place] = position
        if moved:
            self._placed_at = time.time()

    async def _records(self, consumer: AIOKafkaConsumer, most: int, wait_s: float) -> list[Record]:
        until = _now() + wait_s
        while True:
            left = max(0.0, until - _now())
            try:
                found = await consumer.getmany(timeout_ms=int(min(left, LOOK_S) * 1000), max_records=most)
            except OffsetOutOfRangeError as error:
                raise await self._gone(consumer, next(iter(error.args[0]))) from error
            except KafkaError as error:
                raise LogUnavailableError(_told(error)) from error
            if found:
                return [self._record(place, one) for place, ones in found.items() for one in ones]
            self._check_answers(consumer)
            if left <= 0:
                return []

    def _record(self, place: TopicPartition, one: Any) -> Record:
        # Each may be null in Kafka; no writer of ours leaves one out.
        headers = tuple((name, value or b"") for name, value in one.headers)
        entry = Entry(one.key or b"", one.value or b"", one.timestamp, headers)
        return Record(
            place.topic.removeprefix(f"{self._address.prefix}."), place.partition, one.offset, entry
        )

    def _check_answers(self, consumer: AIOKafkaConsumer) -> None:
        """An empty hand is no news only where each part's broker answered lately."""
        late = (time.time() - self._silent_s) * 1000
        for place in consumer.assignment():
            heard_ms = consumer.last_poll_timestamp(place) or 0
            if max(heard_ms, self._placed_at * 1000) < late:
                raise LogUnavailableError(f"kafka does not answer for {place.topic}/{place.partition}")

    async def _gone(self, consumer: AIOKafkaConsumer, place: TopicPartition) -> LogGoneError:
        async with _kafkas_errors(REQUEST_S):
            found = await consumer.beginning_offsets([place])
        topic = place.topic.removeprefix(f"{self._address.prefix}.")
        return LogGoneError(topic, place.partition, found[place])

    def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise LogUnavailableError("not started")
        return self._consumer


async def _topics(address: KafkaAddress, *, say_weak: bool = False) -> dict[str, int]:
    """How many parts each topic has. A topic that is missing is made, with as many as a new installation has
    and as many copies as the brokers say (default.replication.factor, min.insync.replicas).

    `say_weak`: log what about the topics lets Kafka lose what it confirmed, or take nothing.
    """
    admin = AIOKafkaAdminClient(**address.options())
    try:
        async with _kafkas_errors(START_S):
            await admin.start()
            found = await _found(admin, address)
            missing = PARTS.keys() - found.keys()
            if missing:
                await _make(admin, address, missing)
            while PARTS.keys() - found.keys():
                await asyncio.sleep(RETRY_S)
                found = await _found(admin, address)
            if say_weak:
                await _say_weak(admin, address)
            return found
    finally:
        await admin.close()


def weakness(copies: int, in_sync: int) -> str | None:
    """What is wrong with a topic of so many copies, of which `in_sync` (min.insync.replicas) confirm an
    append; None: nothing.
    """
    if copies == 1:
        return "one copy: what was accepted is lost with its broker's disk"
    if in_sync == 1:
        return "one copy confirms alone: what was accepted may be lost with one broker"
    if in_sync >= copies:
        return "all copies must confirm: it takes nothing while one broker is away"
    return None


async def _say_weak(admin: AIOKafkaAdminClient, address: KafkaAddress) -> None:
    names = [address.name(topic) for topic in PARTS]
    try:
        in_sync = await _in_sync(admin, names)
    except (KafkaError, KeyError, ValueError) as error:  # no right to ask, for one
        log.info("kafka does not say how many copies confirm", extra={"reason": _told(error)})
        return
    for topic in await admin.describe_topics(names):
        copies = min(len(part["replicas"]) for part in topic["partitions"])
        why = weakness(copies, in_sync[topic["topic"]])
        if why is not None:
            log.warning(
                "kafka may lose what it takes, or not take it",
                extra={
                    "topic": topic["topic"],
                    "copies": copies,
                    "min_insync": in_sync[topic["topic"]],
                    "why": why,
                },
            )


async def _in_sync(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, int]:
    """min.insync.replicas of each topic."""
    wanted = [
        ConfigResource(ConfigResourceType.TOPIC, name, configs={"min.insync.replicas": ""}) for name in names
    ]
    found = {}
    for answer in await admin.describe_configs(wanted):
        for code, _, _, name, entries in answer.resources:
            if code:
                raise kafka_errors.for_code(code)
            found[name] = int({entry[0]: entry[1] for entry in entries}["min.insync.replicas"])
    return found


async def _found(admin: AIOKafkaAdminClient, address: KafkaAddress) -> dict[str, int]:
    names = {address.name(topic): topic for topic in PARTS}
    told = {one["topic"]: len(one["partitions"]) for one in await admin.describe_topics()}
    return {topic: told[name] for name, topic in names.items() if told.get(name)}


async def _make(admin: AIOKafkaAdminClient, address: KafkaAddress, topics: set[str]) -> None:
    # Empty assignments: the client takes the broker's own number of copies (-1) only with some.
    wanted = [NewTopic(address.name(topic), PARTS[topic], -1, {}) for topic in sorted(topics)]
    answer = await admin.create_topics(wanted)
    for name, code, *_ in answer.topic_errors:
        error = kafka_errors.for_code(code)
        # Another process may make it meanwhile.
        if error not in (kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError):
            raise LogUnavailableError(f"kafka does not make {name}: {error.__name__}")


@asynccontextmanager
async def _kafkas_errors(timeout_s: float) -> AsyncIterator[None]:
    """LogUnavailableError for whatever the client says when it cannot."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise LogUnavailableError("kafka does not answer in time") from error
    except (KafkaError, OSError) as error:
        raise LogUnavailableError(_told(error)) from error


def _noted(sent: asyncio.Future[Any]) -> None:
    """Its error is looked at by the part's next append, which may never come."""
    if not sent.cancelled():
        sent.exception()


def _told(error: BaseException) -> str:
    return f"kafka: {type(error).__name__}: {error}"


def _now() -> float:
    return asyncio.get_running_loop().time()
