"""Prometheus' own program over the rules: which alarms are heard, of written series and of real figures."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from runtime.metrics import MetricDoc
from testbed.processes import ROOT
from testbed.programs import program
from towline import documents

RULES: Final = ROOT / "infra/alerts.yaml"
CHECK_S: Final = 30.0
MINUTES: Final = 125  # longer than any rule looks back and waits, one after the other

_SAMPLE = re.compile(r"^(\w+?)(_bucket|_sum|_count)?(\{.*\})? (\S+)$")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [program("promtool", "prometheus"), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=CHECK_S, check=False)


def expects(firing: Iterable[str], series: Mapping[str, str]) -> dict[str, Any]:
    """A test of promtool's: at the end of these series those alarms are heard, and no other."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{MINUTES}m",
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)],
            }
        ],
    }


def judged(folder: Path, *tests: dict[str, Any]) -> str:
    """What promtool says of the tests; "" when all is as expected."""
    file = folder / "alerts_test.yaml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = promtool("test", "rules", str(file))
    return "" if done.returncode == 0 else done.stdout + done.stderr


def described() -> dict[str, MetricDoc]:
    """Every metric of the processes that are scraped, by name."""
    registries = (
        documents.gateway_registry,
        documents.node_registry,
        documents.ingest_registry,
        documents.agent_registry,
    )
    return {metric.name: metric for registry in registries for metric in registry().describe()}


def scraped(text: str, job: str) -> dict[str, float]:
    """A service's /metrics as Prometheus keeps it."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#") or (sample := _SAMPLE.match(line)) is None or sample[2]:
            continue
        labels = (sample[3] or "{}")[1:-1]
        name = f'{sample[1]}{{{labels}{"," if labels else ""}job="{job}",instance="one"}}'
        found[name] = float(sample[4])
    assert found
    return found


def alarms(
    folder: Path, before: Mapping[str, float], after: Mapping[str, float], *, goes_on: bool = False
) -> set[str]:
    """Which are heard when what was scraped was so for hours, and is as `after` since some minutes.
    `goes_on`: what was counted is counted again each minute. A series that was not there before begins so.
    """
    series = {}
    for name, now in after.items():
        was = f"{before[name]:f}" if name in before else "_"
        counts = goes_on and name in before and name.partition("{")[0].endswith("_total")
        each = now - before[name] if counts else 0.0
        series[name] = f"{was}x{MINUTES - 4} {now:f}+{each:f}x4"
    said = judged(folder, expects(["nothing"], series)).partition("got:")[2]
    return set(re.findall(r'alertname=\\?"(\w+)', said))
