"""A change is one only where it stands out of both runs' noise."""

from __future__ import annotations

import pytest

from loadtests.compare import BETTER, NOISE, WORSE, Change, changes, machine_drift, rendered
from loadtests.figures import DIRECT, PROXY, TOWLINE, Figure
from tests.loadtests.runs import figures, run

C32 = ("c32", TOWLINE, "cpu_us")
BULK = ("bulk_down", TOWLINE, "mb_s")


def change(old: tuple[float, ...], new: tuple[float, ...], metric: str = "cpu_us") -> Change:
    return Change("c32", TOWLINE, metric, Figure(old), Figure(new))


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ((60, 62, 64), (50, 51, 52), BETTER),
        ((50, 51, 52), (60, 62, 64), WORSE),
        ((60, 62, 64), (60, 62, 64), NOISE),
        ((60, 62, 90), (70, 71, 72), NOISE),  # the old run's own spread reaches the new median
        ((60, 61, 62), (50, 70, 71), NOISE),  # the new run's spread reaches the old median
        ((60, 61, 62), (62.5, 63, 63.5), NOISE),  # apart, but by less than the floor of 5 %
        ((60,), (66,), WORSE),  # one sample each: the floor alone decides
    ],
)
def test_verdict_of_a_cost(old: tuple[float, ...], new: tuple[float, ...], verdict: str) -> None:
    assert change(old, new).verdict == verdict


def test_a_rate_is_better_when_it_grows() -> None:
    assert change((500, 510, 520), (700, 710, 720), "mb_s").verdict == BETTER
    assert change((700, 710, 720), (500, 510, 520), "mb_s").verdict == WORSE


def test_any_new_error_is_worse() -> None:
    assert change((0,), (1,), "errors").verdict == WORSE
    assert change((0,), (0,), "errors").verdict == NOISE


def test_only_figures_of_both_runs_are_compared() -> None:
    old = figures({C32: (60.0,), BULK: (500.0,)})
    new = figures({C32: (50.0,), ("c1", TOWLINE, "cpu_us"): (200.0,)})
    assert [(one.section, one.path, one.metric) for one in changes(old, new)] == [C32]


def test_the_machine_s_drift_is_read_off_the_references() -> None:
    old = figures({("c32", DIRECT, "cpu_us"): (10.0,), ("c32", PROXY, "cpu_us"): (20.0,), C32: (60.0,)})
    new = figures({("c32", DIRECT, "cpu_us"): (11.0,), ("c32", PROXY, "cpu_us"): (22.0,), C32: (60.0,)})
    assert machine_drift(changes(old, new)) == pytest.approx(1.1)
    assert machine_drift(changes(figures({C32: (1.0,)}), figures({C32: (1.0,)}))) is None


def test_the_comparison_names_commits_ratio_and_verdict() -> None:
    old = run({C32: (60, 62, 64), ("c32", PROXY, "cpu_us"): (20, 20, 20)}, commit="old1")
    new = run({C32: (30, 31, 32), ("c32", PROXY, "cpu_us"): (20, 20, 20)}, commit="new2")
    text = rendered(old, new)
    assert "old1" in text.splitlines()[0]
    assert "new2" in text.splitlines()[0]
    assert "nginx's own CPU figures moved ×1.00" in text
    assert (
        "| c32 | towline | CPU-µs a request | 62.0 | 60.0–64.0 | 31.0 | 30.0–32.0 | ×0.50 | better |" in text
    )
    assert "Different machines" not in text


def test_a_machine_that_moved_is_cautioned_about() -> None:
    proxy = ("c32", PROXY, "cpu_us")
    old, new = run({C32: (60.0,), proxy: (20.0,)}), run({C32: (60.0,), proxy: (30.0,)})
    assert "measure again" in rendered(old, new)
    assert "measure again" not in rendered(old, old)


def test_errors_are_shown_when_there_are_new_ones() -> None:
    errors = ("c32", TOWLINE, "errors")
    old, new = run({C32: (60.0,), errors: (0.0,)}), run({C32: (60.0,), errors: (4.0,)})
    assert "| errors | 0 | – | 4 | – | ×inf | WORSE |" in rendered(old, new)
    assert "| errors |" not in rendered(old, old)


def test_other_machines_and_parameters_are_said() -> None:
    old, new = run({C32: (60.0,)}), run({C32: (60.0,)}, cpu="Another CPU")
    new["parameters"] = {**new["parameters"], "rounds": 9}
    text = rendered(old, new)
    assert "Different machines" in text
    assert "Parameters differ" in text


def test_a_run_of_an_older_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 1, not 2"):
        rendered({"commit": "x", "figures": {}}, run({C32: (60.0,)}))
