"""Publishes what is due, and ends what time ended. Every gateway has one; they never own a command together.

What is to be done stands in the rows alone (`next_at`, `leased_until`): a gateway that dies leaves nothing
behind that the others, or its next start, do not find.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from device_protocol import bodies
from device_protocol.topics import Kind, Topic
from gateway.commands.configurations import ConfigurationTeller
from gateway.commands.downlink import Downlink, DownlinkGoneError
from gateway.commands.outcome import count
from gateway.errors import StoreUnavailableError
from gateway.metrics import GatewayMetrics
from gateway.policy.commands import FINAL, Event, State
from gateway.shortlived.interface import ShortLived
from gateway.store import commands
from gateway.store.commands import CLAIMED_MAX, DUE_CHANNEL, LEASE_S, Command, Ended, Order
from gateway.store.database import Database
from gateway.store.transaction import Transaction
from runtime.clock import Clock
from runtime.logs import get_logger
from runtime.tasks import TaskOwner

# Wakes bring what is new at once; this finds what time made due, and what a lost wake did not bring.
LOOK_EVERY_S: Final = 1.0
# Database connections that the notes of many publishes take from requests at a time.
NOTES_AT_ONCE: Final = 3
_CLOSE_S: Final = 1.0

log = get_logger("gateway.commands")


class Dispatcher:
    """`run` is the task; `publish_now` is for who just made a command."""

    def __init__(
        self,
        database: Database,
        shortlived: ShortLived,
        clock: Clock,
        metrics: GatewayMetrics,
        downlink: Downlink,
    ) -> None:
        self._database = database
        self._shortlived = shortlived
        self._clock = clock
        self._metrics = metrics
        self._downlink = downlink
        self._configurations = ConfigurationTeller(database, metrics, downlink)
        self._wake = asyncio.Event()
        self._notes = asyncio.Semaphore(NOTES_AT_ONCE)
        self._fresh = TaskOwner("gateway.commands")

    def __repr__(self) -> str:
        return f"<Dispatcher connected={self._downlink.connected} fresh={len(self._fresh)}>"

    @property
    def lease_s(self) -> float:
        """For how long whoever makes a command now may keep it to themselves; 0: they cannot publish it."""
        return LEASE_S if self._downlink.connected else 0.0

    def publish_now(self, order: Order) -> None:
        """Publish what was just committed with `lease_s`. Should it fail, `run` finds it after the lease."""
        if order.command.leased_until is not None:
            self._fresh.start(self._publish(order), "fresh")

    def look_now(self) -> None:
        """Something may be due."""
        self._wake.set()

    async def run(self) -> None:
        """Look each second, and at once when woken. Ends only by cancellation."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear(), name="commands.hear")
            tasks.create_task(self._look_on(), name="commands.look")

    async def close(self) -> None:
        """Before the database goes; what was in hand is found again by its lease."""
        await self._fresh.close(_CLOSE_S)

    async def look(self) -> int:
        """One round: end what is over, publish what is due. How much it had in hand."""
        async with self._database.transaction() as tx:
            done = await commands.settle(tx)
        count(self._metrics, done)
        orders: Sequence[Order] = ()
        if self._downlink.connected:
            async with self._database.transaction() as tx:
                # A lease that a crash of Postgres forgets is one publish more; the device has a ledger.
                await _not_durable(tx)
                orders = await commands.claim(tx)
            # Handed over in order; gathered, since each waits for the broker's answer.
            await asyncio.gather(*(self._publish(order) for order in orders))
        return len(done) + len(orders) + await self._configurations.look()

    async def _hear(self) -> None:
        with self._shortlived.follow(DUE_CHANNEL) as following:
            async for _ in following:
                self._wake.set()

    async def _look_on(self) -> None:
        while True:
            self._wake.clear()
            more = False
            try:
                more = await self.look() >= CLAIMED_MAX
            except StoreUnavailableError:
                log.info("commands wait for Postgres")
            if more:
                continue
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _publish(self, order: Order) -> None:
        """Publish, and note what became of it. Whatever fails, the lease ends and it is tried again."""
        now = self._clock.wall()
        if now >= order.command.expires_at and order.command.state is not State.DELIVERED:
            return
        try:
            taken = await self._downlink.publish(str(topic_of(order)), message_of(order.command, now))
        except DownlinkGoneError as error:
            # The broker will be back: one that may not wait has some seconds for that.
            log.info("a command was not published", extra=_named(order.command) | {"reason": str(error)})
            taken, heard = False, True
        else:
            log.info("a command was published", extra=_named(order.command) | {"taken": taken})
            heard = taken
        at = self._clock.wall()  # of the broker's answer: the note of it may have to wait
        try:
            async with self._notes, self._database.transaction() as tx:
                done = await self._note(tx, order, at, taken=taken, heard=heard)
        except StoreUnavailableError:
            log.info("it was not noted that a command was published", extra=_named(order.command))
        else:
            count(self._metrics, done)

    async def _note(
        self, tx: Transaction, order: Order, at: float, *, taken: bool, heard: bool
    ) -> list[Ended]:
        if not heard and not order.command.queue:
            ended = await commands.turned_away(tx, order)
            if ended is not None:
                return [ended]
        await _not_durable(tx)
        event = Event.TAKEN if taken else Event.UNHEARD
        await commands.published(tx, order, event, at)
        return []


def topic_of(order: Order) -> Topic:
    """Where the device listens."""
    command = order.command
    return Topic(order.org_id, command.site_id, command.device_type, command.device_id, Kind.CMD)


def message_of(command: Command, now: float) -> bytes:
    """What the device is told at `now`. A delivered command is repeated for its answer alone: no time is left
    to begin it.
    """
    assert command.state not in FINAL
    return bodies.Command(
        id=str(command.id),
        name=command.name,
        params=command.params,
        ttl_ms=max(0, int((command.expires_at - now) * 1000)),
        expires=int(command.expires_at * 1000),
        timeout_ms=command.timeout_s * 1000,
        trace=command.trace,
    ).dump()


def _named(command: Command) -> dict[str, object]:
    return {"command": str(command.id), "device": command.device_id, "trace": command.trace}


async def _not_durable(tx: Transaction) -> None:
    await tx.execute("SELECT set_config('synchronous_commit', 'off', true)")
