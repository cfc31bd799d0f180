"""Numbered messages and the line they stand in: how nothing is lost, doubled or reordered on the way.

A device numbers what it wants kept by (boot, seq). Bridges and the consumer each hold a Line for a device and
offer it every message that arrives. The same rule at both is what makes it hold: docs/protocol/device-v1.md.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

NUMBER_MAX: Final = 2**53 - 1  # what every JSON parser keeps exactly (RFC 7493 section 2.2)


class Number(NamedTuple):
    """Ordered: a later boot is later, whatever its seq."""

    boot: int
    """Counts a device's starts from 1, made durable before it numbers anything."""
    seq: int
    """Counts a boot's messages from 1."""


NOTHING: Final = Number(0, 0)
"""Before every number: nothing was taken yet."""


class Place(Enum):
    """Where an offered message stands."""

    TAKE = "take"
    """Next in line."""
    SEEN = "seen"
    """Taken before."""
    GAP = "gap"
    """Something before it is missing: the device sends again from its floor."""


class Offer(NamedTuple):
    """`passed`: the device knows that more was accepted than this line has: another line took it."""

    place: Place
    passed: bool = False


class Line:
    """How far one device's numbered messages were taken, in order."""

    __slots__ = ("have",)

    def __init__(self, have: Number = NOTHING) -> None:
        self.have = have

    def offer(self, number: Number, before: Number, floor: Number) -> Offer:
        """`before`: of the entry before it in the device's outbox. `floor`: the highest that the device knows
        to be accepted. Both are less than `number` or the message is refused before it comes here.
        """
        if number <= self.have:
            return Offer(Place.SEEN)
        passed = floor > self.have
        self.have = max(self.have, floor)
        if before > self.have:
            return Offer(Place.GAP, passed)
        self.have = number
        return Offer(Place.TAKE, passed)
