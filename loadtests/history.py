"""docs/performance-history.jsonl: a line for each commit that was measured, medians only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtests.figures import DIRECT, PROXY, TOWLINE, each, figures_of, rounded

KEPT_PEERS = (DIRECT, PROXY)  # they say what the machine was worth that day


def entry(run: Mapping[str, Any]) -> dict[str, Any]:
    """`{"commit", "taken", "machine", "figures": {"SECTION/PATH/METRIC": median}}`."""
    box = run["machine"]
    return {
        "commit": run["commit"],
        "taken": run["taken"],
        "machine": f"{box['cpu']}, {box['cores']} cores, Linux {box['kernel']}, CPython {box['python']}",
        "load_before": box["load_before"],
        "figures": {
            f"{section}/{path}/{metric}": rounded(figure.median)
            for section, path, metric, figure in each(figures_of(run))
            if path.startswith(TOWLINE) or path in KEPT_PEERS
        },
    }


def with_entry(lines: list[str], new: Mapping[str, Any]) -> list[str]:
    """The history with `new` at its end, instead of an earlier one of the same commit on the same machine."""
    same = (new["commit"], new["machine"])
    kept = []
    for line in lines:
        old = json.loads(line)
        if (old["commit"], old["machine"]) != same:
            kept.append(line)
    return [*kept, json.dumps(new, separators=(",", ":"), ensure_ascii=False)]


def append(path: Path, run: Mapping[str, Any]) -> None:
    """Adds the run to the file; runs of a tree with changes (`commit` ends with +) are nobody's history."""
    if str(run["commit"]).endswith("+"):
        return
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    path.write_text("\n".join(with_entry(lines, entry(run))) + "\n")
