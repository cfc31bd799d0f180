"""Runs the outbox and the window: what is offered goes to the disk, what is on disk goes out, until accepted.

Two tasks, since a connection that takes nothing must not keep readings from the disk. The outbox blocks on
the disk, so it works in threads, one call at a time.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol, TypeVar

from device_protocol.bodies import OutboxReport
from device_protocol.envelope import Envelope, decode_stored, sent
from device_protocol.errors import BadMessageError, Reason
from device_protocol.numbers import NOTHING, Number
from device_protocol.topics import Kind
from runtime.clock import Clock
from runtime.logs import get_logger
from tunnel_agent.messages.metrics import MessageMetrics
from tunnel_agent.messages.outbox import KINDS, Outbox, Verdict
from tunnel_agent.messages.policy.sending import PATIENCE_FIRST_S, WINDOW_MESSAGES, Departure, Sending

T = TypeVar("T")

OFFERED_MAX: Final = 256  # not on disk yet: minutes of a busy device, while its first boot or its disk waits
DISK_AGAIN_S: Final = 5.0  # after the disk refused: somebody has to make room first
SAVE_EVERY_S: Final = 5.0  # of progress: what it lags behind is said twice after a crash, no more
RENUMBER_EVERY_S: Final = 60.0  # a server that invents numbers must not wear the flash memory out
STUCK_AFTER_S: Final = 60.0  # without an answer while connected: worth a line in the log
HELLO_FIRST_S: Final = PATIENCE_FIRST_S
"""How long a process waits for the answer to its first hello before it sends all the same: the answer tells
whether another life of this device gave these numbers before.
"""
# About the device, or where it stands; the message itself may be taken later.
_NOT_THE_MESSAGES: Final = frozenset(
    {
        Reason.BAD_TOPIC,
        Reason.WRONG_DEVICE,
        Reason.UNKNOWN_DEVICE,
        Reason.DEVICE_REVOKED,
        Reason.WRONG_PLACE,
        Reason.NO_SPACE,
    }
)

_log = get_logger("tunnel_agent.messages.keeper")


class Way(Protocol):
    """A connection to the broker, or what stands in for one."""

    async def send(self, kind: Kind, payload: bytes) -> None:
        """On its way, or lost with the connection: both are the same here. Raises nothing of the network."""
        ...


class Keeper:
    """`open` first; then `store` and `send` are two tasks that run until cancelled; `close` last."""

    def __init__(
        self,
        outbox: Outbox,
        clock: Clock,
        metrics: MessageMetrics,
        *,
        sync_every_s: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._metrics = metrics
        self._sync_every_s = sync_every_s
        self._chance = chance
        self._sending = Sending()
        self._disk = asyncio.Lock()
        self._offered: deque[Envelope] = deque()
        self._there = asyncio.Event()  # something was offered
        self._urgent = asyncio.Event()  # that must not be gathered for long
        self._refusing = False  # the disk took nothing at the last try
        self._wake = asyncio.Event()  # there is something to send, or an answer
        self._told: Number | None = None  # the highest accepted number that waits to be taken in
        self._refused: str | None = None  # id of a message that was refused
        self._way: Way | None = None
        self._hold_until: float | None = None  # None: this process was connected before
        self._was_connected = False
        self._renumber_after = float("-inf")
        self._save_at: float | None = None
        self._moved_at = clock.monotonic()
        self._stuck = False  # told already
        self.renumbered: Callable[[], None] = lambda: None
        """Called after the boot changed: hello tells it."""

    def __repr__(self) -> str:
        return f"<Keeper {len(self._offered)} offered, {self._outbox!r}, {self._sending!r}>"

    @property
    def boot(self) -> int:
        """0: it waits for the answer to its hello."""
        return self._outbox.boot

    def report(self) -> OutboxReport:
        """For hello and health."""
        return self._outbox.report()

    async def open(self) -> None:
        """Read what is there; OSError."""
        await self._on_disk(self._outbox.open)
        self._sending.floor = self._outbox.floor
        self._count()

    async def close(self) -> None:
        """After both tasks ended: what was offered, and the progress, go to the disk."""
        if self._outbox.boot and self._offered:
            await self._store_offered()
        try:
            await self._on_disk(self._outbox.close)
        except OSError as error:
            _log.warning("progress not saved", extra={"reason": str(error)})

    # Taking in

    @property
    def has_room(self) -> bool:
        """False: the disk is full or slow, or there is no boot yet. Sources rest meanwhile."""
        return len(self._offered) < OFFERED_MAX and not self._refusing

    def offer(self, message: Envelope, *, urgent: bool = False) -> bool:
        """Take it over; False: there is no room, and it is not taken."""
        if not self.has_room:
            return False
        self._offered.append(message)
        self._there.set()
        if urgent:
            self._urgent.set()
        return True

    async def store(self) -> None:
        """One task."""
        while True:
            await self._there.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._sync_every_s):
                    await self._urgent.wait()
            if not self._outbox.boot:
                self._there.clear()  # set again when there is one
                continue
            if not await self._store_offered():
                await asyncio.sleep(DISK_AGAIN_S)

    async def _store_offered(self) -> bool:
        """False: the disk refused, and all of it is still offered."""
        self._there.clear()
        self._urgent.clear()
        batch = list(self._offered)
        try:
            await self._on_disk(self._outbox.store, batch)
        except OSError as error:
            self._there.set()
            if not self._refusing:
                self._refusing = True
                _log.error("messages cannot be stored, trying again", extra={"reason": str(error)})
            return False
        for _ in batch:
            self._offered.popleft()
        if self._refusing:
            self._refusing = False
            _log.info("messages are stored again")
        self._count()
        self._wake.set()
        return True

    # Sending

    def connected(self, way: Way) -> None:
        """It can be said: the broker is there and hello was said, or the other way is open."""
        self._way = way
        self._sending.connection_made()
        self._moved_at = self._clock.monotonic()
        if not self._was_connected:
            self._was_connected = True
            self._hold_until = self._clock.monotonic() + HELLO_FIRST_S
        self._wake.set()

    @property
    def way(self) -> Way | None:
        """The one in use."""
        return self._way

    def disconnected(self, way: Way) -> None:
        """It is gone; another one may be in use by now."""
        if self._way is way:
            self._way = None
            self._sending.connection_lost()

    def accepted(self, number: Number) -> None:
        """The other side said so."""
        self._told = number if self._told is None else max(self._told, number)
        self._wake.set()

    def hello_answered(self, known: Number) -> None:
        """`known`: the highest that was ever taken of this device."""
        self._hold_until = None
        self.accepted(known)

    def refused(self, reason: Reason, message_id: str | None) -> None:
        """A message became a dead letter."""
        _log.warning("message refused", extra={"reason": reason.value, "id": message_id})
        if reason not in _NOT_THE_MESSAGES and message_id is not None:
            self._refused = message_id
            self._wake.set()

    async def send(self) -> None:
        """The other task."""
        while True:
            await self._wait()
            self._wake.clear()
            try:
                await self._take_in()
                await self._fill()
                await self._save_when_due()
            except OSError as error:
                _log.error("the outbox cannot be read", extra={"reason": str(error)})
                await asyncio.sleep(DISK_AGAIN_S)
                self._wake.set()
                continue
            await self._depart()

    async def _wait(self) -> None:
        due = [at for at in (self._sending.due_at(), self._save_at, self._hold_until) if at is not None]
        seconds = max(0.0, min(due) - self._clock.monotonic()) if due else None
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _take_in(self) -> None:
        """What the other side said."""
        if self._outbox.unfinished is not None:
            await self._renumber(self._outbox.unfinished)
        told, self._told = self._told, None
        if told is not None:
            await self._accept(told)
        refused, self._refused = self._refused, None
        head = self._sending.head
        if refused is None or head is None or decode_id(head.kind, head.body) != refused:
            return
        if self._sending.refused_head():
            await self._on_disk(self._outbox.refuse, head)
            self._sending.passed(head.number)
            self._count()

    async def _accept(self, number: Number) -> None:
        before, outbox = self._outbox.entries, self._outbox
        verdict = await self._on_disk(outbox.accept, number)
        now = self._clock.monotonic()
        if verdict is Verdict.NEWS:
            self._metrics.accepted.inc(max(0, before - outbox.entries))
            self._sending.accepted(number, now, self._chance())
            self._save_at = self._save_at or now + SAVE_EVERY_S
            self._moved_at = now
            if self._stuck:
                self._stuck = False
                _log.info("messages are accepted again")
        elif verdict is Verdict.FOREIGN and now >= self._renumber_after:
            self._renumber_after = now + RENUMBER_EVERY_S
            _log.warning(
                "told of a number that was not given here", extra={"told": number, "boot": self.boot}
            )
            await self._renumber(number)
        elif not outbox.boot:
            await self._begin()
        self._count()

    async def _begin(self) -> None:
        try:
            await self._on_disk(self._outbox.begin)
        except OSError:
            self._told = NOTHING  # to be asked again
            raise
        self._begun()

    async def _renumber(self, above: Number) -> None:
        """OSError: it is tried again before anything else is done."""
        self._sending.clear()
        await self._on_disk(self._outbox.renumber, above)
        self._sending.floor = self._outbox.floor
        self._begun()

    def _begun(self) -> None:
        self.renumbered()
        if self._offered:
            self._there.set()

    async def _fill(self) -> None:
        sending, outbox = self._sending, self._outbox
        if outbox.passed > outbox.floor:
            sending.passed(outbox.passed)
        messages, size = sending.room()
        # By halves: each read begins in the middle of a file.
        if self._way is None or not outbox.boot or len(sending) > WINDOW_MESSAGES // 2 or not messages:
            return
        after = sending.last or outbox.passed
        found = await self._on_disk(outbox.read, after, messages, size)
        sending.add(found)

    async def _depart(self) -> None:
        now = self._clock.monotonic()
        if self._hold_until is not None and now < self._hold_until:
            return
        self._hold_until = None
        for departure in self._sending.departures(now, self._chance()):
            if self._way is None:
                return
            self._outbox.said = max(self._outbox.said, departure.entry.number)
            await self._way.send(KINDS[departure.entry.kind], _message(departure))
        self._tell_when_stuck(now)

    def _tell_when_stuck(self, now: float) -> None:
        if len(self._sending) and not self._stuck and now - self._moved_at > STUCK_AFTER_S:
            self._stuck = True
            _log.warning("connected, but nothing is accepted", extra={"entries": self._outbox.entries})

    async def _save_when_due(self) -> None:
        if self._save_at is None or self._clock.monotonic() < self._save_at:
            return
        self._save_at = None
        try:
            await self._on_disk(self._outbox.save)
        except OSError as error:
            _log.warning("progress not saved", extra={"reason": str(error)})

    def _count(self) -> None:
        report = self._outbox.report()
        self._metrics.outbox_entries.set(report.entries)
        self._metrics.outbox_bytes.set(report.bytes)
        self._metrics.outbox_dropped.set(report.dropped)
        self._metrics.outbox_refused.set(report.refused)

    async def _on_disk(self, call: Callable[..., T], *arguments: object) -> T:
        """One at a time; who is cancelled waits for its end all the same, since nothing stops a thread."""
        async with self._disk:
            work = asyncio.get_running_loop().run_in_executor(None, partial(call, *arguments))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait({work})
                raise


def decode_id(kind: int, body: bytes) -> str | None:
    """Of an entry; None: it cannot be read."""
    try:
        return decode_stored(KINDS[kind], body).id
    except BadMessageError:
        return None


def _message(departure: Departure) -> bytes:
    return sent(departure.entry.body, floor=departure.floor, prev=departure.prev)
