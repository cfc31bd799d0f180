"""Acknowledgements to the broker leave in the order in which the messages came (MQTT 3.1.1 section 4.6).

The parts of the log finish in any order. A bridge that acknowledged in theirs made Mosquitto 2.0.11 deliver
single messages late, once its window was full: devices then had to send them again.
"""

from __future__ import annotations

from collections import deque


class Receipt:
    """Of one message: `packet_id` is the broker's."""

    __slots__ = ("packet_id", "settled")

    def __init__(self, packet_id: int) -> None:
        self.packet_id = packet_id
        self.settled = False


class Receipts:
    """Of one connection to the broker, in the order of receipt."""

    def __init__(self) -> None:
        self._waiting: deque[Receipt] = deque()

    def __len__(self) -> int:
        """Messages that came and may not be acknowledged yet."""
        return len(self._waiting)

    def take(self, packet_id: int) -> Receipt:
        """A message came."""
        receipt = Receipt(packet_id)
        self._waiting.append(receipt)
        return receipt

    def settle(self, receipt: Receipt) -> list[int]:
        """This message is done with. The packet ids that may be acknowledged now, in order."""
        receipt.settled = True
        waiting, ready = self._waiting, []
        while waiting and waiting[0].settled:
            ready.append(waiting.popleft().packet_id)
        return ready
