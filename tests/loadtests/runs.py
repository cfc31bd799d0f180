"""Runs as `make bench` writes them, with the figures a test is about."""

from __future__ import annotations

from typing import Any

from loadtests.figures import FORMAT, Figure, Figures, figures_to_json

Samples = dict[tuple[str, str, str], tuple[float, ...]]  # (section, path, metric) → a value a round


def figures(samples: Samples) -> Figures:
    made: Figures = {}
    for (section, path, metric), values in samples.items():
        made.setdefault(section, {}).setdefault(path, {})[metric] = Figure(values)
    return made


def run(samples: Samples, *, commit: str = "abc1234", cpu: str = "Some CPU") -> dict[str, Any]:
    return {
        "format": FORMAT,
        "commit": commit,
        "taken": "2026-01-31 12:00 UTC",
        "machine": {
            "cpu": cpu,
            "cores": 2,
            "memory_gib": 4.0,
            "kernel": "6.1",
            "python": "3.11.7",
            "load_before": 0.5,
            "versions": {"nginx": "1.22.1"},
        },
        "parameters": {
            "seconds": 2,
            "rounds": 3,
            "idle_tunnels": 2000,
            "connected_tunnels": 5000,
            "took_s": 300,
        },
        "figures": figures_to_json(figures(samples)),
    }
