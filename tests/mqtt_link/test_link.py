"""A link with real brokers: Mosquitto with certificates, and the embedded one with passwords."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal

import psutil
import pytest

from ingest.brokers.embedded import EmbeddedBroker
from runtime.mqtt_link import (
    NO_SUBSCRIBER,
    REFUSED,
    MqttGoneError,
    MqttLink,
    MqttMessage,
    MqttOptions,
    MqttRefusedError,
    Will,
)
from testbed.mosquitto import Mosquitto
from testbed.waiting import eventually
from tests.mqtt_link.clients import WAIT_S, Client, Clients, topic

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _serving(serve: Serve) -> AsyncIterator[int]:
    """A broker of the test's own on that port; its connections end before the block does."""
    tasks: list[asyncio.Task[None]] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except OSError:  # the link was cut, as it should be
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.get_running_loop().create_task(run(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=WAIT_S)
            assert not stuck


def _trusts_others(mosquitto: Mosquitto) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=mosquitto.devices.pem())
    shown = mosquitto.issue_device("d_a")
    file = mosquitto.folder / "trusts-others.pem"
    file.write_bytes(shown.certificate_pem() + shown.key_pem())
    context.load_cert_chain(file)
    return context


@pytest.fixture(params=["mosquitto", "embedded"])
async def clients(
    request: pytest.FixtureRequest, mosquitto: Mosquitto, embedded: EmbeddedBroker
) -> AsyncIterator[Clients]:
    """Of both brokers."""
    async with Clients(mosquitto if request.param == "mosquitto" else embedded) as made:
        yield made


@pytest.fixture
async def at_mosquitto(mosquitto: Mosquitto) -> AsyncIterator[Clients]:
    async with Clients(mosquitto) as made:
        yield made


