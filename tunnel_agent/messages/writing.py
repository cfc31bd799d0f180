"""Puts what the device says into envelopes: an id, the time if it has one, and how long it is up."""

from __future__ import annotations

import secrets
from typing import Any, Final

from device_protocol.envelope import Envelope
from device_protocol.ids import RANDOM_BYTES, uuid7
from device_protocol.numbers import NOTHING, Number
from device_protocol.topics import Kind
from runtime.clock import Clock

CLOCK_SET_AFTER: Final = 1_700_000_000.0
"""Unix seconds, November 2023: a clock that stands before this was never set (it began at 1970 or at the
system's build), and says nothing."""


def unix_ms(clock: Clock) -> int | None:
    """None: the device has no clock yet."""
    wall = clock.wall()
    return int(wall * 1000) if wall > CLOCK_SET_AFTER else None


class Writer:
    """`up` counts from its making: make it when the process starts."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._started = clock.monotonic()

    def write(
        self,
        kind: Kind,
        payload: dict[str, Any],
        *,
        type: str | None = None,
        number: Number = NOTHING,
        trace: str | None = None,
    ) -> Envelope:
        """One made now. `type`: the kind's own name where none is given."""
        now_ms = unix_ms(self.clock)
        return Envelope(
            kind=kind,
            id=uuid7(now_ms or 0, secrets.token_bytes(RANDOM_BYTES)),
            type=type or kind.value,
            ts=now_ms,
            up=int((self.clock.monotonic() - self._started) * 1000),
            number=number,
            payload=payload,
            trace=trace,
        )
