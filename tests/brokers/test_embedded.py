"""The embedded broker's door: who comes in, what may pass, and that nothing grows without bound."""

from __future__ import annotations

import asyncio
import gc
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import psutil
import pytest

from ingest.brokers import embedded as module
from ingest.brokers.embedded import EmbeddedBroker, Limits
from runtime.mqtt_link import MqttGoneError, MqttLink, MqttOptions, MqttRefusedError, Will
from tests.brokers.embedded import SECRETS, embedded_broker
from tests.mqtt_link.clients import WAIT_S, Clients, topic


@pytest.fixture
async def clients(embedded: EmbeddedBroker) -> AsyncIterator[Clients]:
    async with Clients(embedded) as made:
        yield made


@pytest.fixture(autouse=True)
async def _nothing_left(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """No traceback in any log: neither amqtt's nor asyncio's of a task that nobody heard."""
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert [record.getMessage() for record in caplog.records if record.name.startswith("amqtt")] == []


async def test_a_kicked_device_is_gone_and_comes_again(clients: Clients, embedded: EmbeddedBroker) -> None:
    bridge = await clients.bridge()
    will = Will(topic("d_a", "hello"), b"gone")
    device = await clients.device("d_a", will=will)
    bystander = await clients.device("d_b")
    assert await embedded.kick("d_a")
    assert await asyncio.wait_for(device.link.wait_closed(), WAIT_S)
    assert not await embedded.kick("d_a")
    await bridge.wait_count(1)
    assert bridge.payloads() == [b"gone"]
    assert await bystander.link.publish(topic("d_b"), b"x") == 0
    again = await clients.device("d_a", will=will)
    await again.link.publish(topic("d_a"), b"again")
    await bridge.wait_for(lambda: b"again" in bridge.payloads())


async def test_a_kick_amid_traffic_leaves_no_trace(clients: Clients, embedded: EmbeddedBroker) -> None:
    bridge = await clients.bridge()
    for round_ in range(5):
        device = await clients.device("d_a")
        for _ in range(40):
            await device.link.send(topic("d_a"), b"x" * 2000)
        await bridge.wait_count(1 + round_)
        assert await embedded.kick("d_a")
    assert len(embedded) == 1
    other = await clients.device("d_b")
    await other.link.publish(topic("d_b"), b"sound")
    await bridge.wait_for(lambda: b"sound" in bridge.payloads())


async def test_a_login_that_cannot_be_checked_is_told_so() -> None:
    async def away(_device: str, _password: str) -> bool:
        raise ConnectionError("the gateway is away")

    broker = EmbeddedBroker(away, SECRETS)
    await broker.start()
    try:
        async with Clients(broker) as clients:
            with pytest.raises(MqttRefusedError, match="code 3"):
                await clients.device("d_a")
            await clients.bridge()  # whose secret is here
    finally:
        await broker.close()


async def test_a_service_without_a_secret_cannot_log_in() -> None:
    async def everybody(_device: str, _password: str) -> bool:
        return True

    broker = EmbeddedBroker(everybody, {"ingest": "", "root": "x"})
    await broker.start()
    try:
        for user, password in (("ingest", ""), ("gateway", ""), ("ingest", "x"), ("D_A", "x"), ("+", "x")):
            options = MqttOptions("127.0.0.1", broker.port, user, username=user, password=password)
            with pytest.raises(MqttRefusedError, match="code 5"):
                await MqttLink.connect(options, print)
    finally:
        await broker.close()


def _connect(*, device: str = "d_a", keepalive: int = 60, flags: int = 0xC2, level: int = 4) -> bytes:
    fields = [device, device, f"of-{device}"]
    packed = b"".join(struct.pack("!H", len(field)) + field.encode() for field in fields)
    body = b"\x00\x04MQTT" + bytes((level, flags)) + struct.pack("!H", keepalive) + packed
    return bytes((0x10, len(body))) + body


def _publish(first_byte: int, *, payload: int = 10, name: str = "o/s/t/d_a/telemetry") -> bytes:
    body = struct.pack("!H", len(name)) + name.encode() + b"\x00\x01" + bytes(payload)
    length, coded = len(body), bytearray()
    while True:
        length, digit = length >> 7, length & 0x7F
        coded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes((first_byte,)) + bytes(coded) + body


T = TypeVar("T")
ACCEPTED = b"\x20\x02\x00\x00"


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"GET / HTTP/1.1\r\nHost: somewhere.example.com\r\nAccept: text/html;q=0.9\r\n\r\n" * 2, b""),
        (_publish(0x32), b""),
        (b"\x10\xff\xff\xff\x7f", b""),  # 256 MB of CONNECT
        (b"\x10\xff\xff\xff\xff\xff", b""),
        (_connect(level=3), b"\x20\x02\x00\x01"),
        (_connect(flags=0xC3), b""),  # a reserved flag
        (_connect(flags=0x02), b"\x20\x02\x00\x05"),  # nobody
        (_connect(flags=0xE6), b""),  # a retained will
        (_connect(device=""), b"\x20\x02\x00\x02"),
        (_connect()[:-3] + b"xyz", b"\x20\x02\x00\x05"),
        (_connect() + _publish(0x33), ACCEPTED),  # retained
        (_connect() + _publish(0x34), ACCEPTED),  # QoS 2
        (_connect() + _publish(0x32, payload=40_000), ACCEPTED),
        (_connect() + b"\x32\x03\x00\x40a", ACCEPTED),  # a topic longer than its packet
        (_connect() + b"\xf0\x00", ACCEPTED),
        (_connect() + b"\x82\x03\x00\x01\x00", ACCEPTED),  # a subscription cut short
        (_connect() + _connect(), ACCEPTED),
    ],
)
async def test_what_may_not_pass_ends_its_connection(
    clients: Clients, embedded: EmbeddedBroker, sent: bytes, answer: bytes
) -> None:
    bridge = await clients.bridge()
    async with _raw(embedded) as (reader, writer):
        writer.write(sent)
        assert await asyncio.wait_for(_to_end(reader), WAIT_S) == answer
    sound = await clients.device("d_a")
    await sound.link.publish(topic("d_a"), b"sound")
    await bridge.wait_count(1)
    assert bridge.payloads() == [b"sound"]


