"""A device at a real broker: greeted, heard, told, cut off, moved."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from device_protocol.bodies import Reported, Stage
from device_protocol.errors import Reason
from device_protocol.numbers import NOTHING, Line, Number
from device_protocol.topics import Kind, parse_topic
from runtime.clock import SYSTEM_CLOCK
from runtime.metrics import Registry
from runtime.settings import from_table
from runtime.tasks import TaskOwner
from testbed.mosquitto import Mosquitto
from tests.tunnel_agent.messages.device import TOPIC, Gateway, enrolled
from tests.tunnel_agent.messages.making import event
from tests.tunnel_agent.messages.pipeline import Pipeline
from tests.tunnel_agent.node import WAIT_S
from tunnel_agent.identity import Identity
from tunnel_agent.messages import keeper as keeper_module
from tunnel_agent.messages import session as session_module
from tunnel_agent.messages.policy import sending
from tunnel_agent.messages.settings import MessagesSettings
from tunnel_agent.messages.side import MessageSide

PATIENCE_S = 0.5  # instead of the product's


async def until(condition: Callable[[], object]) -> None:
    """For what tells nobody when it changes."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


class Device:
    """A message side that runs."""

    def __init__(self, identity: Identity, folder: Path, settings: dict[str, object]) -> None:
        self.identity = identity
        self.registry = Registry()
        table = {"enabled": True, "sync_every_ms": 10} | settings
        self.side = MessageSide(
            from_table(MessagesSettings, table, source=folder / "agent.toml"),
            folder,
            lambda: self.identity,
            SYSTEM_CLOCK,
            self.registry,
            chance=lambda: 0.05,
        )
        self._tasks = TaskOwner("device")
        self._tasks.start(self.side.run(), "side")

    async def stop(self) -> None:
        assert await self._tasks.close(5) == []

    def sample(self, name: str) -> float:
        lines = self.registry.render().decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])


Start = Callable[..., Device]


@pytest.fixture
async def start(
    mosquitto: Mosquitto, gateway: Gateway, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Start]:
    monkeypatch.setattr(sending, "PATIENCE_FIRST_S", PATIENCE_S)
    identity = enrolled(mosquitto, gateway, folder)
    async with AsyncExitStack() as stack:

        def make(**settings: object) -> Device:
            device = Device(identity, folder, settings)
            stack.push_async_callback(device.stop)
            return device

        yield make


def offer(device: Device, *ns: int) -> None:
    """Events, as something in the agent would say them."""
    session = device.side._session
    assert session is not None
    for n in ns:
        assert session._keeper.offer(event(n), urgent=True)


def told(pipeline: Pipeline) -> list[int]:
    return [envelope.payload["n"] for envelope in pipeline.of(Kind.EVENT)]


async def test_a_new_device_asks_for_its_numbers_then_says_how_it_is(
    start: Start, pipeline: Pipeline
) -> None:
    device = start()
    await pipeline.until(lambda: pipeline.of(Kind.HEARTBEAT))
    assert [hello.boot for hello in pipeline.hellos] == [0, 1]
    assert pipeline.numbers() == [(1, 1)]
    hello = pipeline.hellos[-1]
    assert (hello.type, hello.commands) == ("linux", ("ping", "log_level"))
    assert pipeline.topics == {str(TOPIC.of(kind)) for kind in (Kind.HELLO, Kind.HEARTBEAT)}
    await until(lambda: not device.sample("towline_agent_outbox_entries"))
    assert device.sample("towline_agent_messages_accepted_total") == 1
    assert device.sample("towline_agent_mqtt_connected") == 1


