"""docs/settings.md and docs/metrics.md, written from the code: `python -m towline.documents docs`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.metrics import MetricDoc, Registry
from runtime.settings import FieldDoc, describe

# Title, module and name of each settings dataclass, in reading order.
SETTINGS = (
    ("gateway", "gateway.settings", "Settings"),
    ("tunnel_server", "tunnel_server.settings", "Settings"),
    ("tunnel_agent", "tunnel_agent.settings", "AgentSettings"),
)
# Title, module and name of what registers a service's metrics: called with a Registry.
METRICS = (
    ("gateway", "gateway.metrics", "gateway_metrics"),
    ("tunnel_server", "tunnel_server.metrics", "Metrics"),
)

_HEAD = "<!-- Written by `make docs`; change the code, not this file. -->\n"


def settings_document() -> str:
    """Every setting of every service."""
    parts = [f"# Settings\n\n{_HEAD}"]
    parts.append(
        "Each service reads one TOML file (`--config FILE`). Relative paths start at the file's folder. An\n"
        "unknown, missing or wrong setting is named on one line, and the service exits with code 2.\n"
    )
    for title, module, name in SETTINGS:
        cls = getattr(importlib.import_module(module), name)
        rows = [_settings_row(field) for field in describe(cls)]
        parts.append(
            f"\n## {title}\n\n| setting | type | default | what it is |\n|---|---|---|---|\n" + "".join(rows)
        )
    return "".join(parts)


def metrics_document() -> str:
    """Every metric of every service."""
    parts = [f"# Metrics\n\n{_HEAD}"]
    parts.append("Each service answers `/metrics` on its `ops_listen` address, in Prometheus' text format.\n")
    for title, module, name in METRICS:
        registry = Registry()
        getattr(importlib.import_module(module), name)(registry)
        rows = [_metrics_row(metric) for metric in registry.describe()]
        parts.append(
            f"\n## {title}\n\n| metric | kind | labels | what it counts |\n|---|---|---|---|\n"
            + "".join(rows)
        )
    return "".join(parts)


DOCUMENTS = {"settings.md": settings_document, "metrics.md": metrics_document}


def main(argv: Sequence[str]) -> int:
    """Write both documents into the folder given."""
    folder = Path(argv[0])
    for name, text in DOCUMENTS.items():
        (folder / name).write_text(text(), "utf-8")
        print(folder / name)
    return 0


def _settings_row(field: FieldDoc) -> str:
    default = "required" if field.default is None else f"`{field.default}`"
    return f"| `{field.name}` | {_cell(field.type)} | {_cell(default)} | {_cell(field.doc)} |\n"


def _metrics_row(metric: MetricDoc) -> str:
    return f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {_cell(metric.doc)} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
