"""Certificate × topic at Mosquitto, password × topic at the embedded broker: no leak, and nothing held back.

Everybody publishes everything and hears whatever the broker gives it; the set of what arrived is compared
with the one that the device protocol allows, written out here and not taken from the rule under test.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest

from ingest.brokers.embedded import EmbeddedBroker
from runtime.mqtt_link import MqttRefusedError, Will
from testbed.mosquitto import Mosquitto
from tests.mqtt_link.clients import WAIT_S, Client, Clients

UP = ("hello", "state", "telemetry", "event", "heartbeat", "ack")
DOWN = ("cmd", "config", "accepted")
DEVICES = ("d_a", "d_b")
WHO = (*DEVICES, "ingest", "gateway", "keeper", "node-1")

EMPTY_LEVEL = "/s_1/linux/d_a/telemetry"
END = b"the end"
# Of another site and type, of nobody, too short, too long, of no kind, and what brokers keep for themselves.
PLACES = ("o_1/s_1/linux", "o_2/s_9/esp32")
ODD = (
    "o_1/s_1/linux/d_a",
    "o_1/s_1/linux/d_a/telemetry/x",
    "o_1/s_1/linux/d_a/other",
    "o_1/s_1/d_a/telemetry",
    "telemetry",
    "d_a",
    EMPTY_LEVEL,
    "o_1/s_1/linux/D_A/telemetry",
    "o_1/s_1/linux//telemetry",
    "$SYS/broker/d_a/x/telemetry",
)
TOPICS = (*(f"{p}/{d}/{k}" for p in PLACES for d in DEVICES for k in UP + DOWN), *ODD)


def _hearers(who: str, topic: str) -> Iterator[str]:
    """Who must get what `who` publishes there: the whole permission, in one place."""
    parts = topic.split("/")
    if len(parts) != 5 or parts[3] not in DEVICES or topic == EMPTY_LEVEL or topic.startswith("$"):
        return
    device, kind = parts[3:]
    if kind in UP and who == device:
        yield "ingest"
    if kind in DOWN and (who == "gateway" or (who == "ingest" and kind == "accepted")):
        yield device


EXPECTED = {(hearer, who, topic) for who in WHO for topic in TOPICS for hearer in _hearers(who, topic)}


async def _everybody(clients: Clients, who: Sequence[str]) -> dict[str, Client]:
    """Connected, and subscribed to as much as the broker grants."""
    people = {}
    for name in who:
        if name in DEVICES:
            people[name] = await clients.device(name)
        else:
            people[name] = await clients.connect(clients.service_options(name, f"{name}-0"))
        await _subscribe_all(people[name])
    return people


async def _subscribe_all(client: Client) -> None:
    """The embedded broker refuses what is too much; Mosquitto grants it and delivers nothing."""
    wide = ("#", "+/+/+/+/+", "$SYS/#")
    kinds = tuple(f"+/+/+/{device}/{kind}" for device in ("+", *DEVICES) for kind in UP + DOWN)
    for pattern in (*wide, *kinds):
        with suppress(MqttRefusedError):
            await client.link.subscribe([pattern])


@pytest.fixture
def real(request: pytest.FixtureRequest) -> bool:
    """Whether the test's broker is Mosquitto."""
    return bool(request.node.callspec.params["clients"] == "mosquitto")


@pytest.fixture(params=["mosquitto", "embedded"])
async def clients(
    request: pytest.FixtureRequest, mosquitto: Mosquitto, embedded: EmbeddedBroker
) -> AsyncIterator[Clients]:
    async with Clients(mosquitto if request.param == "mosquitto" else embedded) as made:
        yield made


