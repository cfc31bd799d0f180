"""A model of the way of numbered messages: a device's outbox, a broker that loses, doubles and reorders, two
bridges that forget, a log with failed appends, a consumer. Section 4 and 5 of docs/protocol/device-v1.md.

Whether anything goes wrong is decided by the lines and the numbers alone, which are the product's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from device_protocol.errors import Standing
from device_protocol.numbers import NOTHING, Line, Number, Place


def boot_after(told: Number, highest: Number) -> int | None:
    """The boot with which a device goes on whose counter went back (its storage forgot); None: it did not.

    `told`: what it is told to be accepted or known. `highest`: what it sent with its boot, or (boot, 0).
    """
    return None if told <= highest else told.boot + 1


@dataclass(frozen=True)
class Message:
    id: int
    standing: Standing


@dataclass(frozen=True)
class Kept:
    """An entry of an outbox; `before`: None where the number says it."""

    id: int
    number: Number
    before: Number


@dataclass
class Device:
    boot: int = 0
    seq: int = 0
    last: Number = NOTHING
    """Of the newest entry that was made."""
    floor: Number = NOTHING
    highest: Number = NOTHING
    """What it may be told of at most."""
    outbox: list[Kept] = field(default_factory=list)
    cursor: int = 0
    """In the outbox: what is sent next."""
    waiting: bool = False
    """For the answer to its hello."""
    made: set[int] = field(default_factory=set)
    told_kept: set[int] = field(default_factory=set)
    """Dropped because they were accepted."""
    gone: set[int] = field(default_factory=set)
    """Dropped by an overflow, and counted; a copy of the storage may have them still."""
    copied: set[int] = field(default_factory=set)
    """In an outbox that was restored from a copy: they may have been kept before."""

    def start(self) -> None:
        self.boot += 1
        self.seq = 0
        self.highest = Number(self.boot, 0)
        self.cursor = 0

    def make(self) -> None:
        if self.boot == 0:
            self.start()
        self.seq += 1
        number = Number(self.boot, self.seq)
        self.made.add(len(self.made))
        self.outbox.append(Kept(len(self.made) - 1, number, self.last))
        self.last = number

    def overflow(self) -> None:
        gone = self.outbox.pop(0)
        self.gone.add(gone.id)
        self.cursor = max(0, self.cursor - 1)
        if self.outbox:
            self.outbox[0] = replace(self.outbox[0], before=gone.before)
        else:
            self.last = gone.before

    def send(self) -> Message | None:
        if self.waiting or self.cursor >= len(self.outbox):
            return None
        kept = self.outbox[self.cursor]
        self.cursor += 1
        if kept.number.boot == self.boot:
            self.highest = max(self.highest, kept.number)
        return Message(kept.id, Standing(kept.number, kept.before, self.floor))

    def hear(self, number: Number) -> None:
        """accepted."""
        if self._went_back(number) or number <= self.floor:
            return
        dropped = [kept for kept in self.outbox if kept.number <= number]
        self.told_kept.update(kept.id for kept in dropped)
        del self.outbox[: len(dropped)]
        self.cursor = max(0, self.cursor - len(dropped))
        self.floor = number

    def answered(self, known: Number) -> None:
        """The answer to its hello."""
        self._went_back(known)
        self.waiting = False

    def _went_back(self, told: Number) -> bool:
        boot = boot_after(told, self.highest)
        if boot is None:
            return False
        self.boot, self.seq = boot, 0
        self.highest = Number(boot, 0)
        before = self.floor
        for at, kept in enumerate(self.outbox):
            self.seq += 1
            self.outbox[at] = Kept(kept.id, Number(boot, self.seq), before)
            before = self.outbox[at].number
        self.last = before
        self.cursor = 0
        return True

    def copy_of_storage(self) -> Device:
        return replace(self, outbox=list(self.outbox))

    def restore(self, copy: Device) -> None:
        """A start from a copy of the storage: numbers may be given again, so it waits."""
        self.boot, self.seq, self.last, self.floor = copy.boot, copy.seq, copy.last, copy.floor
        self.outbox = list(copy.outbox)
        self.copied.update(kept.id for kept in self.outbox)
        self.start()
        self.waiting = True


@dataclass
class Bridge:
    line: Line | None = None
    done: Number = NOTHING
    pending: list[Message] = field(default_factory=list)

    def take(self, message: Message) -> Number | None:
        """What is told as accepted at once."""
        standing = message.standing
        if self.line is None:
            self.line = Line(standing.floor)
            self.done = standing.floor
        offer = self.line.offer(standing.number, standing.before, standing.floor)
        if offer.passed:
            self.done = max(self.done, standing.floor)
        if offer.place is Place.TAKE:
            self.pending.append(message)
        if offer.place is Place.SEEN and standing.number <= self.done:
            return self.done
        return None

    def append(self, log: list[Message], most: int) -> Number | None:
        """What is told as accepted."""
        batch, self.pending = self.pending[:most], self.pending[most:]
        if not batch:
            return None
        log.extend(batch)
        self.done = max(self.done, batch[-1].standing.number)
        return self.done

    def fail(self, log: list[Message], most: int, *, logged: bool, later_logged: bool) -> None:
        """An append of which nobody knows how it ended; another may have been on its way behind it."""
        if logged:
            log.extend(self.pending[:most])
        if later_logged:
            log.extend(self.pending[most:])
        self.forget()

    def forget(self) -> None:
        self.line = None
        self.done = NOTHING
        self.pending = []


class Consumer:
    """`line`: anything with `offer` and `have`, so that a test can see a wrong rule fail."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.position = 0
        self.rows: list[tuple[Number, int]] = []
        self.alarms = 0

    def read(self, log: list[Message], most: int) -> None:
        for message in log[self.position : self.position + most]:
            standing = message.standing
            offer = self.line.offer(standing.number, standing.before, standing.floor)
            self.alarms += offer.passed
            if offer.place is Place.TAKE:
                self.rows.append((standing.number, message.id))
        self.position = min(len(log), self.position + most)


