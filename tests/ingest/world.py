"""An intake between a log in memory and devices that number what they say."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from device_protocol.bodies import Accepted, Refused, parse_accepted
from device_protocol.envelope import Envelope, encode, sent
from device_protocol.ids import uuid7
from device_protocol.numbers import NOTHING, Number
from device_protocol.topics import Kind, Topic
from ingest.acceptances import Acceptances
from ingest.intake import Arrival, Intake
from ingest.metrics import Metrics
from ingest.policy.rates import Rates
from runtime.clock import SYSTEM_CLOCK, Clock
from runtime.event_log.interface import PARTS, UP, Entry, LogError, check_append
from runtime.metrics import Registry
from runtime.tasks import TaskOwner

WAIT_S = 30.0  # a loaded machine
NOW_MS = 1_800_000_000_000
DEVICE = "d_aaaaaaaaaaaaaaaa"

_ids = itertools.count(1)


def new_id() -> str:
    return uuid7(NOW_MS, next(_ids).to_bytes(10, "big"))


async def until(what: str, check: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    """Asked after each turn of the loop: what is waited for happens in this process."""
    try:
        async with asyncio.timeout(timeout_s):
            while not check():  # noqa: ASYNC110 (many things make it hold)
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {timeout_s:g} s") from None


class Talker:
    """Says things as a device does: one boot, its numbers, what it knows to be accepted."""

    def __init__(self, device: str = DEVICE, boot: int = 1) -> None:
        self.device = device
        self.boot = boot
        self.seq = 0
        self.floor = NOTHING

    def topic(self, kind: Kind = Kind.TELEMETRY) -> str:
        return str(Topic("o_one", "s_one", "linux", self.device, kind))

    def next(self, **changes: Any) -> bytes:
        """The next numbered message; `changes` to the members of its envelope."""
        self.seq += 1
        return self.again(self.seq, **changes)

    def again(self, seq: int, /, **changes: Any) -> bytes:
        """The message of that number, as it is sent now."""
        number = Number(self.boot, seq)
        stored = encode(
            Envelope(Kind.TELEMETRY, new_id(), "telemetry", NOW_MS, 5, number, {"values": {"t": seq}})
        )
        raw = sent(stored, floor=min(self.floor, Number(self.boot, seq - 1)), prev=self._before(seq))
        return changed(raw, changes) if changes else raw

    def hello(self) -> bytes:
        body = {"boot": self.boot, "instance": "i", "software": "test", "type": "linux", "commands": []}
        return encode(
            Envelope(Kind.HELLO, new_id(), "hello", None, 5, Number(self.boot, 0), {**body, "config": None})
        )

    def _before(self, seq: int) -> Number | None:
        return NOTHING if seq == 1 else None


def changed(raw: bytes, changes: dict[str, Any]) -> bytes:
    """JSON with other members, unchecked."""
    return json.dumps(json.loads(raw) | changes, separators=(",", ":")).encode()


class MemoryLog:
    """Keeps in memory what it is given. `fault`: what it says instead; `lands`: and keeps it all the same.
    `sick`: faults of single parts.
    """

    def __init__(self) -> None:
        self.kept: defaultdict[tuple[str, int], list[Entry]] = defaultdict(list)
        self.fault: LogError | None = None
        self.sick: dict[tuple[str, int], LogError] = {}
        self.lands = False
        self.open = asyncio.Event()
        self.open.set()
        self.asked = 0
        self.appends = 0
        self.failures = 0
        self._under_way: set[tuple[str, int]] = set()

    async def start(self) -> None:
        if self.fault is not None:
            raise self.fault

    async def close(self) -> None:
        """Nothing is open."""

    def parts(self, topic: str) -> int:
        return PARTS[topic]

    async def append(self, topic: str, part: int, entries: Sequence[Entry]) -> int:
        check_append(entries)
        place = (topic, part)
        assert place not in self._under_way, "two appends of one part at once"
        self._under_way.add(place)
        self.asked += 1
        try:
            await self.open.wait()
            fault = self.fault or self.sick.get(place)
            if fault is None or self.lands:
                self.kept[place] += entries
            if fault is not None:
                self.failures += 1
                raise fault
            self.appends += 1
            return len(self.kept[place]) - len(entries)
        finally:
            self._under_way.discard(place)

    def of(self, topic: str) -> list[Entry]:
        """All of a topic, part after part."""
        return [entry for (name, _), kept in sorted(self.kept.items()) if name == topic for entry in kept]


class Slip:
    """A receipt; `state` is "" until something was said."""

    def __init__(self) -> None:
        self.state = ""

    def settle(self) -> None:
        assert not self.state, f"{self.state} before"
        self.state = "settled"

    def leave(self) -> None:
        assert not self.state, f"{self.state} before"
        self.state = "left"

    def lost(self) -> None:
        assert not self.state, f"{self.state} before"
        self.state = "lost"


class Ears:
    """What devices were told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Accepted | Refused]] = []

    async def say(self, topic: str, payload: bytes) -> None:
        said = parse_accepted(payload)
        assert isinstance(said, Accepted | Refused)
        self.heard.append((topic, said))

    @property
    def accepted(self) -> list[tuple[int, int]]:
        return [(said.number.boot, said.number.seq) for _, said in self.heard if isinstance(said, Accepted)]

    @property
    def refused(self) -> list[Refused]:
        return [said for _, said in self.heard if isinstance(said, Refused)]


