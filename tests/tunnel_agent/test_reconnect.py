"""When an agent dials again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_agent.policy.reconnect import (
    MAX_BACKOFF_S,
    MAX_CONNECTIONS,
    MAX_RETRY_AFTER_S,
    QUICK_GOAWAYS,
    REVOKED_FIRST_S,
    REVOKED_MAX_S,
    STABLE_AFTER_S,
    Ending,
    Reconnect,
    first_urls,
    next_url,
)

ALMOST_ONE = 0.999999


def test_the_ceiling_doubles_up_to_a_minute() -> None:
    reconnect = Reconnect()
    delays = [reconnect.ended(Ending.LOST, 0.0, ALMOST_ONE) for _ in range(9)]
    assert [round(delay) for delay in delays] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_sleep_is_spread_from_zero() -> None:
    reconnect = Reconnect(failures=5)
    assert reconnect.ended(Ending.LOST, 0.0, 0.0) == 0.0


def test_only_a_stable_connection_starts_anew() -> None:
    reconnect = Reconnect(failures=6)
    reconnect.opened(100.0)
    assert round(reconnect.ended(Ending.LOST, 100.0 + STABLE_AFTER_S - 1, ALMOST_ONE)) == MAX_BACKOFF_S
    reconnect.opened(200.0)
    assert round(reconnect.ended(Ending.LOST, 200.0 + STABLE_AFTER_S, ALMOST_ONE)) == 1


@given(retry_after_ms=st.integers(1, 2**32 - 1), random=st.floats(0, 1, exclude_max=True))
def test_goaway_is_kept_and_spread(retry_after_ms: int, random: float) -> None:
    delay = Reconnect().ended(Ending.GOAWAY, 0.0, random, retry_after_ms)
    asked = min(retry_after_ms / 1000, MAX_RETRY_AFTER_S)
    assert asked <= delay <= 2 * asked


def test_a_server_that_calls_back_again_and_again_is_dialled_as_slowly_as_any_other() -> None:
    reconnect = Reconnect()
    delays = [reconnect.ended(Ending.GOAWAY, 0.0, 0.5, retry_after_ms=1) for _ in range(9)]
    assert max(delays[:QUICK_GOAWAYS]) < 0.01
    assert [round(delay) for delay in delays[QUICK_GOAWAYS:]] == [4, 8, 16, 30, 30, 30]
    reconnect.opened(0.0)
    assert reconnect.ended(Ending.GOAWAY, STABLE_AFTER_S, 0.5, retry_after_ms=1) < 0.01


def test_a_revoked_device_is_quiet_for_long() -> None:
    reconnect = Reconnect()
    delays = [reconnect.ended(Ending.REVOKED, 0.0, 0.5) for _ in range(12)]
    assert delays[0] >= REVOKED_FIRST_S / 2
    assert delays == sorted(delays)
    assert delays[-1] == 0.75 * REVOKED_MAX_S


@pytest.mark.parametrize("ending", [Ending.REPLACED, Ending.REFUSED, Ending.REVOKED])
def test_a_refusal_never_gets_a_quick_try(ending: Ending) -> None:
    assert Reconnect().ended(ending, 0.0, 0.0) >= 7.5


@given(
    endings=st.lists(st.sampled_from(Ending), max_size=100),
    random=st.floats(0, 1, exclude_max=True),
    retry_after_ms=st.integers(0, 2**32 - 1),
)
def test_every_delay_is_finite(endings: list[Ending], random: float, retry_after_ms: int) -> None:
    reconnect = Reconnect()
    for ending in endings:
        assert 0 <= reconnect.ended(ending, 0.0, random, retry_after_ms) <= REVOKED_MAX_S


def test_every_server_gets_a_tunnel_and_what_is_left_goes_around() -> None:
    assert first_urls(("a",), 2) == ("a", "a")
    assert first_urls(("a",), 1) == ("a",)
    assert first_urls(("a", "b"), 2) == ("a", "b")
    assert first_urls(("a", "b", "c"), 2) == ("a", "b", "c")
    assert first_urls(("a", "b"), 3) == ("a", "b", "a")
    assert first_urls(("a", "b", "c"), 8) == ("a", "b", "c", "a", "b", "c", "a", "b")


@given(nodes=st.integers(1, 40), connections=st.integers(1, MAX_CONNECTIONS))
def test_the_tunnels_are_spread_evenly_and_bounded(nodes: int, connections: int) -> None:
    urls = tuple(f"wss://{number}.test/tunnel" for number in range(nodes))
    dialled = first_urls(urls, connections)
    assert len(dialled) == min(max(connections, nodes), MAX_CONNECTIONS)
    counts = [dialled.count(url) for url in urls[:MAX_CONNECTIONS]]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 1


def test_a_failed_server_is_left_for_one_that_is_free() -> None:
    urls = ("a", "b", "c")
    assert next_url(urls, "a", frozenset("ab")) == "c"
    assert next_url(urls, "c", frozenset("bc")) == "a"
    assert next_url(urls, "a", frozenset("abc")) == "a"
    assert next_url(("a",), "a", frozenset("a")) == "a"


def test_a_server_that_is_not_known_any_more_is_left() -> None:
    assert next_url(("a", "b"), "gone", frozenset(("a", "gone"))) == "b"
    assert next_url(("a", "b"), "gone", frozenset(("a", "b", "gone"))) == "a"
    assert next_url(("a",), "gone", frozenset(("gone",))) == "a"
