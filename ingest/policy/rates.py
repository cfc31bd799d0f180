"""How much one device may say: a bucket for each, of messages and bytes at once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

ROUNDING_S: Final = 1e-6  # sums of tenths are no tenths


class Rates:
    """Each message uses up some of its device's time: 1/`messages_s` of a second, or its bytes/`bytes_s`
    where that is more. A device may be ahead of the clock by `burst_s`; what would bring it further is not
    taken, and uses nothing up.

    Of each device one number is kept, of `most` devices: one that said nothing for longest is forgotten,
    which gives it a full burst. Time is an argument, monotonic seconds.
    """

    __slots__ = ("_burst_s", "_message_s", "_most", "_per_byte_s", "_used")

    def __init__(self, messages_s: float, bytes_s: float, burst_s: float, most: int) -> None:
        self._message_s = 1 / messages_s
        self._per_byte_s = 1 / bytes_s
        self._burst_s = burst_s
        self._most = most
        self._used: OrderedDict[str, float] = OrderedDict()  # until when each device's time is used up

    def __len__(self) -> int:
        return len(self._used)

    def takes(self, device: str, size: int, now: float) -> bool:
        """Whether a message of so many bytes is within the device's rate; then it counts."""
        used = max(now, self._used.get(device, now)) + max(self._message_s, size * self._per_byte_s)
        if used > now + self._burst_s + ROUNDING_S:
            return False
        self._used[device] = used
        self._used.move_to_end(device)
        if len(self._used) > self._most:
            self._used.popitem(last=False)
        return True
