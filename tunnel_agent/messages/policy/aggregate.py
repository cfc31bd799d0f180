"""Many samples to one report: raw ones never leave the device."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from device_protocol.schemas import READINGS_MAX

TEXT_MAX: Final = 256
"""Characters of a reading that is text (docs/protocol/schemas/telemetry.json)."""
NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}")

Reading = float | int | bool | str


@dataclass(slots=True)
class _Summary:
    """Of one number since the last report."""

    n: int
    min: float
    max: float
    mean: float
    last: float

    def add(self, value: float) -> None:
        self.n += 1
        self.min, self.max = min(self.min, value), max(self.max, value)
        self.mean += (value - self.mean) / self.n  # a sum would lose digits, and might overflow
        self.last = value


class Aggregate:
    """What one source said since its last report."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._values: dict[str, _Summary | bool | str] = {}
        self._from: int | None = None
        self.samples = 0

    def add(self, readings: dict[str, Reading], now_ms: int | None) -> None:
        """One sample. A name whose kind changes begins anew."""
        if self.samples == 0:
            self._from = now_ms
        self.samples += 1
        for name, value in readings.items():
            if name not in self._values and len(self._values) >= READINGS_MAX:
                continue
            known = self._values.get(name)
            if isinstance(value, bool | str):
                self._values[name] = value
            elif isinstance(known, _Summary):
                known.add(value)
            else:
                self._values[name] = _Summary(1, value, value, value, value)

    def report(self, now_ms: int | None) -> dict[str, Any] | None:
        """The telemetry's payload, and the next one begins; None: there was nothing to read."""
        if not self._values:
            return None
        values = {
            name: value
            if isinstance(value, bool | str)
            else {key: getattr(value, key) for key in ("n", "min", "max", "mean", "last")}
            for name, value in self._values.items()
        }
        body: dict[str, Any] = {"values": values}
        if self._from is not None and now_ms is not None and now_ms >= self._from:
            body = {"from": self._from, "to": now_ms} | body
        self._begin()
        return body


def readings(value: object, keys: tuple[str, ...]) -> dict[str, Reading]:
    """What of a source's answer are readings: members that are numbers, texts and true or false, of names
    that a report may have. ValueError: the answer is no object.
    """
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return {
        name: member
        for name, member in value.items()
        if (not keys or name in keys) and NAME.fullmatch(name) and _is_reading(member)
    }


def _is_reading(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= TEXT_MAX and "\0" not in value
    return isinstance(value, bool | int | float)
