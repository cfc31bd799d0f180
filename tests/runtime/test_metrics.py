from __future__ import annotations

from functools import partial

import pytest

from runtime.metrics import MAX_CHILDREN, Histogram, Registry


def test_a_scrape_in_the_text_format() -> None:
    registry = Registry()
    registry.counter("a_total", "All of a.").inc(3)
    registry.gauge("b", "How many b.", read=lambda: 2.5)
    family = registry.counters("c_total", "By code.", ("code", "who"))
    family.labels("200", 'a"\\\n').inc()
    seconds = registry.histogram("d_seconds", "How long.", buckets=(0.1, 1))
    for value in (0.05, 0.1, 0.5, 7):
        seconds.observe(value)
    assert registry.render().decode() == (
        "# HELP a_total All of a.\n# TYPE a_total counter\na_total 3\n"
        "# HELP b How many b.\n# TYPE b gauge\nb 2.5\n"
        '# HELP c_total By code.\n# TYPE c_total counter\nc_total{code="200",who="a\\"\\\\\\n"} 1\n'
        "# HELP d_seconds How long.\n# TYPE d_seconds histogram\n"
        'd_seconds_bucket{le="0.1"} 2\nd_seconds_bucket{le="1"} 3\nd_seconds_bucket{le="+Inf"} 4\n'
        "d_seconds_sum 7.65\nd_seconds_count 4\n"
    )


def test_a_gauge_goes_both_ways() -> None:
    gauge = Registry().gauge("x", "x")
    gauge.inc(3)
    gauge.dec()
    assert gauge.value == 2
    gauge.set(9)
    assert gauge.samples("x", "") == ["x 9"]


def test_families_of_every_kind_keep_their_children() -> None:
    registry = Registry()
    gauges = registry.gauges("g", "g", ("node",))
    times = registry.histograms("h", "h", ("node",), buckets=(1,))
    assert gauges.labels("a") is gauges.labels("a")
    times.labels("a").observe(0.5)
    assert 'h_bucket{node="a",le="1"} 1' in registry.render().decode()
    assert [(doc.name, doc.kind, doc.labels) for doc in registry.describe()] == [
        ("g", "gauge", ("node",)),
        ("h", "histogram", ("node",)),
    ]


def test_label_values_from_outside_cannot_eat_the_memory() -> None:
    family = Registry().counters("c_total", "c", ("path",))
    for number in range(MAX_CHILDREN + 50):
        family.labels(str(number)).inc()
    assert len(family.samples("c_total")) == MAX_CHILDREN + 1
    assert family.labels("other").value == 50


def test_mistakes_of_the_programmer_are_refused() -> None:
    registry = Registry()
    registry.counter("a", "a")
    with pytest.raises(ValueError, match="exists already"):
        registry.gauge("a", "a")
    with pytest.raises(ValueError, match="expected the labels"):
        registry.counters("b", "b", ("x",)).labels("1", "2")
    with pytest.raises(ValueError, match="must rise"):
        Histogram((2, 1))


def test_a_gauge_that_knows_nothing_costs_no_scrape() -> None:
    registry = Registry()
    for name, value in (("a", float("nan")), ("b", float("inf")), ("c", float("-inf"))):
        registry.gauge(name, name, read=partial(float, value))
    said = [line for line in registry.render().decode().splitlines() if not line.startswith("#")]
    assert said == ["a NaN", "b +Inf", "c -Inf"]