async def test_it_leaves_the_outbox_only_when_it_is_accepted(
    start: Start, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = start()
    await pipeline.until(lambda: pipeline.taken)
    pipeline.accepts = False
    offer(device, *range(1, 40))
    await pipeline.until(lambda: len(pipeline.raw) > 40)
    assert device.sample("towline_agent_outbox_entries") >= 39  # the broker has them all, and that is nothing
    await device.stop()
    pipeline.accepts = True
    again = start()
    await pipeline.until(lambda: len(told(pipeline)) == 39)
    assert told(pipeline) == list(range(1, 40))
    assert pipeline.numbers() == sorted(set(pipeline.numbers()))
    assert pipeline.hellos[-1].boot == 2
    await until(lambda: not again.sample("towline_agent_outbox_entries"))


async def test_a_pipeline_that_forgets_is_told_again_from_the_floor(
    start: Start, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed bridge leaves: messages that the broker says are delivered."""
    device = start()
    await pipeline.until(lambda: pipeline.taken)
    pipeline.accepts = False
    offer(device, *range(1, 11))
    await pipeline.until(lambda: len(pipeline.raw) >= 13)
    pipeline.line = Line(NOTHING)
    pipeline.accepts = True
    await pipeline.until(lambda: len(told(pipeline)) == 10)
    assert told(pipeline) == list(range(1, 11))


async def test_it_comes_back_when_the_broker_was_killed(
    start: Start, mosquitto: Mosquitto, pipeline: Pipeline
) -> None:
    device = start()
    await pipeline.until(lambda: pipeline.taken)
    mosquitto.kill()
    try:
        offer(device, *range(1, 6))
    finally:
        mosquitto.start()
    after = Pipeline(mosquitto, TOPIC)
    after.line = Line(pipeline.line.have)
    await after.start()
    await after.until(lambda: len(told(after)) == 5)
    assert told(after) == list(range(1, 6))
    await after.close()


async def test_commands_are_answered_by_their_id(start: Start, pipeline: Pipeline, folder: Path) -> None:
    mark = f"open({str(folder / 'mark')!r}, 'a').write('x')"
    device = start(commands={"mark": {"exec": ["/usr/bin/env", "python3", "-c", mark]}})
    await pipeline.until(lambda: pipeline.taken)
    assert "run:mark" in pipeline.hellos[-1].commands
    assert (await pipeline.answer(pipeline.send("ping"))).ok
    for _ in range(3):
        answer = await pipeline.answer(pipeline.send("run", n=1, name="mark"))
        assert answer.ok, answer
    assert (await pipeline.answer(pipeline.send("dance"))).stage is Stage.REFUSED
    await device.stop()
    start(commands={"mark": {"exec": ["/usr/bin/env", "python3", "-c", mark]}})
    await pipeline.until(lambda: len(pipeline.hellos) == 3)
    before = len(pipeline.acks)
    pipeline.send("run", n=1, name="mark")
    await pipeline.until(lambda: len(pipeline.acks) > before)
    assert pipeline.acks[-1].ok
    assert (folder / "mark").read_text() == "x"


async def test_nothing_that_is_told_ends_it(start: Start, pipeline: Pipeline) -> None:
    start()
    await pipeline.until(lambda: pipeline.taken)
    for kind in (Kind.CMD, Kind.ACCEPTED):
        for junk in (b"", b"\xff", b"{}", b"[" * 20_000, b'{"v":1,"boot":1e400}', b'{"v":2}'):
            pipeline._tell(pipeline._gateway, kind, junk)
    assert (await pipeline.answer(pipeline.send("ping"))).ok
    assert len(pipeline.hellos) == 2  # on the same connection


async def test_numbers_of_another_life_are_jumped_over(start: Start, pipeline: Pipeline) -> None:
    device = start()
    await pipeline.until(lambda: pipeline.taken)
    pipeline.accepts = False
    offer(device, 1, 2, 3)
    await pipeline.until(lambda: len(pipeline.raw) >= 6)
    pipeline.line = Line(Number(7, 50))
    pipeline.accepts = True
    pipeline.tell_accepted(Number(7, 50))
    await pipeline.until(lambda: len(told(pipeline)) == 3)
    assert told(pipeline) == [1, 2, 3]
    assert pipeline.numbers()[1:] == [(8, 1), (8, 2), (8, 3)]
    await pipeline.until(lambda: pipeline.hellos[-1].boot == 8)


async def test_what_nobody_takes_stands_aside(
    start: Start, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = start()
    await pipeline.until(lambda: pipeline.taken)
    pipeline.refuses = Reason.BAD_SCHEMA
    offer(device, 1)
    await until(lambda: device.sample("towline_agent_outbox_refused"))
    pipeline.refuses = None
    offer(device, 2)
    await pipeline.until(lambda: told(pipeline))
    assert told(pipeline) == [2]


async def test_a_moved_device_speaks_under_its_new_topics(
    start: Start, gateway: Gateway, mosquitto: Mosquitto, pipeline: Pipeline
) -> None:
    start()
    await pipeline.until(lambda: pipeline.taken)
    there = parse_topic(f"o_test/s_two/linux/{TOPIC.device}/hello")
    gateway.prefix = pipeline.prefix = there.prefix
    answer = {"v": 1, "hello": 1, "boot": 1, "seq": 1, "time": 1, "prefix": there.prefix}
    pipeline._tell(pipeline._bridge, Kind.ACCEPTED, json.dumps(answer).encode())
    await pipeline.until(lambda: str(there) in pipeline.topics)
    assert gateway.asked == 2


async def test_a_prefix_of_another_device_is_not_followed(
    start: Start, gateway: Gateway, pipeline: Pipeline
) -> None:
    start()
    await pipeline.until(lambda: pipeline.taken)
    answer = {"v": 1, "hello": 1, "boot": 1, "seq": 1, "time": 1, "prefix": "o_x/s_x/linux/d_other"}
    pipeline._tell(pipeline._bridge, Kind.ACCEPTED, json.dumps(answer).encode())
    assert (await pipeline.answer(pipeline.send("ping"))).ok
    assert gateway.asked == 1


async def test_a_renewed_certificate_is_shown_at_once(start: Start, pipeline: Pipeline) -> None:
    device = start()
    await pipeline.until(lambda: pipeline.taken)
    device.identity = replace(device.identity)
    device.side.identity_renewed()
    await pipeline.until(lambda: len(pipeline.hellos) == 3)


async def test_a_hello_is_said_until_it_is_answered(
    start: Start, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "HELLO_FIRST_S", 0.05)
    pipeline.greets = False
    start()
    await pipeline.until(lambda: len(pipeline.hellos) >= 3)
    assert pipeline.taken == []  # without a counter of its own it waits
    pipeline.greets = True
    await pipeline.until(lambda: pipeline.taken)


async def test_a_device_with_a_counter_does_not_wait_for_ever(
    start: Start, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = start()
    await pipeline.until(lambda: pipeline.taken)
    await device.stop()
    monkeypatch.setattr(keeper_module, "HELLO_FIRST_S", 0.2)
    pipeline.greets = False
    start()
    await pipeline.until(lambda: len(pipeline.taken) == 2)


async def test_the_broker_tells_when_it_is_gone(
    start: Start, mosquitto: Mosquitto, pipeline: Pipeline
) -> None:
    device = start()
    await pipeline.until(lambda: pipeline.taken)
    session = device.side._session
    assert session is not None
    assert session._link is not None
    session._link._wire.cut()  # no goodbye
    await pipeline.until(lambda: pipeline.gone)
    assert pipeline.gone[0].instance == pipeline.hellos[0].instance


async def test_a_gateway_without_messages_is_asked_again_later(
    start: Start, gateway: Gateway, pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    gateway.mqtt = None
    device = start()
    await until(lambda: "no connection for messages" in [record.message for record in caplog.records])
    assert device.side.problem is None
    assert pipeline.hellos == []


async def test_it_is_configured_and_says_so_in_line(start: Start, pipeline: Pipeline) -> None:
    """By the broker: told, reported as a numbered message, announced in the next hello, said once more."""
    device = start()
    await pipeline.until(lambda: pipeline.taken)
    assert pipeline.hellos[-1].config is None
    first = pipeline.configure(1, {"health_every_s": 7})
    await pipeline.until(pipeline.reports)
    assert pipeline.reports() == [Reported(1, first.sha256, told=1)]
    pipeline.configure(2, {"health_every_s": 7, "vent": 1})
    await pipeline.until(lambda: len(pipeline.reports()) == 2)
    assert pipeline.reports()[1] == Reported(1, first.sha256, told=2, error="vent: not known here")
    await device.stop()

    again = start()
    await pipeline.until(lambda: len(pipeline.reports()) == 3)
    assert pipeline.hellos[-1].config == 1
    assert pipeline.reports()[2] == Reported(1, first.sha256)
    assert again.sample("towline_agent_configuration_version") == 1
    assert pipeline.numbers() == sorted(set(pipeline.numbers()))


async def test_what_is_said_while_nothing_is_accepted_comes_later(start: Start, pipeline: Pipeline) -> None:
    """The report is in the outbox: the device may restart before anybody hears it."""
    device = start()
    await pipeline.until(lambda: pipeline.taken)
    pipeline.accepts = False
    first = pipeline.configure(1, {"log_level": "info"})
    await pipeline.until(lambda: any(b'"told":1' in raw for raw in pipeline.raw))
    await device.stop()
    pipeline.accepts = True
    start()
    await pipeline.until(lambda: len(pipeline.reports()) == 2)
    assert pipeline.reports() == [Reported(1, first.sha256, told=1), Reported(1, first.sha256)]


async def test_the_health_report_comes_as_often_as_is_configured(
    start: Start, pipeline: Pipeline, folder: Path
) -> None:
    """Without a restart; a sensor is asked once a cycle, also where the period changes within one."""
    count = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); n = len(p.read_text()) if p.exists() else 0"
    count += "; p.write_text('x' * (n + 1)); print('{\"asked\": %d}' % n)"
    sensor = [sys.executable, "-S", "-E", "-c", count, str(folder / "asked")]
    start(sources={"door": {"exec": sensor, "report": "health"}})
    await pipeline.until(lambda: pipeline.of(Kind.HEARTBEAT))
    pipeline.configure(1, {"health_every_s": 1})
    await pipeline.until(lambda: len(pipeline.of(Kind.HEARTBEAT)) >= 3)
    beats = pipeline.of(Kind.HEARTBEAT)
    assert [beat.payload["sensors"] for beat in beats] == [{"asked": n} for n in range(len(beats))]
