"""One part of the log that fails while the others take what they are given."""

from __future__ import annotations

import json

import pytest

from device_protocol.numbers import Number
from device_protocol.topics import Kind
from ingest import intake as module
from runtime.clock import SYSTEM_CLOCK
from runtime.event_log.interface import (
    CONTROL,
    DEAD,
    PARTS,
    UP,
    LogError,
    LogRefusedError,
    LogUnavailableError,
    part_of,
)
from tests.ingest.world import Slip, Talker, World, until, world

AWAY = LogUnavailableError("no leader")
REFUSED = LogRefusedError("no right to this topic")


class Ahead:
    """The system's clock, so many seconds later: whoever waits for a time need not wait for it."""

    def __init__(self) -> None:
        self.by_s = 0.0

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic() + self.by_s

    def wall(self) -> float:
        return SYSTEM_CLOCK.wall() + self.by_s


def talkers() -> tuple[Talker, Talker]:
    """Of two parts."""
    made = [Talker(f"d_{n:016d}") for n in range(20)]
    first = made[0]
    return first, next(one for one in made if _place(one) != _place(first))


def _place(talker: Talker) -> tuple[str, int]:
    return UP, part_of(talker.device.encode(), PARTS[UP])


def say(it: World, talker: Talker) -> Slip:
    return it.offer(talker.topic(), talker.next())


async def _fallen_sick(it: World, sick: Talker, well: Talker, fault: LogError) -> None:
    """The part fails, and the other part is known to take what it gets."""
    it.log.sick[_place(sick)] = fault
    held = say(it, sick)
    await until("tried", lambda: it.log.asked > 0)
    behind = say(it, sick)
    await it.settled(say(it, well))
    await until("let go", lambda: held.state == behind.state == "left")


@pytest.mark.parametrize("fault", [AWAY, REFUSED])
async def test_it_holds_up_nobody_and_its_devices_catch_up(
    monkeypatch: pytest.MonkeyPatch, fault: LogError
) -> None:
    monkeypatch.setattr(module, "HOLD_S", 0.05)
    clock = Ahead()
    async with world(append_s=60.0, clock=clock) as it:
        sick, well = talkers()
        await _fallen_sick(it, sick, well, fault)
        for _ in range(20):
            await it.settled(say(it, well))
            assert it.offer(sick.topic(), sick.again(1)).state == "left"
        await _given_up(it, clock, fault)
        assert it.ears.accepted[-1] == (1, 21)
        assert it.stored(sick.device) == []
        assert it.intake.failing == {f"up/{_place(sick)[1]}"}
        it.log.sick.clear()
        clock.by_s += module.REST_S
        slip = it.offer(sick.topic(), sick.again(1))  # a device sends again from its floor
        assert slip.state != "settled"
        await it.quiet()
        assert not it.intake.log_fails
        await it.settled(it.offer(sick.topic(), sick.again(2)))
        await it.quiet()
        assert [json.loads(value)["seq"] for value in it.stored(sick.device)] == [1, 2]
        assert it.ears.accepted[-1] == (1, 2)


async def _given_up(it: World, clock: Ahead, fault: LogError) -> None:
    """What was tried at the sick part: a refusal at once, all else when its time is over."""
    if fault is AWAY:
        clock.by_s += 60.0
    await it.quiet()


@pytest.mark.parametrize("fault", [AWAY, REFUSED])
async def test_where_nobody_says_anything_it_is_not_failing_for_ever(
    monkeypatch: pytest.MonkeyPatch, fault: LogError
) -> None:
    """Whoever spoke there may be gone for good, and nothing else would show that the part is well."""
    monkeypatch.setattr(module, "HOLD_S", 0.05)
    clock = Ahead()
    async with world(append_s=60.0, clock=clock) as it:
        sick, well = talkers()
        await _fallen_sick(it, sick, well, fault)
        await _given_up(it, clock, fault)
        clock.by_s += 90.0  # a device's longest patience: it would have been here
        await it.settled(say(it, well))
        assert it.intake.failing == {f"up/{_place(sick)[1]}"}
        clock.by_s += module.UNTRIED_S - 90.0
        assert not it.intake.log_fails
        await it.settled(say(it, well))
        again = it.offer(sick.topic(), sick.again(1))
        await until("tried", lambda: it.intake.log_fails)
        assert again.state == "left", "it was never said to be well"
        clock.by_s += 59.0
        assert it.intake.failing == {f"up/{_place(sick)[1]}"}, "it is being tried, or was lately"


async def test_what_is_being_tried_goes_on_failing_until_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_S", 0.05)
    clock = Ahead()
    async with world(append_s=120.0, clock=clock) as it:
        sick, well = talkers()
        await _fallen_sick(it, sick, well, REFUSED)
        await it.quiet()
        it.log.open.clear()  # now it does not answer at all
        clock.by_s += module.REST_S
        it.offer(sick.topic(), sick.again(1))
        clock.by_s += module.UNTRIED_S + 1
        assert it.intake.failing == {f"up/{_place(sick)[1]}"}
        it.log.sick.clear()
        it.log.open.set()
        await it.quiet()
        assert not it.intake.log_fails


async def test_its_last_append_may_still_land_and_is_accepted_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """The receipts were let go, the batch was not: what it becomes is told."""
    monkeypatch.setattr(module, "HOLD_S", 0.05)
    async with world(append_s=60.0) as it:
        sick, well = talkers()
        await _fallen_sick(it, sick, well, AWAY)
        again = it.offer(sick.topic(), sick.again(1))
        assert again.state == "left", "one append at a time"
        assert it.metric('towline_ingest_left_total{why="part"}') == 1
        it.log.sick.clear()
        await it.quiet()
        assert [json.loads(value)["seq"] for value in it.stored(sick.device)] == [1], "not what came behind"
        assert it.ears.accepted[-1] == (1, 1)
        sick.floor = Number(1, 1)  # as it heard
        await it.settled(it.offer(sick.topic(), sick.again(2)))


async def test_it_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_S", 0.05)
    async with world(append_s=60.0, bytes_max=1 << 20) as it:
        sick, well = talkers()
        await _fallen_sick(it, sick, well, AWAY)
        for _ in range(3000):
            say(it, sick)
        assert it.intake.budget.used < 4000
        assert it.pressure == [], "the others are read on"
        it.log.sick.clear()


async def test_dead_letters_that_find_no_room_stop_no_device() -> None:
    """Else whoever says nonsense would hold up all that others say."""
    async with world() as it:
        it.log.sick[(DEAD, 0)] = REFUSED
        nonsense, well = talkers()
        slips = [it.offer(nonsense.topic(), b"{") for _ in range(3)]
        await it.settled(say(it, well), it.offer(well.topic(Kind.HELLO), well.hello()))
        await until("left", lambda: all(slip.state == "left" for slip in slips))
        assert len(it.log.of(CONTROL)) == 1
        assert it.ears.refused == [], "it was not kept"


async def test_where_all_of_the_log_is_away_the_broker_keeps_what_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HOLD_S", 0.01)
    async with world(append_s=0.3) as it:
        one, other = talkers()
        await it.settled(say(it, one), say(it, other))
        it.log.fault = AWAY
        slips = [say(it, one), say(it, other)]
        await until("given up", lambda: all(slip.state for slip in slips))
        assert {slip.state for slip in slips} == {"lost"}
