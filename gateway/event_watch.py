"""Watches the live events in Postgres and hands each to those who follow and may see it.

One look a process, each second and when woken: it reads what is new once, whoever follows, and asks once for
all of them whether they are still logged in. A follower has a bounded queue; who falls behind is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from gateway.errors import Problem, StoreUnavailableError
from gateway.metrics import GatewayMetrics
from gateway.policy.access import Actor
from gateway.policy.feed import must_reset
from gateway.policy.live import LiveEvent, Roles, changes_roles, sees
from gateway.shortlived.interface import ShortLived
from gateway.store import events, presence
from gateway.store.database import Database
from gateway.store.events import EventHead
from gateway.store.transaction import EVENT_CHANNEL, Transaction
from runtime.clock import Clock
from runtime.logs import get_logger

LOOK_EVERY_S: Final = 1.0  # a login that ended is noticed within two seconds
# Roles are looked up again when an event says so; this is for changes that tell nothing.
ROLES_EVERY_S: Final = 10.0
# Postgres restarts, or fails over, in less; a browser that is sent away meanwhile and refused does not come
# back (WHATWG HTML, 9.2.3). Nothing is told meanwhile, and who logged out is looked up before anything is.
BLIND_MAX_S: Final = 30.0
# A phone in a tunnel for a minute at a busy site; some 100 KB of memory at the most.
QUEUE_MAX: Final = 1000
# Tabs and phones of one person. Per process: it bounds what one person can take from it.
STREAMS_PER_PERSON: Final = 10
# Half of the connections that the listener takes, so that requests find room beside them.
STREAMS_MAX: Final = 2000
# Other gateways may have room, and people leave; who all come back in the same second would not find it.
FULL_RETRY_AFTER_S: Final = 10

log = get_logger("gateway.events")


class Follower:
    """One stream. `code` says why it ended; None: it has not."""

    def __init__(self, actor: Actor, roles: Roles, position: int) -> None:
        self.actor = actor
        self.roles = roles
        self.position = position
        """Everything up to this number was seen or is not for this person."""
        self.joined_at = position
        """What is newer comes by the queue, what is older is read by `missed`."""
        self.code: str | None = None
        self.ended = asyncio.Event()
        self._queue: deque[LiveEvent | None] = deque()
        self._something = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Follower {self.actor.name} at {self.position} queued={len(self._queue)} code={self.code}>"

    def put(self, event: LiveEvent | None) -> None:
        """None: start over. One too many ends it: it does not read."""
        if len(self._queue) >= QUEUE_MAX:
            self.end("too_slow")
            return
        self._queue.append(event)
        self._something.set()

    def end(self, code: str) -> None:
        if self.code is None:
            self.code = code
            self.ended.set()

    def caught_up(self, position: int | None) -> None:
        """Nothing waits: all that was handed out up to here was for others."""
        if position is not None and not self._queue:
            self.position = max(self.position, position)

    async def take(self, wait_s: float) -> list[LiveEvent | None]:
        """What came; empty when nothing did in `wait_s` seconds."""
        if not self._queue:
            self._something.clear()
            try:
                # Not wait_for: up to Python 3.11 it swallows a cancellation that meets what it waited for.
                async with asyncio.timeout(wait_s):
                    await self._something.wait()
            except TimeoutError:
                return []
        taken = list(self._queue)
        self._queue.clear()
        return taken


class EventWatch:
    """One per process. `run` is the task; `join` and `leave` are a stream's."""

    def __init__(
        self,
        database: Database,
        shortlived: ShortLived,
        clock: Clock,
        metrics: GatewayMetrics,
        *,
        login_idle_s: float,
    ) -> None:
        self._database = database
        self._login_idle_s = login_idle_s
        self._shortlived = shortlived
        self._clock = clock
        self._metrics = metrics
        self._wake = asyncio.Event()
        self._followers: set[Follower] = set()
        self._closed = False
        self.position: int | None = None
        """Everything up to this number was handed out; None: no look has succeeded yet."""
        self._last_look = clock.monotonic()
        self._roles_at = 0.0

    def __repr__(self) -> str:
        return f"<EventWatch position={self.position} followers={len(self._followers)}>"

    async def run(self) -> None:
        """Look each second, and at once when woken. Ends only by cancellation."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear(), name="events.hear")
            tasks.create_task(self._look_on(), name="events.look")

    async def _hear(self) -> None:
        with self._shortlived.follow(EVENT_CHANNEL) as following:
            async for _ in following:
                self._wake.set()

    async def _look_on(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._look()
            except StoreUnavailableError:  # said by the revocation feed's own look
                self._end_if_blind()
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    @property
    def followers(self) -> int:
        return len(self._followers)

    def close(self) -> None:
        """End every stream (the process stops)."""
        self._closed = True
        for follower in list(self._followers):
            follower.end("closing")

    async def join(self, tx: Transaction, actor: Actor, after: int | None) -> tuple[Follower, bool]:
        """Follow from behind number `after`; None: from now on. True: from now on, as `after` is not known.

        429 when the person follows often enough, 503 when as many follow as this process takes.
        """
        head = await events.head(tx)
        roles = await events.roles_of(tx, [actor.user_id])
        if self._closed:
            raise StoreUnavailableError("the gateway stops")
        # Counted where nothing waits until it is one of them: else many at once would all find a place.
        self._refuse_too_many(actor)
        if self.position is None:  # before the first look
            self.position = head.n
        reset = after is not None and must_reset(after, head.pruned, head.n)
        # From here to the end nothing waits: what the next look finds reaches this follower, what came before
        # is read by `missed`.
        start = self.position if after is None or reset else min(after, self.position)
        follower = Follower(actor, roles[actor.user_id], start)
        self._followers.add(follower)
        self._metrics.event_streams.set(len(self._followers))
        follower.joined_at = self.position
        return follower, reset

    def leave(self, follower: Follower) -> None:
        self._followers.discard(follower)
        self._metrics.event_streams.set(len(self._followers))

    def _refuse_too_many(self, actor: Actor) -> None:
        mine = sum(1 for one in self._followers if one.actor.user_id == actor.user_id)
        if mine >= STREAMS_PER_PERSON:
            self._metrics.event_streams_refused.labels("person").inc()
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "too_many_streams", "End another stream first.")
        if len(self._followers) >= STREAMS_MAX:
            self._metrics.event_streams_refused.labels("full").inc()
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "streams_full",
                "As many follow events as this gateway takes. Try again in a moment.",
                retry_after_s=FULL_RETRY_AFTER_S,
            )

    async def missed(self, follower: Follower) -> list[LiveEvent]:
        """The next events, of those that it may see, between where it starts and where it joined; empty: that
        was all.
        """
        while follower.position < follower.joined_at:
            async with self._database.transaction() as tx:
                found = await events.after(tx, follower.position, follower.joined_at)
            follower.position = found[-1].n if found else follower.joined_at
            seen = [event for event in found if sees(follower.actor, follower.roles, event.change)]
            if seen:
                return seen
        return []

    async def _look(self) -> None:
        async with self._database.transaction() as tx:
            await presence.tell_lost(tx)
        async with self._database.transaction() as tx:
            head = await events.head(tx)
            if self.position is None or not self._followers:
                self._note(head)
                return
            await self._end_logged_out(tx)
            if head.n < self.position:
                self._start_over(head)
                return
            while (position := self.position) < head.n:
                found = await events.after(tx, position, head.n)
                if any(changes_roles(event.change) for event in found):
                    self._roles_at = 0.0
                await self._refresh_roles(tx)
                self._hand_out(found, found[-1].n if found else head.n)
            await self._refresh_roles(tx)
        self._note(head)

    def _note(self, head: EventHead) -> None:
        self.position = head.n
        self._last_look = self._clock.monotonic()

    def _hand_out(self, found: Sequence[LiveEvent], upto: int) -> None:
        for follower in self._followers:
            for event in found:
                if event.n > follower.joined_at and sees(follower.actor, follower.roles, event.change):
                    follower.put(event)
        self.position = upto

    def _start_over(self, head: EventHead) -> None:
        """The database was restored from an older copy: its numbers are given again."""
        for follower in self._followers:
            follower.joined_at = head.n
            follower.put(None)
        self._note(head)

    async def _end_logged_out(self, tx: Transaction) -> None:
        followers = list(self._followers)
        actors = [one.actor for one in followers]
        logins = [actor.login_id for actor in actors if actor.login_id is not None]
        tokens = [actor.api_token_id for actor in actors if actor.api_token_id is not None]
        live = await events.still_in(tx, logins, tokens, self._login_idle_s)
        for follower in followers:
            if (follower.actor.api_token_id or follower.actor.login_id) not in live:
                follower.end("login_ended")

    async def _refresh_roles(self, tx: Transaction) -> None:
        now = self._clock.monotonic()
        if now - self._roles_at < ROLES_EVERY_S and self._roles_at:
            return
        found = await events.roles_of(tx, {one.actor.user_id for one in self._followers})
        for follower in self._followers:
            follower.roles = found.get(follower.actor.user_id, follower.roles)
        self._roles_at = now

    def _end_if_blind(self) -> None:
        if self._followers and self._clock.monotonic() - self._last_look > BLIND_MAX_S:
            log.warning("event streams end: events cannot be read", extra={"streams": len(self._followers)})
            for follower in self._followers:
                follower.end("store_unavailable")