async def test_who_says_nothing_is_cut(embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_S", 0.2)
    async with _raw(embedded) as (reader, _):
        assert await asyncio.wait_for(_to_end(reader), WAIT_S) == b""
    async with _raw(embedded) as (reader, writer):
        writer.write(_connect(keepalive=1))
        assert await asyncio.wait_for(_to_end(reader), WAIT_S) == ACCEPTED
    await _eventually_in(lambda: _assert(len(embedded) == 0))


async def test_who_promised_no_keepalive_is_cut_too(
    embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEPALIVE_MAX_S", 0.2)
    for keepalive in (0, 65535):
        async with _raw(embedded) as (reader, writer):
            writer.write(_connect(keepalive=keepalive))
            assert await asyncio.wait_for(_to_end(reader), WAIT_S) == ACCEPTED


async def test_connections_are_counted() -> None:
    async with embedded_broker(Limits(connections=2)) as broker, Clients(broker) as clients:
        await clients.bridge()
        async with _raw(broker):
            with pytest.raises(MqttGoneError):
                await clients.device("d_a")
        device = await _eventually_in(lambda: clients.device("d_a"))
        assert device.link.reason == ""


async def test_a_bridge_that_rests_stops_the_devices_and_takes_no_memory() -> None:
    """20 MB are not taken, and flow when it listens again."""
    async with embedded_broker(Limits(queued=50)) as broker, Clients(broker) as clients:
        bridge = await clients.bridge(unacked_max=20)
        bridge.link.pause()
        device = await clients.device("d_a", inflight_max=2000)
        before = psutil.Process().memory_info().rss
        sending = asyncio.create_task(_flood(device.link, 700, 30_000))
        await _eventually_in(lambda: _assert(broker.full("d_a")))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(sending), 1.0)
        assert psutil.Process().memory_info().rss - before < 12_000_000
        bridge.link.resume()
        await asyncio.wait_for(sending, 30)
        await bridge.wait_count(60)


async def test_a_device_that_does_not_read_is_cut_and_holds_nobody_back() -> None:
    async with embedded_broker() as broker, Clients(broker) as clients:
        bridge = await clients.bridge()
        gateway = await clients.connect(clients.service_options("gateway", "gateway-0"))
        deaf = await clients.device("d_deaf")
        await deaf.link.subscribe([topic("d_deaf", "cmd")])
        deaf.link.pause()
        other = await clients.device("d_b")
        for _ in range(400):  # 12 MB: more than both ends' sockets hold
            await gateway.link.publish(topic("d_deaf", "cmd"), bytes(30_000))
            with suppress(MqttGoneError):
                await deaf.link.send(topic("d_deaf", "ack"), b"it speaks all the same")
        await other.link.publish(topic("d_b"), b"x")
        await bridge.wait_count(1)
        await _eventually_in(lambda: _assert("d_deaf" not in broker._lines))


async def test_a_broker_that_closes_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    async with embedded_broker() as broker, Clients(broker) as clients:
        bridge = await clients.bridge()
        bridge.link.pause()
        device = await clients.device("d_a")
        for _ in range(50):
            await device.link.send(topic("d_a"), bytes(20_000))
        await broker.close()
        assert await asyncio.wait_for(device.link.wait_closed(), WAIT_S)
    await _eventually_in(lambda: _assert(asyncio.all_tasks() == before))


async def _flood(link: MqttLink, count: int, size: int) -> None:
    for _ in range(count):
        await link.send(topic("d_a"), bytes(size))


async def _assert(condition: bool) -> None:
    if not condition:
        raise MqttGoneError("not yet")


async def _eventually_in(attempt: Callable[[], Awaitable[T]]) -> T:
    """Until it does not raise MqttGoneError any more."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await attempt()
            except MqttGoneError:
                await asyncio.sleep(0.02)


async def _to_end(reader: asyncio.StreamReader) -> bytes:
    """All until it was closed or cut."""
    found = b""
    try:
        while data := await reader.read(1000):
            found += data
    except ConnectionResetError:
        return found
    return found


@asynccontextmanager
async def _raw(broker: EmbeddedBroker) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