class Way:
    """All of it, and what must hold."""

    def __init__(self, line: Line | None = None) -> None:
        self.device = Device()
        self.bridges = (Bridge(), Bridge())
        self.current = 0
        self.wire: list[tuple[int, Message]] = []
        self.down: list[Number] = []
        self.log: list[Message] = []
        self.consumer = Consumer(line or Line())
        self.copy: Device | None = None

    def send(self) -> None:
        message = self.device.send()
        if message is not None:
            self.wire.append((self.current, message))

    def arrive(self, at: int) -> None:
        bridge, message = self.wire.pop(at)
        self._tell(self.bridges[bridge].take(message))

    def append(self, bridge: int, most: int) -> None:
        self._tell(self.bridges[bridge].append(self.log, most))

    def settle(self) -> None:
        """Nothing fails any more: after a few rounds everything is through."""
        most = len(self.device.outbox) + len(self.log) + 1
        for _ in range(3):
            self._quiet(most)
            self.device.answered(self.consumer.line.have)
            self.device.cursor = 0
            for _ in range(most):
                self.send()
        self._quiet(most)

    def restore(self) -> None:
        """The device's storage becomes what it was at the last copy, long after all that was said arrived."""
        if self.copy is not None:
            late = list(self.down)
            self._quiet(len(self.log) + len(self.wire) + 1)
            self.down = late
            self.device.restore(self.copy)

    def check(self) -> None:
        rows = self.consumer.rows
        numbers = [number for number, _ in rows]
        assert numbers == sorted(set(numbers)), "doubled or out of order"
        ids = [id for _, id in rows if id not in self.device.copied]
        assert len(ids) == len(set(ids)), "a message under two numbers"
        assert {id for _, id in rows} <= self.device.made, "invented"
        assert self.consumer.alarms == 0, "alarm though the log is whole"

    def check_settled(self) -> None:
        self.check()
        stored = {id for _, id in self.consumer.rows}
        assert self.device.told_kept - self.device.gone <= stored, "accepted and lost"
        assert not self.device.outbox, "stuck"

    def _quiet(self, most: int) -> None:
        while self.wire:
            self.arrive(0)
        for bridge in (0, 1):
            self.append(bridge, most)
        while self.down:
            self.device.hear(self.down.pop(0))
        self.consumer.read(self.log, len(self.log))

    def _tell(self, number: Number | None) -> None:
        if number is not None:
            self.down.append(number)
