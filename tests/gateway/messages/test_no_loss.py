"""By chance, seeded: devices with outboxes, a broker that loses, two bridges that forget, processes that die.

The log and the database are real. Whatever happens, of each device everything that it knows to be accepted is
in the history once; what it dropped or still holds may be missing, nothing else is there.
"""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest

from device_protocol.envelope import Envelope, decode, encode, sent
from device_protocol.ids import uuid7
from device_protocol.numbers import NOTHING, Line, Number, Offer, Place
from device_protocol.topics import Kind
from runtime.event_log.interface import PARTS, Entry
from tests.gateway.messages.site import Site
from tests.gateway.messages.talkers import Talker
from tests.gateway.messages.test_batches import Killed, Steps

STEPS_OF_A_RUN = 400
DEVICES = 3
WINDOW = 8  # messages beyond the floor
OUTBOX_MAX = 12  # then the oldest goes


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@dataclass
class Outbox:
    """A device. `entries`: (number, the one before it, as it is stored)."""

    talker: Talker
    chance: random.Random
    entries: list[tuple[Number, Number, bytes]] = field(default_factory=list)
    cursor: int = 0
    floor: Number = NOTHING
    last: Number = NOTHING
    said: set[Number] = field(default_factory=set)
    accepted: set[Number] = field(default_factory=set)

    def says(self) -> None:
        if self.chance.random() < 0.08:
            self.talker.reboot()
            self.cursor = 0
        self.talker.seq += 1
        number = Number(self.talker.boot, self.talker.seq)
        id = uuid7(self.talker.now_ms, self.chance.randbytes(10))
        envelope = Envelope(Kind.TELEMETRY, id, "telemetry", self.talker.now_ms, 1, number, {"values": {}})
        self.entries.append((number, self.last, encode(envelope)))
        self.last = number
        self.said.add(number)
        if len(self.entries) > OUTBOX_MAX:  # its follower stands where it stood
            _, before, _ = self.entries.pop(0)
            following, _, raw = self.entries[0]
            self.entries[0] = (following, before, raw)
            self.cursor = max(0, self.cursor - 1)

    def sends(self) -> bytes | None:
        if self.cursor >= min(WINDOW, len(self.entries)):
            return None
        number, before, raw = self.entries[self.cursor]
        self.cursor += 1
        usual = before == (number.boot, number.seq - 1) and number.seq > 1
        return sent(raw, floor=self.floor, prev=None if usual else before)

    def hears(self, accepted: Number) -> None:
        kept = [entry for entry in self.entries if entry[0] > accepted]
        self.accepted |= {entry[0] for entry in self.entries if entry[0] <= accepted}
        self.cursor = max(0, self.cursor - (len(self.entries) - len(kept)))
        self.entries, self.floor = kept, max(self.floor, accepted)


class Bridge:
    """One device's line at one bridge, as ingest keeps it: until it is forgotten."""

    def __init__(self) -> None:
        self.line: Line | None = None
        self.done = NOTHING
        self.pending: list[tuple[Number, bytes]] = []

    def takes(self, raw: bytes) -> Number | None:
        """What is told at once."""
        standing = decode(Kind.TELEMETRY, raw).standing
        assert standing is not None
        if self.line is None:
            self.line, self.done = Line(standing.floor), standing.floor
        self.done = max(self.done, standing.floor)
        offer = self.line.offer(standing.number, standing.before, standing.floor)
        if offer.place is Place.TAKE:
            self.pending.append((standing.number, raw))
        elif offer.place is Place.SEEN and standing.number <= self.done:
            return self.done
        return None

    def forget(self) -> None:
        self.line, self.pending = None, []


