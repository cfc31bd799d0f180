"""Whatever fails, what devices were told to be accepted is in the log, in line."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from device_protocol.bodies import Accepted
from device_protocol.envelope import decode
from device_protocol.numbers import Line, Number, Place
from device_protocol.topics import Kind, parse_topic
from ingest import intake
from runtime.event_log.interface import PARTS, UP, LogUnavailableError, part_of
from tests.ingest.world import MemoryLog, Talker, World

DEVICES = ("d_aaaaaaaaaaaaaaaa", "d_bbbbbbbbbbbbbbbb", "d_cccccccccccccccc")
BRIDGES = 2
AWAY = LogUnavailableError("away")
# Shorter than the first wait for another try: an append that fails is given up at once, as in a long outage.
APPEND_S = 0.02

PLAYS = 200
STEPS = 40

Step = tuple[Any, ...]


def some_step(chance: random.Random) -> Step:
    """Weighted as found to make each defence of the intake matter."""
    match chance.choice(["say"] * 6 + ["log"] * 2 + ["wait"] * 2 + ["turn", "bridge", "device"]):
        case "say":
            # A device says some new messages and those that were not accepted; the broker drops some of them
            # and gives each to one of two bridges that know nothing of each other.
            lucky = chance.random() < 0.5
            ways = [0 if lucky else chance.choice(["drop", 0, 1]) for _ in range(24)]
            return ("say", chance.choice(DEVICES), chance.randint(0, 6), ways)
        case "log":
            what = chance.choice(["takes", "fails", "fails but keeps", "holds", "one part fails"])
            return ("log", what, chance.choice(DEVICES))
        case "bridge":
            return ("bridge starts anew", chance.randrange(BRIDGES))
        case "device":
            return ("device starts anew", chance.choice(DEVICES))
        case other:
            return (other,)


class SharedLog(MemoryLog):
    """Of several bridges; it answers when one starts, so that the play goes on."""

    async def start(self) -> None:
        """At once."""

    async def append(self, topic: str, part: int, entries: Sequence[Any]) -> int:
        self._under_way.discard((topic, part))  # another bridge's
        return await super().append(topic, part, entries)


class Play:
    """Devices, two bridges, one log; and the line that the gateway would keep of each device."""

    def __init__(self) -> None:
        self.log = SharedLog()
        self.devices = {device: Talker(device) for device in DEVICES}
        self.outbox: dict[str, list[Number]] = {device: [] for device in DEVICES}
        self.bridges = [self._bridge() for _ in range(BRIDGES)]

    def _bridge(self) -> World:
        return World(self.log, append_s=APPEND_S, lines_max=24)

    async def start(self) -> None:
        for bridge in self.bridges:
            await bridge.intake.start()

    async def take(self, step: Step) -> None:
        match step:
            case ("say", device, count, ways):
                self._say(device, count, ways)
            case ("log", what, device):
                self.log.fault = AWAY if what.startswith("fails") else None
                self.log.lands = what == "fails but keeps"
                part = part_of(device.encode(), PARTS[UP])
                self.log.sick = {(UP, part): AWAY} if what == "one part fails" else {}
                if what == "holds":
                    self.log.open.clear()
                else:
                    self.log.open.set()
            case ("turn",):
                await asyncio.sleep(0)
            case ("wait",):
                await self._wait()
            case ("bridge starts anew", n):
                await self.bridges[n].intake.drain(0.0)
                self.bridges[n] = self._bridge()
                await self.bridges[n].intake.start()
            case ("device starts anew", device):
                talker = self.devices[device]
                talker.boot, talker.seq = talker.boot + 1, 0

    def _say(self, device: str, count: int, ways: list[Any]) -> None:
        talker, outbox = self.devices[device], self.outbox[device]
        for _ in range(count):
            talker.seq += 1
            outbox.append(Number(talker.boot, talker.seq))
        before = talker.floor
        for number, way in zip(outbox, ways, strict=False):
            if way != "drop":
                payload = talker.again(
                    number.seq, boot=number.boot, floor=list(talker.floor), prev=list(before)
                )
                self.bridges[way].offer(talker.topic(), payload)
            before = number

    async def _wait(self) -> None:
        for bridge in self.bridges:
            while bridge.intake.budget.used:
                assert bridge.crashes == []
                await asyncio.sleep(0)
            await bridge.acceptances.flush()
            for topic, said in bridge.ears.heard:
                if isinstance(said, Accepted):
                    self._heard(parse_topic(topic).device, said.number)
            bridge.ears.heard.clear()

    def _heard(self, device: str, number: Number) -> None:
        talker = self.devices[device]
        talker.floor = max(talker.floor, number)
        self.outbox[device] = [kept for kept in self.outbox[device] if kept > number]

    def stored(self) -> dict[str, list[Number]]:
        """What the gateway takes from the log, in order."""
        lines: dict[str, Line] = {}
        found: dict[str, list[Number]] = {device: [] for device in DEVICES}
        for entry in self.log.of(UP):
            device = entry.key.decode()
            standing = decode(Kind.TELEMETRY, entry.value).standing
            assert standing is not None
            line = lines.setdefault(device, Line())
            offer = line.offer(standing.number, standing.before, standing.floor)
            assert not offer.passed, "a device knows more to be accepted than the log has"
            if offer.place is Place.TAKE:
                found[device].append(standing.number)
        return found

    async def end(self) -> None:
        """All is well again, and devices send until everything is accepted."""
        await self.take(("log", "takes", DEVICES[0]))
        for _ in range(10):
            for device in DEVICES:
                self._say(device, 0, [0] * 1000)
            await self._wait()
        for bridge in self.bridges:
            await bridge.intake.drain(1.0)


async def play(steps: list[Step]) -> None:
    it = Play()
    await it.start()
    said: dict[str, set[Number]] = {device: set() for device in DEVICES}
    for step in steps:
        await it.take(step)
        for device in DEVICES:
            said[device].update(it.outbox[device])
    await it.end()
    stored = it.stored()
    for device in DEVICES:
        assert it.outbox[device] == [], "devices catch up"
        assert stored[device] == sorted(said[device]), "all of it, once each, in order"


async def test_nothing_accepted_is_missing_doubled_or_out_of_order(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "REST_S", 0.0)
    for n in range(PLAYS):
        chance = random.Random(f"{seed} {n}")
        steps = [some_step(chance) for _ in range(chance.randint(1, STEPS))]
        try:
            await play(steps)
        except AssertionError as error:
            raise AssertionError(f"{error}\nin play {n} of seed {seed}: {steps}") from error
