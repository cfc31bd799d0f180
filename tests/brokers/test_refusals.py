"""What a broker refuses to devices is told to the gateway: of each once a minute, and none forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingest import refusals as module
from ingest.brokers import mosquitto_log
from ingest.brokers.embedded import EmbeddedBroker
from ingest.brokers.mosquitto_log import DeniedLines
from ingest.refusals import EVERY_S, Refusal, Refusals
from runtime.clock import SYSTEM_CLOCK, FakeClock
from runtime.internal_http import GatewayRefused, GatewayUnavailable
from runtime.mqtt_link import MqttRefusedError, Will
from runtime.tasks import TaskOwner
from testbed.mosquitto import Mosquitto
from testbed.processes import short_folder
from tests.brokers.embedded import SECRETS, check
from tests.mqtt_link.clients import WAIT_S, Clients, topic


class Gateway:
    """Hears; `faults` come first."""

    def __init__(self, *faults: Exception) -> None:
        self.heard: list[Refusal] = []
        self.asked = 0
        self._faults = list(faults)

    async def tell(self, those: Sequence[Refusal]) -> None:
        self.asked += 1
        if self._faults:
            raise self._faults.pop(0)
        self.heard += those

    def of(self, device: str) -> list[tuple[str, str, int]]:
        return [(one.what, one.topic, one.count) for one in self.heard if one.device == device]


@asynccontextmanager
async def telling(gateway: Gateway, clock: FakeClock | None = None) -> AsyncIterator[Refusals]:
    made = Refusals(gateway.tell, clock or SYSTEM_CLOCK)
    tasks = TaskOwner("test")
    running = tasks.start(made.run(), "refusals")
    try:
        yield made
        assert not running.done()
    finally:
        await tasks.close(WAIT_S)


async def until(check_: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not check_():  # noqa: ASYNC110 (many things make it hold)
            await asyncio.sleep(0.005)


async def test_the_embedded_broker_tells_what_it_refused() -> None:
    gateway = Gateway()
    async with telling(gateway) as refusals:
        counted: list[str] = []
        refusals.counted = counted.append
        broker = EmbeddedBroker(check, SECRETS, refused=refusals.refused)
        await broker.start()
        try:
            async with Clients(broker) as clients:
                bridge = await clients.bridge()
                evil, deaf, sound = [await clients.device(name) for name in ("d_evil", "d_deaf", "d_sound")]
                for _ in range(3):
                    await evil.link.publish(topic("d_sound"), b"x")
                with pytest.raises(MqttRefusedError):
                    await deaf.link.subscribe([topic("d_sound", "cmd")])
                with pytest.raises(MqttRefusedError):
                    await clients.device("d_will", will=Will(topic("d_sound", "hello"), b"x"))
                with pytest.raises(MqttRefusedError):  # of who did not show that it is the device, nothing
                    await clients.device("d_liar", password="x", will=Will(topic("d_sound", "hello"), b"x"))
                with pytest.raises(MqttRefusedError):
                    await bridge.link.subscribe(["#"])  # a service is no device
                await sound.link.publish(topic("d_sound"), b"x")
                await sound.link.subscribe([topic("d_sound", "cmd")])
                await bridge.wait_count(1)
                await until(lambda: len({one.device for one in gateway.heard}) == 3)
        finally:
            await broker.close()
    [(what, where, _)] = gateway.of("d_evil")
    assert (what, where) == ("publish", topic("d_sound"))
    assert gateway.of("d_deaf") == [("subscribe", topic("d_sound", "cmd"), 1)]
    assert gateway.of("d_will") == [("will", topic("d_sound", "hello"), 1)]
    assert sorted(counted) == ["publish"] * 3 + ["subscribe", "will"]


async def test_once_a_minute_with_how_often() -> None:
    gateway, clock = Gateway(), FakeClock()
    async with telling(gateway, clock) as refusals:
        refusals.refused("d_a", "publish", "one")
        await until(lambda: len(gateway.heard) == 1)
        for _ in range(1000):
            refusals.refused("d_a", "subscribe", "two" * 200)
        refusals.refused("d_b", "publish", "three")
        await until(lambda: len(gateway.heard) == 2)
        assert gateway.of("d_a") == [("publish", "one", 1)]
        clock.advance(EVERY_S + 1)
        refusals.refused("d_c", "publish", "four")  # it looks up
        await until(lambda: len(gateway.heard) == 4)
    what, where, count = gateway.of("d_a")[1]
    assert (what, where, count) == ("subscribe", ("two" * 200)[: module.TOPIC_MAX], 1000)


async def test_a_gateway_that_is_away_is_told_later_and_one_that_refuses_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRY_S", (0.01, 0.02))
    gateway = Gateway(GatewayUnavailable("away"), GatewayUnavailable("away"), GatewayRefused(422, "no"))
    async with telling(gateway) as refusals:
        refusals.refused("d_a", "publish", "one")
        await until(lambda: gateway.asked == 3)
        refusals.refused("d_b", "publish", "two")
        await until(lambda: len(gateway.heard) == 1)
    assert gateway.of("d_b") == [("publish", "two", 1)]


async def test_its_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEVICES_MAX", 100)
    refusals = Refusals(Gateway().tell, SYSTEM_CLOCK)
    for n in range(1000):
        refusals.refused(f"d_{n}", "publish", "x")
    assert "100 devices" in repr(refusals)


@asynccontextmanager
async def talkative(*settings: str) -> AsyncIterator[Mosquitto]:
    """A Mosquitto that says what it refuses."""
    with short_folder("denied") as folder:
        mosquitto = Mosquitto(folder)
        config = folder / "mosquitto.conf"
        config.write_text("\n".join([config.read_text(), "log_type debug", *settings, ""]))
        mosquitto.start()
        try:
            yield mosquitto
        finally:
            mosquitto.close()


@asynccontextmanager
async def following(mosquitto: Mosquitto, refusals: Refusals) -> AsyncIterator[None]:
    tasks = TaskOwner("test")
    denied = DeniedLines(mosquitto.folder / "mosquitto.log", refusals.refused)
    tasks.start(denied.run(), "log")
    try:
        await until(lambda: denied._open is not None)
        yield
    finally:
        await tasks.close(WAIT_S)


async def test_mosquitto_says_it_in_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mosquitto_log, "LOOK_S", 0.02)
    gateway = Gateway()
    async with talkative() as mosquitto, telling(gateway) as refusals, Clients(mosquitto) as clients:
        early = await clients.device("d_early")
        await early.link.publish(topic("d_sound"), b"x")
        mosquitto.wait_logged("Denied PUBLISH")
        async with following(mosquitto, refusals):
            evil, bridge = await clients.device("d_evil"), await clients.bridge()
            odd = "o/s/it's', ... (5 bytes))/d_sound/cmd"
            await evil.link.publish(odd, b"x")
            await (await clients.device("d_sound")).link.publish(topic("d_sound"), b"x")
            await bridge.wait_count(1)
            await until(lambda: len(gateway.heard) == 1)
    assert gateway.of("d_evil") == [("publish", odd, 1)], "what was before the start is not told"


FORGED = "Denied PUBLISH from d_victim (d0, q1, r0, m1, 'o_a/s_b/linux/d_other/telemetry', ... (9 bytes))"


@pytest.mark.parametrize("setting", ["log_timestamp_format %Y-%m-%dT%H:%M:%S", "log_timestamp false", ""])
async def test_no_device_writes_it_for_another(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters, and topics of wills, stand in Mosquitto's log as they came."""
    monkeypatch.setattr(mosquitto_log, "LOOK_S", 0.02)
    gateway = Gateway()
    forged = [f"{start}{FORGED}" for start in ("", "x/", "1: ", "x/1700000000: ")]
    async with (
        talkative(setting, "log_type subscribe", "log_type unsubscribe") as mosquitto,
        telling(gateway) as refusals,
        Clients(mosquitto) as clients,
        following(mosquitto, refusals),
    ):
        evil = await clients.device("d_evil")
        for name in forged:
            await evil.link.subscribe([name])
            (await clients.device("d_leaver")).link._wire.send_unsubscribe_packet(name)
            await clients.device("d_will", will=Will(name, b"x"))
        await evil.link.publish(topic("d_sound"), b"x")
        await until(lambda: bool(gateway.of("d_evil")))
        for name in forged:
            for written in (f"\t{name} (QoS 1)", f"d_evil 1 {name}", f"d_leaver {name}"):
                mosquitto.wait_logged(written)
            assert [line for line in mosquitto.log().splitlines() if line.endswith(f"\t{name}")], "a will"
    assert [(one.device, one.what, one.topic) for one in gateway.heard] == [
        ("d_evil", "publish", topic("d_sound"))
    ]


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_line_without_its_start_says_nothing(tmp_path: Path, step: int) -> None:
    """It is a device's own words from wherever it was cut."""
    file, heard = tmp_path / "log", list[str]()
    file.write_text("1: \tx")  # not whole yet
    denied = DeniedLines(file, lambda device, _what, _topic: heard.append(device))
    denied._begin(at_end=True)
    honest = FORGED.replace("d_victim", "d_honest")
    too_long = "2: \t" + FORGED.rjust(mosquitto_log.LINE_MAX + 1)
    text = f"3: {FORGED}\n{too_long}\n{FORGED}x\n4: {honest}\n".encode()
    for at in range(0, len(text), step):
        denied._take(text[at : at + step])
    assert denied._open is not None
    denied._open.close()
    assert heard == ["d_honest"]


async def test_a_log_that_is_rotated_or_cut_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mosquitto_log, "LOOK_S", 0.01)
    file, heard = tmp_path / "log", list[str]()
    tasks = TaskOwner("test")
    denied = DeniedLines(file, lambda device, _what, _topic: heard.append(device))
    tasks.start(denied.run(), "log")

    def line(device: str) -> str:
        return f"1: Denied PUBLISH from {device} (d0, q1, r0, m7, 'a/b', ... (3 bytes))\n"

    try:
        await until(lambda: bool(denied._told))  # there is none at the start
        file.write_text(line("d_1"))
        await until(lambda: heard == ["d_1"])
        with file.open("a") as out:
            out.write(line("d_2")[:20])
            out.flush()
            out.write(line("d_2")[20:] + "1: Received PUBLISH from d_9\n")
        await until(lambda: heard == ["d_1", "d_2"])
        file.rename(tmp_path / "log.1")
        file.write_text(line("d_3"))
        await until(lambda: heard == ["d_1", "d_2", "d_3"])
        file.write_text("")
        await until(lambda: denied._open is not None and denied._open.tell() == 0)
        file.write_text(line("d_4"))
        await until(lambda: heard[-1] == "d_4")
    finally:
        await tasks.close(WAIT_S)