class Run:
    """One device's way into the log."""

    def __init__(self, site: Site, talker: Talker, chance: random.Random) -> None:
        self.site, self.chance = site, chance
        self.outbox = Outbox(talker, chance)
        self.bridges = [Bridge(), Bridge()]
        self.current = 0
        self.wire: list[tuple[int, bytes]] = []
        self.told: list[Number] = []

    async def step(self) -> None:
        roll = self.chance.random()
        if roll < 0.67:
            self._device(roll)
        elif roll < 0.87:
            self._broker(roll)
        elif roll < 0.94:
            for one in self.bridges:
                await self._append(one)
        elif self.told and self.chance.random() < 0.8:
            self.outbox.hears(self.told.pop(self.chance.randrange(len(self.told))))

    def _device(self, roll: float) -> None:
        """It speaks, sends, begins again at its floor, or comes to the other bridge."""
        if roll < 0.25:
            self.outbox.says()
        elif roll < 0.60:
            if (raw := self.outbox.sends()) is not None:
                self.wire.append((self.current, raw))
        elif roll < 0.64:
            self.outbox.cursor = 0
        else:
            self.current = self.chance.randrange(2)

    def _broker(self, roll: float) -> None:
        """A bridge is killed, messages are lost, doubled, delivered."""
        if roll < 0.69:
            self.chance.choice(self.bridges).forget()
        elif roll < 0.71:
            self.wire = [one for one in self.wire if self.chance.random() < 0.5]
        elif not self.wire:
            return
        elif roll < 0.73:
            self.wire.append(self.chance.choice(self.wire))
        else:
            bridge, raw = self.wire.pop(0)
            self._tell(self.bridges[bridge].takes(raw))

    async def _append(self, bridge: Bridge) -> None:
        if not bridge.pending:
            return
        count = self.chance.randint(1, len(bridge.pending))
        some, bridge.pending = bridge.pending[:count], bridge.pending[count:]
        if self.chance.random() < 0.2:  # no answer came: it is in the log or not, and later ones may be
            if self.chance.random() < 0.5:
                await self._log(some)
            if self.chance.random() < 0.5:
                await self._log(bridge.pending)
            bridge.forget()
            return
        await self._log(some)
        bridge.done = some[-1][0]
        self._tell(bridge.done)

    async def _log(self, some: list[tuple[Number, bytes]]) -> None:
        if some:
            await self.site.append(self._entry(raw) for _, raw in some)

    def _entry(self, raw: bytes) -> Entry:
        return self.outbox.talker.entry(Kind.TELEMETRY, raw)

    def _tell(self, number: Number | None) -> None:
        if number is not None:
            self.told.append(number)

    async def check(self) -> None:
        stored = [Number(*one) for one in await self.site.history(self.outbox.talker)]
        assert len(stored) == len(set(stored))
        assert self.outbox.accepted <= set(stored) <= self.outbox.said
        line = await self.site.rows(
            "SELECT l.boot, l.seq, s.boot AS at_boot, s.seq AS at_seq FROM device_lines l"
            " JOIN device_states s USING (device_id) WHERE device_id = $1",
            self.outbox.talker.id,
        )
        # The newest is what the line ends at, and the state that is shown.
        assert [tuple(row) for row in line] == [(*stored[-1], *stored[-1])]


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_lost_doubled_or_made_up(site: Site, steps: Steps, seed: int) -> None:
    chance = random.Random(seed)
    runs = [Run(site, await site.device(), chance) for _ in range(DEVICES)]
    process, killed = await site.process(), 0
    for turn in range(STEPS_OF_A_RUN):
        for run in runs:
            await run.step()
        if turn % 20:
            continue
        steps.count, steps.at = 0, chance.randint(1, 14)
        steps.kill, steps.cut = chance.choice(((True, False), (False, True), (False, False)))
        try:
            await process.store()
        except Killed:
            killed += 1
        steps.at = None
        if chance.random() < 0.2 or steps.kill:
            process = await site.process()
        await process.leases.renew(PARTS)
    await process.store()
    for run in runs:
        await run.check()
    assert killed
    assert not await site.rows("SELECT * FROM dead_letters")
    assert "towline_gateway_missing_total 0" in site.registry.render().decode()


@pytest.mark.parametrize("in_line", [True, False])
async def test_what_comes_behind_a_hole_waits_and_a_plain_watermark_would_lose_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, in_line: bool
) -> None:
    """A bridge's first append fails, the one behind it is logged. It also shows that the checks can fail."""
    run = Run(site, await site.device(), random.Random(0))
    bridge, outbox = run.bridges[0], run.outbox

    def passes() -> None:
        for raw in (outbox.sends(), outbox.sends()):
            assert raw is not None
            bridge.takes(raw)

    outbox.says()
    outbox.says()
    passes()
    await run._log(bridge.pending[1:])
    bridge.forget()
    outbox.cursor = 0
    passes()
    await run._log(bridge.pending)
    outbox.hears(bridge.pending[-1][0])
    if not in_line:
        monkeypatch.setattr(Line, "offer", _newer)
    process = await site.process()
    await process.store()
    with nullcontext() if in_line else pytest.raises(AssertionError):
        await run.check()


def _newer(line: Line, number: Number, before: Number, floor: Number) -> Offer:
    """Takes whatever is newer."""
    if number <= line.have:
        return Offer(Place.SEEN)
    line.have = number
    return Offer(Place.TAKE)
