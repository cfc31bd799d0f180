"""Judges what locust measured: failures, and the 95th percentile of each kind of request. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Bounds of the 95th percentile in ms, by the name of the requests; generous, since visitors and all that they
# visit share the machine. An option each (--p95-page and so on); `other` is for all names that are not here.
P95_MS: dict[str, float] = {
    "login": 3000,  # Argon2 is meant to cost; many log in at once when a run starts
    "make an engineer": 3000,  # Argon2 as well
    "ask for a session": 1000,
    "click the link": 1000,
    "page": 500,
    "asset": 500,
    "range": 1000,
    "upload": 1500,
    "event stream": 1000,
    "live chart: open, first message": 1500,  # the device itself speaks four times a second
    "connect to the broker": 1500,
    "message until accepted": 1500,
    "other": 1000,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One name's requests; times in ms, as locust rounds them."""

    name: str
    requests: int
    failures: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    bound_ms: float

    @property
    def problem(self) -> str | None:
        """Why the run fails on this row; None: it does not."""
        if self.failures:
            return f"{self.failures} failed"
        if self.p95_ms > self.bound_ms:
            return f"p95 {self.p95_ms:.0f} ms, more than {self.bound_ms:.0f}"
        return None


def percentile_ms(histogram: Mapping[str, int], share: float) -> float:
    """From locust's `{"milliseconds": count}`; 0 for an empty one."""
    total, seen = sum(histogram.values()), 0
    for text, count in sorted(histogram.items(), key=lambda pair: float(pair[0])):
        seen += count
        if seen >= share * total:
            return float(text)
    return 0.0


def rows(stats: Sequence[Mapping[str, Any]], bounds: Mapping[str, float]) -> list[Row]:
    """A row a name out of what `locust --json` prints, by name."""
    return [
        Row(
            one["name"],
            one["num_requests"],
            one["num_failures"],
            percentile_ms(one["response_times"], 0.5),
            percentile_ms(one["response_times"], 0.95),
            percentile_ms(one["response_times"], 0.99),
            bounds.get(one["name"], bounds["other"]),
        )
        for one in sorted(stats, key=lambda one: str(one["name"]))
    ]


def rendered(found: Sequence[Row]) -> str:
    """The table at the end of a run."""
    head = f"{'requests to':34}{'number':>8}{'failed':>8}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'≤ p95':>8}"
    lines = [head, "-" * len(head)]
    for one in found:
        numbers = f"{one.p50_ms:>9.0f}{one.p95_ms:>9.0f}{one.p99_ms:>9.0f}{one.bound_ms:>8.0f}"
        text = f"{one.name:34}{one.requests:>8}{one.failures:>8}{numbers}"
        lines.append(text if one.problem is None else f"{text}  ← {one.problem}")
    total, failed = sum(one.requests for one in found), sum(one.failures for one in found)
    return "\n".join([*lines, "-" * len(head), f"{'all':34}{total:>8}{failed:>8}"])


def passed(found: Sequence[Row]) -> bool:
    """Something was asked, nothing failed, every bound holds."""
    return bool(found) and all(one.problem is None for one in found)
