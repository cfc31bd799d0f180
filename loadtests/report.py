"""Turns a run into Markdown: the tables of docs/performance.md, the comparison in README.md.

Pure but `publish`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests import chart, history
from loadtests.figures import (
    DIRECT,
    DIRECT_TLS,
    HAPROXY,
    METRICS,
    PROXY,
    SECTIONS,
    SNITUN,
    SSH,
    TOWLINE,
    Figure,
    Figures,
    Paths,
    figures_of,
    find,
)
from loadtests.goals import ONE_PROCESS, judge

BEGIN, END = "<!-- figures: begin (written by make bench) -->", "<!-- figures: end -->"
NONE = "–"
_DOES: dict[str, tuple[str, str, str]] = {
    TOWLINE: ("tunnel", "yes", "session checked at each request, grant checked at the device"),
    PROXY: ("no: the device must be reachable", "yes", "none"),
    HAPROXY: ("no: the device must be reachable", "yes", "none"),
    SSH: ("tunnel", "no: raw TCP", "whoever reaches the port"),
    SNITUN: ("tunnel", "no: opaque TLS", "whoever knows the name"),
}


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [row(columns), row(["---"] * len(columns)), *(row(cells) for cells in rows)]


def number(figure: Figure | None, metric: str) -> str:
    """The median with the metric's digits."""
    return NONE if figure is None else f"{figure.median:.{METRICS[metric].digits}f}"


def spread(figure: Figure | None, metric: str) -> str:
    if figure is None or len(figure.samples) == 1:
        return NONE
    digits = METRICS[metric].digits
    return f"{figure.low:.{digits}f}–{figure.high:.{digits}f}"


def parts(figure: Figure | None, metric: str) -> str:
    if figure is None or not figure.parts:
        return NONE
    digits = METRICS[metric].digits
    return " + ".join(f"{name} {value:.{digits}f}" for name, value in figure.parts.items())


def section_table(section: str, paths: Paths) -> list[str]:
    """One section: the first metric with its spread and parts, then the others."""
    known = SECTIONS[section]
    first, *others = [name for name in known.metrics if any(name in metrics for metrics in paths.values())]
    columns = ["path", METRICS[first].title, "spread"]
    with_parts = any(metrics[first].parts for metrics in paths.values() if first in metrics)
    if with_parts:
        columns.append("parts")
    for other in others:
        columns += [METRICS[other].title] if other == "errors" else [METRICS[other].title, "spread"]
    rows = []
    for path, metrics in paths.items():
        main = metrics.get(first)
        cells = [path, number(main, first), spread(main, first)]
        if with_parts:
            cells.append(parts(main, first))
        for other in others:
            figure = metrics.get(other)
            cells.append(number(figure, other))
            if other != "errors":
                cells.append(spread(figure, other))
        rows.append(cells)
    note = ["", known.note] if known.note else []
    return ["", f"**{known.title}**", *note, "", *table(columns, rows)]


def goals_table(figures: Figures) -> list[str]:
    rows = []
    for verdict in judge(figures):
        goal = verdict.goal
        sign = "≤" if goal.at_most else "≥"
        rows.append(
            [
                goal.title,
                f"{sign} {goal.bound:g} {goal.unit}",
                f"{verdict.value:.{goal.digits}f} {goal.unit}",
                verdict.text,
            ]
        )
    return ["", "**The goals**", "", *table(["figure", "goal", "measured", "verdict"], rows)] if rows else []


def heading(run: Mapping[str, Any]) -> str:
    """Which commit, when, on what, how."""
    box, how = run["machine"], run["parameters"]
    programs = ", ".join(f"{name} {version}" for name, version in box.get("versions", {}).items())
    return (
        f"Commit `{run['commit']}`, {run['taken']}. {box['cpu']}, {box['cores']} cores, "
        f"{box['memory_gib']} GiB, Linux {box['kernel']}, CPython {box['python']}; {programs}. "
        f"Load before the run {box['load_before']:.2f}. {how['rounds']} interleaved rounds of "
        f"{how['seconds']} s; medians, with the lowest and the highest round as spread; "
        f"{how['took_s'] / 60:.0f} minutes in all."
    )


def tables(run: Mapping[str, Any]) -> str:
    """All of a run as Markdown."""
    figures = figures_of(run)
    lines = [heading(run), *goals_table(figures)]
    for section in SECTIONS:
        if figures.get(section):
            lines += section_table(section, figures[section])
    return "\n".join(lines)


def _both(figures: Figures, path: str) -> str:
    down, up = (find(figures, section, path, "mb_s") for section in ("bulk_down", "bulk_up"))
    return f"{number(down, 'mb_s')} / {number(up, 'mb_s')}"


