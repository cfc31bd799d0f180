"""Counters cheap enough for the data plane: plain attributes that are turned to text only on a scrape.

Text format 0.0.4 of Prometheus. Keep the returned objects; a lookup by name happens once, at start.
A counter with labels that an alarm watches is told its label values at start (`known`): Prometheus sees no
increase in a series that begins at 1, and the first event would go unheard.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

# A family never grows past this: label values come from fixed sets, and a mistake must not eat the memory.
MAX_CHILDREN = 1000
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class MetricDoc:
    """One metric for the documents; ``kind`` is counter, gauge or histogram."""

    name: str
    kind: str
    labels: tuple[str, ...]
    doc: str


class Counter:
    """Only grows. On a hot path ``counter.value += n`` is the same as ``inc(n)`` without the call."""

    __slots__ = ("value",)
    kind = "counter"

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        self.value += amount

    def samples(self, name: str, labels: str) -> list[str]:
        return [f"{name}{_braced(labels)} {self.value}"]


class Gauge:
    """Goes up and down; or, with ``read``, is asked for its value at each scrape."""

    __slots__ = ("read", "value")
    kind = "gauge"

    def __init__(self, read: Callable[[], float] | None = None) -> None:
        self.value: float = 0
        self.read = read

    def inc(self, amount: float = 1) -> None:
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        self.value -= amount

    def set(self, value: float) -> None:
        self.value = value

    def samples(self, name: str, labels: str) -> list[str]:
        value = self.value if self.read is None else self.read()
        return [f"{name}{_braced(labels)} {_number(value)}"]


class Histogram:
    """Observations counted in fixed buckets; ``buckets`` are rising upper bounds in the metric's unit."""

    __slots__ = ("bounds", "counts", "total")
    kind = "histogram"

    def __init__(self, buckets: Sequence[float]) -> None:
        if not buckets or list(buckets) != sorted(set(buckets)):
            raise ValueError("buckets must rise and not be empty")
        self.bounds = tuple(buckets)
        self.counts = [0] * (len(buckets) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self, name: str, labels: str) -> list[str]:
        lines: list[str] = []
        running = 0
        comma = "," if labels else ""
        for bound, count in zip((*self.bounds, None), self.counts, strict=True):
            running += count
            edge = "+Inf" if bound is None else _number(bound)
            lines.append(f'{name}_bucket{{{labels}{comma}le="{edge}"}} {running}')
        lines.append(f"{name}_sum{_braced(labels)} {_number(self.total)}")
        lines.append(f"{name}_count{_braced(labels)} {running}")
        return lines


Metric = Counter | Gauge | Histogram
M = TypeVar("M", Counter, Gauge, Histogram)


class Family(Generic[M]):
    """One metric with labels. Keep what ``labels`` returns; past MAX_CHILDREN all share "other"."""

    __slots__ = ("_children", "_label_names", "_make")

    def __init__(self, label_names: tuple[str, ...], make: Callable[[], M]) -> None:
        self._label_names = label_names
        self._make: Callable[[], M] = make
        self._children: dict[tuple[str, ...], M] = {}

    def labels(self, *values: str) -> M:
        """The child with these label values, in the order of the names."""
        if len(values) != len(self._label_names):
            raise ValueError(f"expected the labels {self._label_names}, got {values}")
        child = self._children.get(values)
        if child is None:
            if len(self._children) >= MAX_CHILDREN:
                values = ("other",) * len(values)
            child = self._children.setdefault(values, self._make())
        return child

    def samples(self, name: str) -> list[str]:
        lines: list[str] = []
        for values, child in self._children.items():
            pairs = zip(self._label_names, values, strict=True)
            lines += child.samples(name, ",".join(f'{key}="{_escaped(value)}"' for key, value in pairs))
        return lines


class Registry:
    """The metrics of one process, by name."""

    def __init__(self) -> None:
        self._docs: dict[str, MetricDoc] = {}
        self._single: dict[str, Metric] = {}
        self._families: dict[str, Family[Counter] | Family[Gauge] | Family[Histogram]] = {}

    def counter(self, name: str, doc: str) -> Counter:
        return self._add(name, doc, Counter())

    def gauge(self, name: str, doc: str, *, read: Callable[[], float] | None = None) -> Gauge:
        """``read`` is called at each scrape in place of a stored value."""
        return self._add(name, doc, Gauge(read))

    def histogram(self, name: str, doc: str, *, buckets: Sequence[float]) -> Histogram:
        return self._add(name, doc, Histogram(buckets))

    def counters(
        self, name: str, doc: str, labels: Sequence[str], *, known: Iterable[str] = ()
    ) -> Family[Counter]:
        """`known`: values of the one label that are shown from the start, at 0."""
        family = Family(tuple(labels), Counter)
        for value in known:
            family.labels(value)
        self._claim(MetricDoc(name, "counter", tuple(labels), doc))
        self._families[name] = family
        return family

    def gauges(self, name: str, doc: str, labels: Sequence[str]) -> Family[Gauge]:
        family = Family(tuple(labels), Gauge)
        self._claim(MetricDoc(name, "gauge", tuple(labels), doc))
        self._families[name] = family
        return family

    def histograms(
        self, name: str, doc: str, labels: Sequence[str], *, buckets: Sequence[float]
    ) -> Family[Histogram]:
        family = Family(tuple(labels), lambda: Histogram(buckets))
        self._claim(MetricDoc(name, "histogram", tuple(labels), doc))
        self._families[name] = family
        return family

    def describe(self) -> list[MetricDoc]:
        """Every metric, by name."""
        return [self._docs[name] for name in sorted(self._docs)]

    def render(self) -> bytes:
        """The scrape's body; see CONTENT_TYPE."""
        lines: list[str] = []
        for doc in self.describe():
            lines.append(f"# HELP {doc.name} {doc.doc}".replace("\n", " "))
            lines.append(f"# TYPE {doc.name} {doc.kind}")
            if doc.name in self._families:
                lines += self._families[doc.name].samples(doc.name)
            else:
                lines += self._single[doc.name].samples(doc.name, "")
        return ("\n".join(lines) + "\n").encode()

    def _add(self, name: str, doc: str, metric: M) -> M:
        self._claim(MetricDoc(name, metric.kind, (), doc))
        self._single[name] = metric
        return metric

    def _claim(self, doc: MetricDoc) -> None:
        if doc.name in self._docs:
            raise ValueError(f"metric {doc.name} exists already")
        self._docs[doc.name] = doc


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _number(value: float) -> str:
    """NaN is a value of the format (a gauge that knows nothing yet), and must not cost the whole scrape."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{value:+f}".replace("inf", "Inf")
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