async def test_everybody_hears_what_is_theirs_and_nothing_else(clients: Clients, real: bool) -> None:
    # The internal CA signs for keepers and nodes too; the embedded broker has no such logins.
    people = await _everybody(clients, WHO if real else WHO[:4])
    topics = TOPICS if real else tuple(t for t in TOPICS if not t.startswith("$"))  # see below
    expected = {entry for entry in EXPECTED if entry[1] in people}
    if real:  # there `+` fits the empty level, and ingest makes it a dead letter
        expected.add(("ingest", "d_a", EMPTY_LEVEL))
    for who, client in people.items():
        for topic in topics:
            await client.link.publish(topic, f"{who} {topic}".encode())
    await _come_to_rest(people)
    heard = [
        (hearer, *message.payload.decode().split(" "))
        for hearer, client in people.items()
        for message in client.messages
        if message.payload != END
    ]
    assert set(heard) - expected == set(), "leaked"
    assert expected - set(heard) == set(), "held back"


async def _come_to_rest(people: Mapping[str, Client]) -> None:
    """Until everybody has what comes last to them, behind everything else."""
    for device in DEVICES:
        await people[device].link.publish(f"o_1/s_1/linux/{device}/hello", END)
        await people["gateway"].link.publish(f"o_1/s_1/linux/{device}/cmd", END)
    for name in (*DEVICES, "ingest"):
        count = 1 if name in DEVICES else len(DEVICES)
        await people[name].wait_for(partial(_has_ended, people[name], count))
    for client in people.values():  # a round trip: what was on its way to them is there
        await _subscribe_all(client)


def _has_ended(client: Client, senders: int) -> bool:
    return len({message.topic for message in client.messages if message.payload == END}) == senders


async def test_a_topic_of_the_broker_itself_ends_the_connection(embedded: EmbeddedBroker) -> None:
    async with Clients(embedded) as clients:
        device = await clients.device("d_a")
        await device.link.send("$SYS/x", b"x")
        assert await asyncio.wait_for(device.link.wait_closed(), WAIT_S)


@pytest.mark.parametrize(
    "topic", ["o_1/s_1/linux/d_b/hello", "o_1/s_1/linux/d_b/cmd", "o_1/s_1/linux/d_a/cmd"]
)
async def test_a_will_is_bound_to_its_device_too(clients: Clients, real: bool, topic: str) -> None:
    bridge = await clients.bridge()
    other = await clients.device("d_b")
    await other.link.subscribe(["o_1/s_1/linux/d_b/cmd"])
    if real:
        evil = await clients.device("d_a", will=Will(topic, b"evil"))
        evil.link._wire.cut()
    else:
        with pytest.raises(MqttRefusedError, match="code 5"):
            await clients.device("d_a", will=Will(topic, b"evil"))
    sound = await clients.device("d_a", will=Will("o_1/s_1/linux/d_a/hello", b"gone"))
    sound.link._wire.cut()
    await bridge.wait_count(1)
    assert bridge.payloads() == [b"gone"]
    assert other.messages == []


async def test_no_client_takes_another_ones_id(clients: Clients, real: bool) -> None:
    victim = await clients.device("d_b")
    thief = replace(clients.device_options("d_a"), client_id="d_b")
    if real:  # it is d_a all the same
        client = await clients.connect(thief)
        assert await client.link.publish("o_1/s_1/linux/d_a/hello", b"x") == 0
    else:
        with pytest.raises(MqttRefusedError, match="code 2"):
            await clients.connect(thief)
        with pytest.raises(MqttRefusedError, match="code 5"):
            await clients.device("d_b", password="wrong")
    assert await victim.link.publish("o_1/s_1/linux/d_b/hello", b"still here") == 0


async def test_the_newest_connection_of_a_device_ends_the_older(clients: Clients) -> None:
    first = await clients.device("d_a")
    second = await clients.device("d_a")
    assert await asyncio.wait_for(first.link.wait_closed(), WAIT_S)
    await second.link.subscribe(["o_1/s_1/linux/d_a/cmd"])
    gateway = await clients.connect(clients.service_options("gateway", "gateway-0"))
    await gateway.link.publish("o_1/s_1/linux/d_a/cmd", b"x")
    await second.wait_count(1)
