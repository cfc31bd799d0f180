"""Who may begin a handshake now: so many at once, so few of one address, and the others wait their turn.

A handshake costs a signature and a question to the gateway, and until it ends nobody knows who it is for. So
one address must not hold every place; nor may a whole factory behind one address, back after a restart, be
turned away by the thousand.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

REMEMBERED = 4_096  # addresses whose group is known without parsing
IPV6_PREFIX = 64  # one line's customer has at least that much (RFC 6177)

Turned = Literal["too_many_wait", "waited_too_long"]


@lru_cache(REMEMBERED)
def group_of(address: str) -> str:
    """Whom an address counts for: IPv4 itself, of IPv6 its /64; text that is no address itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))


class Pass:
    """A place at the door. `leave` gives it back; again does nothing."""

    __slots__ = ("_door", "_group")

    def __init__(self, door: Door, group: str) -> None:
        self._door: Door | None = door
        self._group = group

    def leave(self) -> None:
        """The handshake ended, well or not."""
        door, self._door = self._door, None
        if door is not None:
            door._left(self._group)


class Door:
    """`at_once` handshakes in all, `of_one` of one group; `may_wait` more of a group wait up to `wait_s`."""

    def __init__(
        self,
        *,
        at_once: int,
        of_one: int,
        may_wait: int,
        wait_s: float,
        turned: Callable[[Turned], None] = lambda why: None,
    ) -> None:
        """`turned` is told of everyone who was sent away."""
        self._at_once = at_once
        self._of_one = of_one
        self._may_wait = may_wait
        self._wait_s = wait_s
        self._turned = turned
        self._inside: dict[str, int] = {}
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}  # in the order of their turns
        self.inside = 0
        self.waiting = 0

    def __repr__(self) -> str:
        return f"<Door {self.inside} inside, {self.waiting} waiting, {len(self._queues)} groups>"

    async def enter(self, address: str) -> Pass | None:
        """A place, at once or after a wait; None: there is none, and the connection should end."""
        group = group_of(address)
        if group not in self._queues and self._has_room(group):
            self._admit(group)
            return Pass(self, group)
        if len(self._queues.get(group, ())) >= self._may_wait:
            self._turned("too_many_wait")
            return None
        return await self._wait(group)

    async def _wait(self, group: str) -> Pass | None:
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(group, deque()).append(turn)
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except TimeoutError:
            if not turn.done() or turn.cancelled():
                self._forget(group, turn)
                self._turned("waited_too_long")
                return None
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._left(group)  # it came in the same moment
            else:
                self._forget(group, turn)
            raise
        return Pass(self, group)

    def _forget(self, group: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(group)
        if queue is None or turn not in queue:
            return  # a place came free in the same moment: _next met it, and passed it over
        queue.remove(turn)
        self.waiting -= 1
        if not queue:
            del self._queues[group]

    def _has_room(self, group: str) -> bool:
        return self.inside < self._at_once and self._inside.get(group, 0) < self._of_one

    def _admit(self, group: str) -> None:
        self.inside += 1
        self._inside[group] = self._inside.get(group, 0) + 1

    def _left(self, group: str) -> None:
        self.inside -= 1
        left = self._inside[group] - 1
        if left:
            self._inside[group] = left
        else:
            del self._inside[group]
        self._next()

    def _next(self) -> None:
        """One place came free: the first group in the row that may have it, which then stands behind.

        Of a group the newest: when more come than can be served, whoever waited long gives up in the middle
        of the handshake, and first come, first served would serve nobody but those.
        """
        while self.inside < self._at_once:
            group = next((one for one in self._queues if self._inside.get(one, 0) < self._of_one), None)
            if group is None:
                return
            turn = self._take_newest(group)
            if not turn.done():  # else it has just given up, and takes no place with it
                self._admit(group)
                turn.set_result(None)
                return

    def _take_newest(self, group: str) -> asyncio.Future[None]:
        queue = self._queues.pop(group)
        turn = queue.pop()
        self.waiting -= 1
        if queue:
            self._queues[group] = queue
        return turn
