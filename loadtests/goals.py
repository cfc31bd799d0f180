"""The goals of the data plane, each as a figure of a run and a bound. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadtests.figures import PROXY, TOWLINE, Figures, find

ONE_PROCESS = "towline, one process"
MESSAGES = "towline, Mosquitto and Kafka"
MANY_PROCESSES = "towline, 32 processes"


@dataclass(frozen=True, slots=True)
class Goal:
    """`value` finds the figure in a run (None: not measured); it should be `at_most` or at least `bound`."""

    title: str
    unit: str
    bound: float
    value: Callable[[Figures], float | None]
    at_most: bool = True
    digits: int = 1
    least: float | None = None  # what must hold even where the goal does not; None: the same


def _median(section: str, path: str, metric: str, scale: float = 1.0) -> Callable[[Figures], float | None]:
    def value(figures: Figures) -> float | None:
        found = find(figures, section, path, metric)
        return None if found is None else found.median * scale

    return value


def _highest(section: str, path: str, metric: str) -> Callable[[Figures], float | None]:
    def value(figures: Figures) -> float | None:
        found = find(figures, section, path, metric)
        return None if found is None else found.high

    return value


def _ratio(section: str, path: str, to: str, metric: str) -> Callable[[Figures], float | None]:
    def value(figures: Figures) -> float | None:
        over, under = find(figures, section, path, metric), find(figures, section, to, metric)
        return None if over is None or under is None else over.median / under.median

    return value


def _flatness(figures: Figures) -> float | None:
    """What a request costs beside the most tunnels, of what it costs beside the fewest."""
    measured = [metrics["cpu_us"].median for metrics in figures.get("connected", {}).values()]
    return measured[-1] / measured[0] if len(measured) > 1 else None


GOALS: tuple[Goal, ...] = (
    Goal("1 KB, 32 connections: CPU a request", "µs", 50, _median("c32", TOWLINE, "cpu_us"), least=70),
    Goal(
        "1 KB, 32 tunnels at depth 1: CPU a request",
        "µs",
        75,
        _median("tunnels32", ONE_PROCESS, "cpu_us"),
        least=100,
    ),
    Goal("1 KB, 1 connection: CPU a request", "µs", 200, _median("c1", TOWLINE, "cpu_us"), least=260),
    Goal(
        "bulk down, of nginx's proxy rate",
        "×",
        0.75,
        _ratio("bulk_down", TOWLINE, PROXY, "mb_s"),
        at_most=False,
        digits=2,
    ),
    Goal(
        "bulk up, of nginx's proxy rate",
        "×",
        0.75,
        _ratio("bulk_up", TOWLINE, PROXY, "mb_s"),
        at_most=False,
        digits=2,
    ),
    Goal(
        "added latency at low load, p50",
        "ms",
        0.30,
        _median("latency", TOWLINE, "added_p50_us", 1e-3),
        digits=2,
    ),
    Goal(
        "added latency at low load, p99",
        "ms",
        0.50,
        _median("latency", TOWLINE, "added_p99_us", 1e-3),
        digits=2,
    ),
    Goal(
        "small request under bulk, p99", "ms", 5.0, _median("under_bulk", TOWLINE, "p99_us", 1e-3), digits=2
    ),
    Goal("an idle tunnel, server", "KiB", 45, _median("idle", TOWLINE, "kib_per_tunnel")),
    Goal("8 stalled readers of 100 MB, server + agent", "MiB", 12, _highest("stalled", TOWLINE, "mib")),
    Goal(
        "messages, from MQTT to rows",
        "/s",
        12_000,
        _median("messages", MESSAGES, "messages_per_s"),
        at_most=False,
        digits=0,
    ),
    Goal("command, request to answer, p99", "ms", 50, _median("commands", MESSAGES, "p99_us", 1e-3)),
    Goal("CPU a request beside thousands of tunnels, of that beside 10", "×", 1.10, _flatness, digits=2),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal against one run. `short_by` is the share of the bound that is missing, 0 when met."""

    goal: Goal
    value: float
    short_by: float

    @property
    def met(self) -> bool:
        return self.short_by == 0

    @property
    def text(self) -> str:
        """`met`, or by how much it is missed, and whether the least that is wanted holds."""
        if self.met:
            return "met"
        text = f"short by {max(1, round(self.short_by * 100))} %"
        if self.goal.least is None:
            return text
        holds = self.value <= self.goal.least if self.goal.at_most else self.value >= self.goal.least
        return f"{text} (the least, {self.goal.least:g}, {'holds' if holds else 'is missed'})"


def judge(figures: Figures) -> list[Verdict]:
    """Every goal whose figures the run has."""
    verdicts = []
    for goal in GOALS:
        value = goal.value(figures)
        if value is None:
            continue
        missing = (value - goal.bound) if goal.at_most else (goal.bound - value)
        verdicts.append(Verdict(goal, value, max(0.0, missing / goal.bound)))
    return verdicts