def readme_table(run: Mapping[str, Any]) -> str:
    """The comparison for README.md: what each does, and the figures that matter most."""
    figures, box = figures_of(run), run["machine"]
    columns = [
        "", "reaches a device behind NAT", "parses HTTP", "who gets in", "CPU-µs a 1 KB request, c=32 / c=1",
        "64 KB, CPU-µs", "MB/s down / up", "added p50 / p99 ms", "p99 under bulk, ms",
    ]  # fmt: skip
    rows = []
    for path, does in _DOES.items():
        if find(figures, "c32", path, "cpu_us") is None:
            continue
        few = " / ".join(number(find(figures, name, path, "cpu_us"), "cpu_us") for name in ("c32", "c1"))
        added = [find(figures, "latency", path, name) for name in ("added_p50_us", "added_p99_us")]
        under = find(figures, "under_bulk", path, "p99_us")
        name = f"**{path}**" if path == TOWLINE else path
        rows.append(
            [
                *(name, *does, few, number(find(figures, "64k", path, "cpu_us"), "cpu_us")),
                *(_both(figures, path), " / ".join(map(milliseconds, added)), milliseconds(under)),
            ]
        )
    lines = [
        f"Commit `{run['commit']}`, {run['taken'].split()[0]}, {box['cores']} cores of {box['cpu']}, "
        "loopback, one run, medians. CPU is that of all the path's own processes.",
        "",
        *table(columns, rows),
    ]
    many, kept = (
        find(figures, "tunnels32", ONE_PROCESS, "cpu_us"),
        find(figures, "idle", TOWLINE, "kib_per_tunnel"),
    )
    if many is not None and kept is not None:
        lines += [
            "",
            "Over 32 tunnels with one request in flight each a request costs "
            f"{number(many, 'cpu_us')} CPU-µs; "
            f"an idle tunnel holds {number(kept, 'kib_per_tunnel')} KiB of the server's memory.",
        ]
    verdicts = judge(figures)
    met = sum(verdict.met for verdict in verdicts)
    lines += [
        "",
        f"Of our own {len(verdicts)} goals for this run {met} are met; the page above says which are not.",
    ]
    return "\n".join(lines)


def milliseconds(figure: Figure | None) -> str:
    return NONE if figure is None else f"{figure.median / 1000:.2f}"


def between_marks(text: str, block: str) -> str:
    """`text` with what stands between the marks replaced; ValueError where a mark is missing."""
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError("the page has no marks for the figures")
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"


def bars(figures: Figures) -> str:
    """The plot of docs/performance.md."""
    order = [DIRECT, PROXY, HAPROXY, SSH, SNITUN, TOWLINE, DIRECT_TLS]
    panels = []
    for section, metric, title in (
        ("c32", "cpu_us", "CPU-µs a 1 KB request, 32 connections"),
        ("c1", "cpu_us", "CPU-µs a 1 KB request, 1 connection"),
        ("64k", "cpu_us", "CPU-µs a 64 KB request, 8 connections"),
        ("bulk_down", "mb_s", "MB/s down"),
        ("bulk_up", "mb_s", "MB/s up"),
        ("under_bulk", "p99_us", "p99 µs of a small request under bulk"),
    ):
        found = [(path, find(figures, section, path, metric)) for path in order]
        values = [(path, figure) for path, figure in found if figure is not None]
        if values:
            better = "less is better" if METRICS[metric].less_is_better else "more is better"
            panels.append(chart.Panel(f"{title} ({better})", values, METRICS[metric].digits))
    return chart.bars(panels, highlight=TOWLINE)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.report", description=__doc__)
    root = Path(__file__).resolve().parent.parent
    parser.add_argument(
        "run",
        type=Path,
        nargs="?",
        default=root / "docs" / "performance.json",
        help="a run's JSON to publish",
    )
    publish(root, json.loads(parser.parse_args().run.read_text()))
    return 0


def publish(root: Path, run: Mapping[str, Any]) -> None:
    """Writes the run into docs/ (JSON, history, tables, plot) and README.md."""
    docs = root / "docs"
    (docs / "performance.json").write_text(json.dumps(run, indent=1) + "\n")
    (docs / "performance.svg").write_text(bars(figures_of(run)))
    history.append(docs / "performance-history.jsonl", run)
    for page, block in ((docs / "performance.md", tables(run)), (root / "README.md", readme_table(run))):
        page.write_text(between_marks(page.read_text("utf-8"), block))


if __name__ == "__main__":
    sys.exit(main())
