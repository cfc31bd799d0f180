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
LAST_MILE_MS = 20  # each way
DELAYS_MS = (0, LAST_MILE_MS, 125)  # without any, TCP learns least of what the line takes
LEARNS_S = 10.0  # congestion control and our pacing find the rate
TRANSFER = (90_000, 110_000)  # bytes: 3 s of such a line
AFTER_S = 60.0  # a line that was mended: TCP's own timers have grown by then (RFC 6298)


def deaths(world: World, since: int) -> list[str]:
    """The codes of tunnels that ended at the node since its log had so many events."""
    return [str(one.get("code")) for one in world.log("node")[since:] if one["event"] == "tunnel closed"]


def _lossy(world: World, seconds: float, seed: int, figures: Figures) -> None:
    with running(world, seed, SMALL) as traffic:
        seen, begun = len(world.log("node")), time.monotonic()
        before = world.net.line.set(delay_ms=250, loss=30)
        traffic.rest(seconds)
        counts = world.net.line.clear()
        ended = deaths(world, seen)
        traffic.wait_success(AFTER_S)
    lost, came = (
        sum(counts[way][what] - before[way][what] for way in ("to_a", "to_b")) for what in ("lost", "came")
    )
    assert 0.2 < lost / came < 0.4, counts
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


def _thin(world: World, seed: int, seconds: float, figures: Figures, *, up: bool, delay_ms: float) -> None:
    """A tunnel that came up on the thin line carries a keystroke beside transfers that fill it."""
    end, kind = (world.net.device, "download") if up else (world.net.cloud, "upload")
    world.net.line.set(delay_ms=delay_ms)
    end.limit(WIRE_DEVICE, THIN)
    world.kill_9("agent")  # it dials on this line
    world.wait_dialled()
    with running(world, seed, TRANSFER, kinds=("echo", kind)) as traffic:
        seen = len(world.log("node"))
        traffic.rest(LEARNS_S)
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


def test_a_keystroke_passes_transfers_on_a_thin_uplink(world: World, seed: int, figures: Figures) -> None:
    # So long that a machine that stands still for a second or two stays within the 5 % of them.
    _thin(world, seed, 20, figures, up=True, delay_ms=0)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("delay_ms", DELAYS_MS)
@pytest.mark.parametrize("up", [True, False], ids=["uplink", "downlink"])
def test_a_keystroke_passes_transfers_on_a_thin_line_for_minutes(
    world: World, seed: int, figures: Figures, up: bool, delay_ms: float
) -> None:
    _thin(world, seed, 60, figures, up=up, delay_ms=delay_ms)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_line_that_becomes_thin_while_it_is_full(world: World, seed: int, figures: Figures) -> None:
    """What was sent at the old rate must first get through, or be sent again: figures, and no wrong byte."""
    with running(world, seed) as traffic:
        world.net.line.set(delay_ms=LAST_MILE_MS)
        world.net.cloud.limit(WIRE_DEVICE, THIN)
        world.net.device.limit(WIRE_DEVICE, THIN)
        begun = time.monotonic()
        traffic.rest(60)
        figures("echo p95 in a minute", f"{traffic.quantile_s('echo', 95, begun):.1f} s")
        figures("errors", str(traffic.errors(begun)))
        world.net.mend()
        traffic.wait_success(AFTER_S)
