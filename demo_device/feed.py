"""One source, many listeners: each gets a short queue; who reads too slowly misses the oldest, never
slows the others.
"""

from __future__ import annotations

import asyncio
from collections import deque

QUEUE_MESSAGES = 16  # four seconds of the chart
KEPT_MESSAGES = 50  # what a listener that comes back may ask for again


class Feed:
    """Numbered messages to any number of queues."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[str]] = set()
        self.kept: deque[tuple[int, str]] = deque(maxlen=KEPT_MESSAGES)
        self.number = 0

    def __len__(self) -> int:
        return len(self._queues)

    def join(self) -> asyncio.Queue[str]:
        """A queue that gets every message from now on; give it back with `leave`."""
        queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_MESSAGES)
        self._queues.add(queue)
        return queue

    def leave(self, queue: asyncio.Queue[str]) -> None:
        """Take a queue out."""
        self._queues.discard(queue)

    def publish(self, message: str) -> None:
        """Give `message` the next number and hand it to everyone."""
        self.number += 1
        self.kept.append((self.number, message))
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(message)

    def since(self, number: int) -> list[tuple[int, str]]:
        """The kept messages after `number`."""
        return [entry for entry in self.kept if entry[0] > number]
