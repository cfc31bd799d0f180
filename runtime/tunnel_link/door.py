"""Who may begin a handshake now: so many at once, so few of one address, and the others wait their turn.

A handshake costs a signature and a question to the gateway, and until it ends nobody knows who it is for. So
one address must not hold every place; nor may a whole factory behind one address, back after a restart, be
turned away by the thousand.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal

from runtime.client_address import group_of

# Who waits, of all groups: with those inside fewer than runtime.accepting's PENDING_MAX, which turns away
# whoever comes next. Beyond it each group has to leave others their share.
WAITING_MAX = 7_000

Turned = Literal["too_many_wait", "waited_too_long"]


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
    """`at_once` handshakes in all, `of_one` of one group; `may_wait` more of a group, and `waiting_max` of
    all groups, wait up to `wait_s`.
    """

    def __init__(
        self,
        *,
        at_once: int,
        of_one: int,
        may_wait: int,
        wait_s: float,
        waiting_max: int = WAITING_MAX,
        turned: Callable[[Turned], None] = lambda why: None,
    ) -> None:
        """`turned` is told of everyone who was sent away."""
        self._at_once = at_once
        self._of_one = of_one
        self._may_wait = may_wait
        self._wait_s = wait_s
        self._waiting_max = waiting_max
        self._turned = turned
        self._inside: dict[str, int] = {}
        # In the order of their turns. True: it may enter; False: it made room for another group.
        self._queues: dict[str, deque[asyncio.Future[bool]]] = {}
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
        waiting = len(self._queues.get(group, ()))
        if waiting >= self._may_wait or not self._may_join(waiting):
            self._turned("too_many_wait")
            return None
        return await self._wait(group)

    async def _wait(self, group: str) -> Pass | None:
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
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
            if not turn.done() or turn.cancelled():
                self._forget(group, turn)
            elif turn.result():
                self._left(group)  # it came in the same moment
            raise
        return Pass(self, group) if turn.result() else None

    def _may_join(self, waiting: int) -> bool:
        """Whether one more of a group with so many waiting may wait too; where nobody else may, the longest
        row gives its oldest, who is nearest to giving up.
        """
        if self.waiting < self._waiting_max:
            return True
        longest = max(self._queues, key=lambda one: len(self._queues[one]))
        if len(self._queues[longest]) <= waiting + 1:
            return False
        turn = self._queues[longest].popleft()
        self.waiting -= 1
        if not turn.done():
            turn.set_result(False)
            self._turned("too_many_wait")
        return True

    def _forget(self, group: str, turn: asyncio.Future[bool]) -> None:
        queue = self._queues.get(group)
        if queue is None or turn not in queue:
            return  # it was met in the same moment by who gives places, or makes room, and passed over
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
                turn.set_result(True)
                return

    def _take_newest(self, group: str) -> asyncio.Future[bool]:
        queue = self._queues.pop(group)
        turn = queue.pop()
        self.waiting -= 1
        if queue:
            self._queues[group] = queue
        return turn
