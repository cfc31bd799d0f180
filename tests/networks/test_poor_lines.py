"""Delay, loss, duplicates, packets out of order, and a thin line: slow, and never wrong."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.networks.traffic import KINDS, running
from tests.networks.wire import DEVICE as WIRE_DEVICE
from tests.networks.world import World

Figures = Callable[[str, str], None]

SMALL = (2_000, 20_000)  # bytes: what such a line carries within a visitor's patience
ECHO_P95_S = 1.0  # SECURITY, reliability: 256 kbit/s during an upload
THIN = "256kbit"
AFTER_S = 60.0  # a line that was mended: TCP's own timers have grown by then (RFC 6298)


def deaths(world: World, since: int) -> list[str]:
    """The codes of tunnels that ended at the node since its log had so many events."""
    return [str(one.get("code")) for one in world.log("node")[since:] if one["event"] == "tunnel closed"]


def _lossy(world: World, seconds: float, seed: int, figures: Figures) -> None:
    with running(world, seed, SMALL) as traffic:
        seen, begun = len(world.log("node")), time.monotonic()
        world.net.line.set(delay_ms=250, loss=30)
        traffic.rest(seconds)
        counts = world.net.line.clear()
        ended = deaths(world, seen)
        traffic.wait_success(AFTER_S)
    lost, came = (sum(counts[way][what] for way in ("to_a", "to_b")) for what in ("lost", "came"))
    assert lost > came / 10, counts  # packets of the good times before are in it
    figures("packets lost", f"{lost} of {came}")
    figures("tunnels that ended", f"{len(ended)} {sorted(set(ended))}")
    for kind in KINDS:
        figures(f"{kind}s whole", str(traffic.count(kind, ok=True, since=begun)))
    figures("errors", str(traffic.errors(begun)))


def test_250_ms_and_30_percent_loss_each_way(world: World, seed: int, figures: Figures) -> None:
    _lossy(world, 20, seed, figures)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_250_ms_and_30_percent_loss_each_way_for_minutes(world: World, seed: int, figures: Figures) -> None:
    _lossy(world, 180, seed, figures)


def test_duplicates_and_packets_out_of_order(world: World, seed: int, figures: Figures) -> None:
    with running(world, seed) as traffic:
        seen, begun = len(world.log("node")), time.monotonic()
        world.net.line.set(delay_ms=20, jitter_ms=15, duplicate=10, reorder=10, loss=1)
        traffic.rest(8)
        traffic.wait_success(20)
        counts = world.net.line.clear()
        assert not deaths(world, seen)
        assert not traffic.errors(begun)
    for what in ("duplicated", "overtook"):
        total = sum(counts[way][what] for way in ("to_a", "to_b"))
        assert total > 100, counts
        figures(f"packets {what}", str(total))
    figures("traffic", traffic.summary())


def _thin(world: World, seed: int, seconds: float, figures: Figures, *, up: bool, kind: str) -> None:
    """One direction carries 256 kbit/s, and transfers of `kind` fill it the whole time."""
    end = world.net.device if up else world.net.cloud
    with running(world, seed, kinds=("echo", "page", kind)) as traffic:
        seen = len(world.log("node"))
        end.limit(WIRE_DEVICE, THIN)
        traffic.rest(3)  # what was under way on the fast line is through
        begun = time.monotonic()
        traffic.rest(seconds)
        until = time.monotonic()
        p50, p95 = (traffic.quantile_s("echo", q, begun, until) for q in (50, 95))
        moved = traffic.count(kind, ok=True, since=begun)
        assert not deaths(world, seen)
        assert not traffic.errors(begun)
        world.net.mend()
        traffic.wait_success(AFTER_S)
    figures("echo p50", f"{p50 * 1000:.0f} ms")
    figures("echo p95", f"{p95 * 1000:.0f} ms")
    figures(f"{kind}s meanwhile", str(moved))
    assert p95 <= ECHO_P95_S


DIRECTIONS = pytest.mark.parametrize(
    ("up", "kind"), [(True, "download"), (False, "upload")], ids=["up", "down"]
)


@DIRECTIONS
def test_a_keystroke_passes_transfers_on_a_thin_line(
    world: World, seed: int, figures: Figures, up: bool, kind: str
) -> None:
    _thin(world, seed, 10, figures, up=up, kind=kind)


@pytest.mark.soak
@pytest.mark.timeout(300)
@DIRECTIONS
def test_a_keystroke_passes_transfers_on_a_thin_line_for_minutes(
    world: World, seed: int, figures: Figures, up: bool, kind: str
) -> None:
    _thin(world, seed, 120, figures, up=up, kind=kind)
