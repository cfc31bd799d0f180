"""What a load run is judged by."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from loadtests.load import option_of, parser
from loadtests.load_report import P95_MS, passed, percentile_ms, rendered, rows
from loadtests.scenarios.addresses import loopback_address


def stat(name: str, histogram: dict[str, int], failures: int = 0) -> dict[str, Any]:
    return {
        "name": name,
        "num_requests": sum(histogram.values()),
        "num_failures": failures,
        "response_times": histogram,
    }


def test_percentiles_of_a_histogram() -> None:
    histogram = {"1000": 1, "9": 4, "10": 95}  # as text the keys sort wrongly
    assert percentile_ms(histogram, 0.04) == 9
    assert percentile_ms(histogram, 0.5) == 10
    assert percentile_ms(histogram, 0.99) == 10
    assert percentile_ms(histogram, 1.0) == 1000
    assert percentile_ms({}, 0.95) == 0


def test_a_run_passes_within_its_bounds() -> None:
    found = rows([stat("page", {"10": 99, "499": 1}), stat("asset", {"3": 10})], P95_MS)
    assert [one.name for one in found] == ["asset", "page"]
    assert passed(found)
    assert "←" not in rendered(found)
    assert rendered(found).splitlines()[-1].split() == ["all", "110", "0"]


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        (stat("page", {"10": 100}, failures=1), "1 failed"),
        (stat("page", {"10": 94, "800": 6}), "p95 800 ms, more than 500"),
        (stat("something new", {"1200": 1}), "p95 1200 ms, more than 1000"),
    ],
)
def test_a_failure_or_a_slow_kind_fails_the_run(one: dict[str, Any], problem: str) -> None:
    found = rows([one, stat("asset", {"3": 10})], P95_MS)
    assert not passed(found)
    assert f"← {problem}" in rendered(found)


def test_a_run_that_asked_nothing_fails() -> None:
    assert not passed(rows([], P95_MS))


def test_every_bound_has_an_option() -> None:
    given = [word for name in P95_MS for word in (option_of(name), "7")]
    assert {name: vars(parser().parse_args(given))[name] for name in P95_MS} == dict.fromkeys(P95_MS, 7.0)


def test_visitors_have_addresses_of_their_own_on_this_machine() -> None:
    addresses = [loopback_address(number) for number in (0, 1, 249, 250, 62_499, 62_500, 1_000_000)]
    assert len(set(addresses)) == len(addresses)
    assert all(ip_address(address).is_loopback for address in addresses)
    assert "127.0.0.1" not in addresses