class World:
    """See the module."""

    def __init__(
        self,
        log: MemoryLog | None = None,
        *,
        append_s: float = 10.0,
        bytes_max: int = 1 << 20,
        lines_max: int = 1000,
        every_s: float = 0.0,
        rates: Rates | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`clock`: the intake's."""
        self.log = log or MemoryLog()
        self.ears = Ears()
        self.registry = Registry()
        self.metrics = Metrics(self.registry)
        self.pressure: list[bool] = []
        self.crashes: list[BaseException] = []
        self.acceptances = Acceptances(self.ears, self.metrics, SYSTEM_CLOCK, every_s=every_s)
        self.intake = Intake(
            self.log,
            self.acceptances,
            self.metrics,
            clock,
            bytes_max=bytes_max,
            lines_max=lines_max,
            append_s=append_s,
            rates=Rates(1e6, 1e9, 60.0, 1000) if rates is None else rates,
            pressed=self.pressure.append,
            on_crash=lambda _, error: self.crashes.append(error),
        )

    def offer(self, topic: str, payload: bytes, device: str | None = None) -> Slip:
        slip = Slip()
        self.offer_with(slip, topic, payload, device)
        return slip

    def offer_with(self, slip: Slip, topic: str, payload: bytes, device: str | None = None) -> None:
        self.intake.offer(Arrival(topic, payload, slip, device=device))

    async def settled(self, *slips: Slip) -> None:
        await until("confirmed", lambda: all(slip.state for slip in slips))
        assert [slip.state for slip in slips] == ["settled"] * len(slips)

    async def quiet(self) -> None:
        """Nothing waits for the log, and everybody was told."""
        await until("nothing pending", lambda: self.intake.budget.used == 0)
        await self.acceptances.flush()

    def metric(self, start: str) -> float:
        lines = self.registry.render().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))

    def stored(self, device: str = DEVICE) -> list[bytes]:
        """The device's numbered messages, as the log has them."""
        return [entry.value for entry in self.log.of(UP) if entry.key == device.encode()]


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    made = World(**options)
    tasks = TaskOwner("test")
    await made.intake.start()
    tasks.start(made.acceptances.run(), "acceptances")
    try:
        yield made
    finally:
        await tasks.close(WAIT_S)
        await made.intake.drain(0.0)
        assert made.crashes == []