@pytest.fixture(autouse=True)
async def _nothing_left(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """No traceback in any log, and gmqtt logs nothing at all."""
    yield
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert [record.getMessage() for record in caplog.records if record.name.startswith("gmqtt")] == []


async def test_messages_of_one_sender_arrive_whole_and_in_order(clients: Clients) -> None:
    bridge = await clients.bridge()
    device = await clients.device("d_a")
    sent = [bytes([i % 256]) * (i % 400) for i in range(1, 300)]
    for payload in sent:
        await device.link.send(topic("d_a"), payload)
    assert await device.link.publish(topic("d_a"), b"\x00last", qos=1) == 0
    await bridge.wait_count(len(sent) + 1)
    assert bridge.payloads() == [*sent, b"\x00last"]
    assert {message.topic for message in bridge.messages} == {topic("d_a")}


async def test_qos_0_has_nothing_to_acknowledge(clients: Clients) -> None:
    bridge = await clients.bridge(qos=0)
    device = await clients.device("d_a")
    assert await device.link.publish(topic("d_a"), b"x", qos=0) == 0
    await bridge.wait_count(1)
    assert bridge.messages[0].packet_id is None
    assert bridge.link.unacked == 0


async def test_the_reason_code_tells_whether_somebody_took_it(at_mosquitto: Clients) -> None:
    device = await at_mosquitto.device("d_a")
    gateway = await at_mosquitto.connect(at_mosquitto.service_options("gateway", "gateway-1", version=5))
    assert await gateway.link.publish(topic("d_a", "cmd"), b"1") == NO_SUBSCRIBER
    await device.link.subscribe([topic("d_a", "cmd")])
    assert await gateway.link.publish(topic("d_a", "cmd"), b"2") == 0
    assert await gateway.link.publish(topic("d_a", "hello"), b"3") >= REFUSED
    await device.wait_count(1)
    assert device.payloads() == [b"2"]


@pytest.mark.parametrize("version", [4, 5])
async def test_what_was_not_acknowledged_comes_again_on_the_next_connection(
    at_mosquitto: Clients, version: Literal[4, 5]
) -> None:
    name = f"ingest-again-{version}"
    first = await at_mosquitto.bridge(name, acknowledges=False, session_s=60, version=version)
    device = await at_mosquitto.device("d_a")
    for number in range(5):
        await device.link.publish(topic("d_a"), b"%d" % number)
    await first.wait_count(5)
    first.link.acknowledge(first.messages[0].packet_id)
    first.link.acknowledge(first.messages[3].packet_id)  # leaves only after 1 and 2
    await first.link.close()
    first.link.acknowledge(first.messages[1].packet_id)  # too late: on no connection

    options = at_mosquitto.service_options("ingest", name, session_s=60, version=version)
    again = await at_mosquitto.connect(options)
    await again.wait_count(4)
    assert again.payloads() == [b"1", b"2", b"3", b"4"]
    assert all(message.repeated for message in again.messages)
    await again.link.close()
    gone = await at_mosquitto.connect(replace(options, session_s=0))  # ends the session
    assert gone.messages == []


async def test_acknowledgements_leave_in_the_order_of_receipt() -> None:
    """Seen on the wire, by a broker of four lines."""
    acknowledged: list[int] = []
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly((await reader.readexactly(2))[1])
        writer.write(b"\x20\x02\x00\x00")
        for packet_id in (7, 5, 9, 5):  # the second 5 before its PUBACK: the same message again
            writer.write(b"\x32\x06\x00\x01t" + packet_id.to_bytes(2, "big") + b"!")
        while len(acknowledged) < 3:
            ack = await reader.readexactly(4)
            assert ack[:2] == b"\x40\x02"
            acknowledged.append(int.from_bytes(ack[2:], "big"))
        done.set()
        writer.close()

    async with _serving(serve) as port:
        client = await Client(acknowledges=False).connect(MqttOptions("127.0.0.1", port, "c"))
        await client.wait_count(3)
        for packet_id in (9, 5, 7):
            client.link.acknowledge(packet_id)
        with pytest.raises(ValueError, match="before"):
            client.link.acknowledge(5)
        await asyncio.wait_for(done.wait(), WAIT_S)
        assert [message.packet_id for message in client.messages] == [7, 5, 9]
        assert acknowledged == [7, 5, 9]
        await client.link.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"\x20\x02\x00",  # half, then silence
        b"\xf0\x00",  # a type that does not exist
        b"\x20\x02\x00\x00\x32\x04\x00\xffab",  # a topic longer than its packet
        b"\x20\x02\x00\x00\x34\x05\x00\x01t\x00\x01",  # QoS 2
        b"\x20\x02\x00\x00\x20\x02\x00\x00",  # a second CONNACK
        b"\x20\x02\x00\x00\x30\xff\xff\xff\xff\xff" + bytes(200_000),  # a length of five bytes
        b"\x20\x02\x00\x00\x30\xff\xff\xff\x7f" + bytes(200_000),  # 256 MB
    ],
)
async def test_a_broker_that_breaks_mqtt_ends_the_link_and_nothing_else(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read()
        writer.close()

    async with _serving(serve) as port:
        options = MqttOptions("127.0.0.1", port, "c")
        client = Client()
        try:
            client._link = await MqttLink.connect(options, client._take, timeout_s=0.5)
            reason = await asyncio.wait_for(client.link.wait_closed(), WAIT_S)
            await client.link.close()
        except MqttGoneError as error:
            reason = str(error)
        assert reason
        assert client.messages == []


async def test_a_killed_broker_is_told_to_everybody_who_waits(mosquitto: Mosquitto) -> None:
    async with Clients(mosquitto) as clients:
        bridge = await clients.bridge(acknowledges=False)
        device = await clients.device("d_a", inflight_max=1)
        await device.link.publish(topic("d_a"), b"1")
        await bridge.wait_count(1)
        mosquitto.signal(signal.SIGSTOP)
        answers = [asyncio.create_task(device.link.publish(topic("d_a"), b"2")) for _ in range(3)]
        try:
            mosquitto.kill()
            for answer in answers:
                with pytest.raises(MqttGoneError):
                    await asyncio.wait_for(answer, WAIT_S)
            assert await asyncio.wait_for(bridge.link.wait_closed(), WAIT_S)
            bridge.link.acknowledge(bridge.messages[0].packet_id)
            with pytest.raises(MqttGoneError):
                await device.link.send(topic("d_a"), b"3")
            with pytest.raises(MqttGoneError):
                await MqttLink.connect(clients.device_options("d_a"), print)
        finally:
            mosquitto.start()
        assert (await clients.device("d_a")).link.reason == ""


async def test_a_silent_broker_is_given_up(mosquitto: Mosquitto) -> None:
    async with Clients(mosquitto) as clients:
        device = await clients.device("d_silent", keepalive_s=1)
        mosquitto.signal(signal.SIGSTOP)
        try:
            assert await asyncio.wait_for(device.link.wait_closed(), WAIT_S) == "the broker is silent"
        finally:
            mosquitto.signal(signal.SIGCONT)


async def test_a_link_that_says_nothing_stays(clients: Clients) -> None:
    device = await clients.device("d_quiet", keepalive_s=3)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(device.link.wait_closed(), 5.5)  # brokers wait for 4.5 s
    assert device.link.reason == ""


async def test_a_reader_that_rests_takes_no_memory(at_mosquitto: Clients) -> None:
    """60 MB behind it stay with the broker (which drops them) and with the sender."""
    bridge = await at_mosquitto.bridge(acknowledges=False, unacked_max=100)
    device = await at_mosquitto.device("d_a")
    before = psutil.Process().memory_info().rss
    payload = bytes(30_000)
    for _ in range(2000):
        await device.link.send(topic("d_a"), payload)
    assert await device.link.publish(topic("d_a"), b"end") == 0
    # Reading rests at 100, and what is read already is some 200 KiB.
    assert 100 <= bridge.link.unacked <= 110
    assert psutil.Process().memory_info().rss - before < 25_000_000
    for message in bridge.messages[:60]:
        bridge.link.acknowledge(message.packet_id)
    await bridge.wait_count(115)


async def test_pause_holds_messages_back_and_resume_brings_them(clients: Clients) -> None:
    bridge = await clients.bridge()
    device = await clients.device("d_a")
    bridge.link.pause()
    for number in range(50):
        await device.link.publish(topic("d_a"), b"%d" % number)
    assert bridge.messages == []
    bridge.link.resume()
    await bridge.wait_count(50)
    assert bridge.payloads() == [b"%d" % number for number in range(50)]


async def test_publishes_wait_above_their_limit(mosquitto: Mosquitto) -> None:
    async with Clients(mosquitto) as clients:
        device = await clients.device("d_a", inflight_max=3)
        mosquitto.signal(signal.SIGSTOP)
        try:
            for _ in range(3):
                await device.link.send(topic("d_a"), b"x")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(device.link.send(topic("d_a"), b"x"), 0.2)
        finally:
            mosquitto.signal(signal.SIGCONT)
        assert await asyncio.wait_for(device.link.publish(topic("d_a"), b"y"), WAIT_S) == 0


async def test_the_will_comes_when_the_line_is_cut_and_not_after_a_goodbye(clients: Clients) -> None:
    bridge = await clients.bridge()
    polite = await clients.device("d_polite", will=Will(topic("d_polite", "hello"), b"gone"))
    await polite.link.close()
    cut = await clients.device("d_cut", will=Will(topic("d_cut", "hello"), b"gone"))
    cut.link._wire.cut()
    await bridge.wait_count(1)
    assert [(m.topic, m.payload) for m in bridge.messages] == [(topic("d_cut", "hello"), b"gone")]


async def test_a_receiver_that_raises_ends_its_link(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_message: MqttMessage) -> None:
        raise RuntimeError("of the receiver")

    async with Clients(mosquitto) as clients:
        link = await MqttLink.connect(clients.service_options("ingest", "ingest-bad"), fail)
        await link.subscribe(["+/+/+/+/telemetry"])
        await (await clients.device("d_a")).link.publish(topic("d_a"), b"x")
        assert await asyncio.wait_for(link.wait_closed(), WAIT_S) == "a message's receiver failed"
        await link.close()
    assert [r.getMessage() for r in caplog.records if r.exc_info] == ["a message's receiver failed"]
    caplog.clear()


async def test_wrong_certificates_are_refused(at_mosquitto: Clients, mosquitto: Mosquitto) -> None:
    good = at_mosquitto.device_options("d_a")
    long_ago = mosquitto.issue_device("d_a", now=1_500_000_000)
    for wrong in (None, mosquitto.internal.issue_client("d_a", 1_800_000_000), long_ago):
        with pytest.raises(MqttGoneError):
            await MqttLink.connect(replace(good, tls=mosquitto.context(wrong)), print)
    with pytest.raises(MqttGoneError, match="VERIFY"):  # a broker that we do not trust
        await MqttLink.connect(replace(good, tls=_trusts_others(mosquitto)), print)
    assert (await at_mosquitto.connect(good)).link.reason == ""


async def test_wrong_passwords_are_refused(embedded: EmbeddedBroker) -> None:
    async with Clients(embedded) as clients:
        for password in ("of-d_b", "", "bridge-secret"):
            with pytest.raises(MqttRefusedError) as refused:
                await clients.device("d_a", password=password)
            assert refused.value.code == 5
        with pytest.raises(MqttRefusedError) as version:
            await clients.device("d_a", version=5)
        assert version.value.code == 1


async def test_connecting_has_a_deadline_and_leaves_nothing_when_cancelled() -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        asked.set()
        await reader.read()
        writer.close()

    async with _serving(serve) as port:
        options = MqttOptions("127.0.0.1", port, "c")
        with pytest.raises(MqttGoneError, match=r"within 0\.1 s"):
            await MqttLink.connect(options, print, timeout_s=0.1)
        asked.clear()
        task = asyncio.create_task(MqttLink.connect(options, print))
        await asyncio.wait_for(asked.wait(), WAIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_publish_that_is_cancelled_leaves_the_link_whole(mosquitto: Mosquitto) -> None:
    async with Clients(mosquitto) as clients:
        device = await clients.device("d_a")
        mosquitto.signal(signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(device.link.publish(topic("d_a"), b"x"), 0.1)
        finally:
            mosquitto.signal(signal.SIGCONT)
        assert await asyncio.wait_for(device.link.publish(topic("d_a"), b"y"), WAIT_S) == 0
        assert "0 out" in repr(device.link)


async def test_no_task_is_left_by_connections_that_come_and_go(mosquitto: Mosquitto) -> None:
    before = asyncio.all_tasks()
    async with Clients(mosquitto) as clients:
        options = clients.device_options("d_many")
        for _ in range(20):
            client = await Client().connect(options)
            await client.link.publish(topic("d_many"), b"x")
            await client.link.close()
            await client.link.close()
    assert asyncio.all_tasks() == before
    eventually("the broker has let them go", lambda: len(psutil.Process().net_connections()) == 0)
