"""`make bench-compare`: this run against the last committed one, figure by figure.

The machine is never the same twice. So a figure is only *better* or *worse* when its median lies outside the
other run's spread, both ways, and moved by more than its metric's floor; the rest is noise. What untouched
peers did meanwhile (`nginx direct`, `nginx as proxy`) stands first: when they moved, the machine did.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests import history
from loadtests.bench import ROOT, failed_requests, measured_as_asked, options_parser
from loadtests.figures import DIRECT, METRICS, PROXY, TOWLINE, Figure, Figures, each, figures_of, find
from loadtests.report import spread, table

COMMITTED = "docs/performance.json"
LAST_RUN = ROOT / "build" / "bench" / "run.json"
BETTER, WORSE, NOISE = "better", "WORSE", "within noise"
REFERENCES = (DIRECT, PROXY)
DRIFT = 0.15  # nginx did not change; more than this is the machine


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in two runs."""

    section: str
    path: str
    metric: str
    old: Figure
    new: Figure

    @property
    def ratio(self) -> float:
        """New median over old; 1 where both are 0, infinity where only the old one is."""
        if self.old.median == 0:
            return 1.0 if self.new.median == 0 else float("inf")
        return self.new.median / self.old.median

    @property
    def verdict(self) -> str:
        metric = METRICS[self.metric]
        apart = not _within(self.new.median, self.old) and not _within(self.old.median, self.new)
        if not apart or abs(self.ratio - 1) <= metric.floor:
            return NOISE
        return BETTER if (self.ratio < 1) == metric.less_is_better else WORSE


def _within(value: float, figure: Figure) -> bool:
    return figure.low <= value <= figure.high


def changes(old: Figures, new: Figures) -> list[Change]:
    """Figures that both runs have, in the catalogue's order."""
    found = []
    for section, path, metric, figure in each(new):
        before = find(old, section, path, metric)
        if before is not None:
            found.append(Change(section, path, metric, before, figure))
    return found


def machine_drift(found: Sequence[Change]) -> float | None:
    """The median ratio of the references' CPU figures: what the machine itself did. None: not measured."""
    ratios = [one.ratio for one in found if one.path in REFERENCES and one.metric in ("cpu_us", "cpu_ms_mb")]
    return statistics.median(ratios) if ratios else None


def rendered(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The comparison as Markdown."""
    found = changes(figures_of(old), figures_of(new))
    lines = [f"{old['commit']} ({old['taken']}) → {new['commit']} ({new['taken']})", ""]
    if old["machine"]["cpu"] != new["machine"]["cpu"] or old["machine"]["cores"] != new["machine"]["cores"]:
        lines += ["**Different machines: only ratios between paths mean something.**", ""]
    if old["parameters"] != new["parameters"]:
        lines += [f"Parameters differ: {old['parameters']} → {new['parameters']}", ""]
    drift = machine_drift(found)
    if drift is not None:
        lines += [f"The machine: nginx's own CPU figures moved ×{drift:.2f}." + _caution(drift), ""]
    columns = ["section", "path", "figure", "old", "spread", "new", "spread", "ratio", "verdict"]
    shown = [one for one in found if one.metric != "errors" or one.verdict != NOISE]
    return "\n".join(lines + table(columns, [_cells(one) for one in shown]))


def _caution(drift: float) -> str:
    if 1 / (1 + DRIFT) <= drift <= 1 + DRIFT:
        return ""
    return " That is more than a build can do: measure again on a quiet machine before you believe a verdict."


def _cells(one: Change) -> list[str]:
    metric, digits = METRICS[one.metric], METRICS[one.metric].digits
    old, new = (f"{figure.median:.{digits}f}" for figure in (one.old, one.new))
    spreads = [spread(figure, one.metric) for figure in (one.old, one.new)]
    return [
        *(one.section, one.path, metric.title, old, spreads[0], new, spreads[1]),
        *(f"×{one.ratio:.2f}", one.verdict),
    ]


def last_committed() -> dict[str, Any]:
    """docs/performance.json of HEAD; SystemExit where there is none that can be compared."""
    done = subprocess.run(
        ["git", "show", f"HEAD:{COMMITTED}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"there is no committed {COMMITTED}: run make bench and commit it first")
    run: dict[str, Any] = json.loads(done.stdout)
    return run


def main() -> int:
    parser = options_parser("python -m loadtests.compare", __doc__)
    parser.add_argument("--run", type=Path, help="a run's JSON instead of a new run")
    parser.add_argument("--against", type=Path, help="another run's JSON instead of the last committed one")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 3 when a figure of towline's is worse"
    )
    args: argparse.Namespace = parser.parse_args()
    old = json.loads(args.against.read_text()) if args.against else last_committed()
    if args.run is not None:
        new = json.loads(args.run.read_text())
    else:
        new = measured_as_asked(args)
        LAST_RUN.parent.mkdir(parents=True, exist_ok=True)
        LAST_RUN.write_text(json.dumps(new, indent=1) + "\n")
        history.append(ROOT / "docs" / "performance-history.jsonl", new)
    print(rendered(old, new))
    if failed_requests(figures_of(new)):
        return 1
    found = changes(figures_of(old), figures_of(new))
    worse = [one for one in found if one.verdict == WORSE and one.path.startswith(TOWLINE)]
    return 3 if args.strict and worse else 0


if __name__ == "__main__":
    sys.exit(main())
