"""When a signing key is made, when it begins to sign, and when it goes: publish, wait, switch, retire.

Everybody who verifies must know a key before it signs, and know the one before it while anything it signed is
good. Then nobody is logged out and no device refuses a grant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Purpose = Literal["login", "grant"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Of one purpose, in seconds."""

    wait_s: float
    """From a key's publication until it signs."""
    life_s: float
    """How long what a key signed last is still accepted."""
    every_s: float
    """From one key's publication to the next one's; 0: only when somebody asks."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What to do now with keys that are listed oldest first."""

    retire: int = 0
    """How many of the oldest go."""
    make: bool = False
    """Whether a new one is made, and with that published."""


def signing(published: Sequence[float], schedule: Schedule, now: float) -> int:
    """Which key signs: the newest that has waited; while none has, the one that waits the shortest."""
    ripe = [index for index, at in enumerate(published) if at + schedule.wait_s <= now]
    return ripe[-1] if ripe else min(range(len(published)), key=lambda index: published[index])


def due(published: Sequence[float], schedule: Schedule, now: float) -> Steps:
    """`published`: Unix seconds of each key's publication, oldest key first; one at least."""
    active = signing(published, schedule, now)
    retire = active if now >= retires_at(published, schedule, active) else 0
    settled = len(published) - retire == 1
    old = schedule.every_s > 0 and now - published[-1] >= schedule.every_s
    return Steps(retire, settled and old)


def retires_at(published: Sequence[float], schedule: Schedule, successor: int) -> float:
    """When all that the keys before `successor` signed is over, Unix seconds."""
    return published[successor] + schedule.wait_s + schedule.life_s
