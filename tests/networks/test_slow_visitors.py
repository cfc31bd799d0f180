"""Visitors that take nothing, or give a byte now and then: the others do not feel them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.networks.traffic import running
from tests.networks.world import Person, World

Figures = Callable[[str, str], None]

READERS, WRITERS = 8, 8
BULK = 200 << 20  # bytes that a stalled reader never takes
ROUND_S = 5.0
ROUNDS = 4
TIMES = 2.0  # SECURITY, reliability: others' p99 < 2×
NOISE_S = 0.02  # of a machine that does other things too: below this nobody feels anything


@contextmanager
def slow_ones(world: World) -> Iterator[None]:
    """They hold their connections and do nothing."""
    with ExitStack() as closing:
        person: Person = world.visitor()
        closing.callback(person.close)
        head = f"Host: {person.host}\r\nCookie: {person.cookie}\r\nOrigin: {person.origin}\r\n"
        for number in range(READERS):
            raw = closing.enter_context(person.connection())
            raw.sendall(f"GET /length/{number}/{BULK} HTTP/1.1\r\n{head}\r\n".encode())
        for _ in range(WRITERS):
            raw = closing.enter_context(person.connection())
            raw.sendall(f"POST /hash HTTP/1.1\r\n{head}Content-Length: 1000000\r\n\r\nslow".encode())
        yield


@pytest.mark.soak
@pytest.mark.timeout(200)
def test_stalled_readers_and_writers_cost_the_others_nothing(
    world: World, seed: int, figures: Figures
) -> None:
    alone: list[float] = []
    beside: list[float] = []
    with running(world, seed, kinds=("echo", "page")) as traffic:
        for _ in range(ROUNDS):  # in turns, so that what else the machine does hits both
            before = len(traffic.events)
            traffic.rest(ROUND_S)
            alone += [one.seconds for one in traffic.events[before:] if one.kind == "page"]
            with slow_ones(world):
                traffic.rest(1.0)
                before = len(traffic.events)
                traffic.rest(ROUND_S)
                beside += [one.seconds for one in traffic.events[before:] if one.kind == "page"]
        assert not traffic.errors()
    before_s, beside_s = (statistics.quantiles(times, n=100)[98] for times in (alone, beside))
    figures("page p99 alone", f"{before_s * 1000:.1f} ms of {len(alone)}")
    figures(
        f"beside {READERS} stalled readers, {WRITERS} writers", f"{beside_s * 1000:.1f} ms of {len(beside)}"
    )
    assert beside_s < max(TIMES * before_s, NOISE_S)
