"""The bytes that wait for the log, and when the broker must keep its own."""

from __future__ import annotations

from enum import Enum


class Pressure(Enum):
    """What the reader of the broker's messages must do."""

    SAME = "same"
    PAUSE = "pause"
    RESUME = "resume"


class Budget:
    """Reading pauses above `most` bytes and goes on below half of it, so that it does not flutter.

    What the connection had read before it paused is still offered and counted: `used` may exceed `most` by
    the connection's own buffer.
    """

    __slots__ = ("most", "paused", "used")

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        self.paused = False

    def __repr__(self) -> str:
        return f"<Budget {self.used} of {self.most} bytes{', paused' if self.paused else ''}>"

    def add(self, size: int) -> Pressure:
        """So many bytes came in."""
        self.used += size
        if self.paused or self.used <= self.most:
            return Pressure.SAME
        self.paused = True
        return Pressure.PAUSE

    def remove(self, size: int) -> Pressure:
        """So many are in the log, or given up."""
        self.used -= size
        if not self.paused or self.used * 2 >= self.most:
            return Pressure.SAME
        self.paused = False
        return Pressure.RESUME
