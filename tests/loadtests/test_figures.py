"""Statistics and the goals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.figures import (
    PROXY,
    SECTIONS,
    TOWLINE,
    Figure,
    figures_of,
    medians,
    percentile,
    rounded,
)
from loadtests.goals import GOALS, MESSAGES, ONE_PROCESS, judge
from tests.loadtests.runs import Samples, figures, run


@given(st.lists(st.floats(-1e9, 1e9), min_size=1), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values_with_its_share_below(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    below = sum(value < found for value in values)
    assert below <= share * len(values)
    assert percentile(values, 1.0) == max(values)


def test_percentiles_of_a_hundred() -> None:
    values = [float(n) for n in range(100)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_figure_keeps_its_rounds_and_parts_through_json() -> None:
    figure = Figure((3.0, 1.0, 2.0), {"server": 1.5})
    assert (figure.median, figure.low, figure.high) == (2.0, 1.0, 3.0)
    assert Figure.from_json(figure.to_json()) == figure
    with pytest.raises(ValueError, match="needs a sample"):
        Figure(())


def test_rounded_keeps_significant_digits() -> None:
    assert rounded(61.966225636) == 61.966
    assert rounded(57179.54) == 57180
    assert rounded(0.000123456) == 0.00012346


def test_medians_of_parts() -> None:
    assert medians([{"a": 1.0, "b": 5.0}, {"a": 3.0, "b": 4.0}, {"a": 2.0, "b": 9.0}]) == {"a": 2.0, "b": 5.0}


def test_a_run_s_figures_come_back() -> None:
    samples: Samples = {("c32", TOWLINE, "cpu_us"): (60.0, 61.0)}
    assert figures_of(run(samples)) == figures(samples)


def verdicts(**samples: tuple[float, ...]) -> dict[str, str]:
    known = {
        "c32": ("c32", TOWLINE, "cpu_us"),
        "tunnels32": ("tunnels32", ONE_PROCESS, "cpu_us"),
        "own_bulk": ("bulk_down", TOWLINE, "mb_s"),
        "proxy_bulk": ("bulk_down", PROXY, "mb_s"),
        "stalled": ("stalled", TOWLINE, "mib"),
        "added": ("latency", TOWLINE, "added_p50_us"),
        "few": ("connected", "towline, 10 tunnels", "cpu_us"),
        "many": ("connected", "towline, 5000 tunnels", "cpu_us"),
    }
    judged = judge(figures({known[name]: values for name, values in samples.items()}))
    return {verdict.goal.title: verdict.text for verdict in judged}


def test_a_goal_is_met_at_its_bound() -> None:
    assert verdicts(c32=(50.0,)) == {"1 KB, 32 connections: CPU a request": "met"}


def test_a_missed_goal_says_by_how_much_and_whether_the_least_holds() -> None:
    assert verdicts(c32=(60.0,)).popitem()[1] == "short by 20 % (the least, 70, holds)"
    assert verdicts(tunnels32=(150.0,)).popitem()[1] == "short by 100 % (the least, 100, is missed)"


def test_ratios_are_of_medians_in_one_run() -> None:
    title = "bulk down, of nginx's proxy rate"
    assert verdicts(own_bulk=(750.0,), proxy_bulk=(1000.0,)) == {title: "met"}
    assert verdicts(own_bulk=(600.0,), proxy_bulk=(1000.0,)) == {title: "short by 20 %"}
    assert verdicts(own_bulk=(600.0,)) == {}  # nothing to compare with


def test_the_worst_round_counts_for_memory() -> None:
    assert verdicts(stalled=(3.0, 15.0, 2.0)).popitem()[1] == "short by 25 %"


def test_latency_is_judged_in_milliseconds() -> None:
    assert verdicts(added=(299.0,)).popitem()[1] == "met"
    assert verdicts(added=(450.0,)).popitem()[1] == "short by 50 %"


def test_flatness_is_the_most_tunnels_over_the_fewest() -> None:
    assert verdicts(few=(50.0,), many=(54.0,)).popitem()[1] == "met"
    assert verdicts(few=(50.0,), many=(66.0,)).popitem()[1] == "short by 20 %"


def test_every_goal_names_figures_that_a_section_has() -> None:
    """Each goal finds its value where every section, path and metric there is has a figure."""
    paths = (TOWLINE, PROXY, ONE_PROCESS, MESSAGES)
    everything: Samples = {
        (section, path, metric): (1.0,)
        for section, known in SECTIONS.items()
        for path in paths
        for metric in known.metrics
    }
    assert [verdict.goal for verdict in judge(figures(everything))] == list(GOALS)
