"""The physics of a small greenhouse, good enough to make a chart worth looking at. Pure: time and chance
are passed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

DAY_S = 240.0  # a day passes in four minutes, so that a visitor sees the sun move
VENT_DEFAULT = 20  # percent
_OUTSIDE_C = 12.0
_SUN_GAIN_C = 0.35  # per second at noon with the vent shut
_LOSS_PER_S = 0.012
_VENT_LOSS_PER_S = 0.05


@dataclass(frozen=True, slots=True)
class Reading:
    """One moment: `t` in seconds since the start, temperature in °C, the others in percent."""

    t: float
    temperature: float
    humidity: float
    light: float
    vent: int

    def as_json(self) -> dict[str, float]:
        return {
            "t": round(self.t, 2),
            "temperature": round(self.temperature, 2),
            "humidity": round(self.humidity, 1),
            "light": round(self.light, 1),
            "vent": self.vent,
        }


class Greenhouse:
    """State that `step` moves forward; the vent (0 to 100 %) is the one thing people set."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._t = 0.0
        self._temperature = 21.0
        self._humidity = 62.0
        self.vent = VENT_DEFAULT

    def step(self, seconds: float) -> Reading:
        """Advance by `seconds` and read all sensors, with a little noise."""
        self._t += seconds
        sun = max(0.0, math.sin(2 * math.pi * (self._t / DAY_S) + 0.6))
        loss = _LOSS_PER_S + _VENT_LOSS_PER_S * self.vent / 100
        self._temperature += seconds * (_SUN_GAIN_C * sun - loss * (self._temperature - _OUTSIDE_C))
        target = 78 - 0.35 * self.vent - 12 * sun
        self._humidity += seconds * 0.05 * (target - self._humidity)
        noise = self._random.gauss
        return Reading(
            t=self._t,
            temperature=self._temperature + noise(0, 0.05),
            humidity=min(100.0, max(0.0, self._humidity + noise(0, 0.2))),
            light=min(100.0, max(0.0, 100 * sun + noise(0, 0.4))),
            vent=self.vent,
        )

    def set_vent(self, percent: int) -> int:
        """Move the vent; returns the position after limits."""
        self.vent = max(0, min(100, percent))
        return self.vent


def remark(reading: Reading) -> str:
    """A line for the log, as such a controller would write it."""
    if reading.temperature > 30:
        return f"Too warm: {reading.temperature:.1f} °C, open the vent"
    if reading.temperature < 14:
        return f"Cool: {reading.temperature:.1f} °C, heating stands by"
    if reading.humidity > 75:
        return f"Humid: {reading.humidity:.0f} %, fan on"
    return f"All well: {reading.temperature:.1f} °C, {reading.humidity:.0f} %, light {reading.light:.0f} %"
