"""Documents that are written from the code: `python -m towline.documents docs`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from device_protocol.schemas import DRAFT, PUBLISHED
from gateway.metrics import gateway_metrics
from gateway.settings import Settings as GatewaySettings
from ingest.app import Ingest, open_log
from ingest.settings import Settings as IngestSettings
from runtime.certificates import CertificateWatch
from runtime.clock import SYSTEM_CLOCK
from runtime.internal_http import InternalHttp
from runtime.metrics import MetricDoc, Registry
from runtime.settings import FieldDoc, describe, from_table
from towline.api_reference import api_reference
from towline.commands_document import commands_document
from tunnel_agent.messages.metrics import message_metrics
from tunnel_agent.metrics import agent_metrics, watch_agent
from tunnel_agent.settings import AgentSettings
from tunnel_server.app import Node
from tunnel_server.control.gateway import HttpGateway
from tunnel_server.settings import Settings as NodeSettings

# In reading order.
SETTINGS = (
    ("gateway", GatewaySettings),
    ("tunnel_server", NodeSettings),
    ("ingest", IngestSettings),
    ("tunnel_agent", AgentSettings),
)

_HEAD = "<!-- Written by `make docs`; change the code, not this file. -->\n"


def settings_document() -> str:
    """Every setting of every service."""
    parts = [f"# Settings\n\n{_HEAD}"]
    parts.append(
        "Each service reads one TOML file (`--config FILE`). Relative paths start at the file's folder. An\n"
        "unknown, missing or wrong setting is named on one line, and the service exits with code 2.\n"
    )
    for title, cls in SETTINGS:
        rows = [_settings_row(field) for field in describe(cls)]
        parts.append(
            f"\n## {title}\n\n| setting | type | default | what it is |\n|---|---|---|---|\n" + "".join(rows)
        )
    return "".join(parts)


def gateway_registry() -> Registry:
    """The gateway's metrics."""
    registry = Registry()
    gateway_metrics(registry)
    CertificateWatch(registry, wall=SYSTEM_CLOCK.wall, prefix="towline_gateway")
    return registry


def node_registry() -> Registry:
    """A tunnel server node's metrics, from a node that is wired as it runs and never started."""
    table = {
        "node": "documents",
        "ops_listen": "127.0.0.1:0",
        "visitors": {"listen": "127.0.0.1:0", "domain": "localhost"},
        "tunnels": {"listen": "127.0.0.1:0", "server_names": ["localhost"]},
        "gateway": {
            "internal_url": "https://localhost",
            "public_url": "http://localhost",
            # Any readable file: nothing is made of them for a node that speaks plain HTTP and never starts.
            "ca": __file__,
            "certificate": __file__,
            "key": __file__,
        },
    }
    settings = from_table(NodeSettings, table, source=Path("documents.toml"))
    plain = replace(settings.gateway, internal_url="http://localhost")

    async def wired() -> Registry:
        return Node(settings, HttpGateway(InternalHttp(plain))).registry

    return asyncio.run(wired())


def ingest_registry() -> Registry:
    """Ingest's metrics, from one that is wired as it runs and never started."""
    table = {
        "ops_listen": "127.0.0.1:0",
        "broker": {"url": "mqtt://localhost"},
        "log": {"kind": "kafka", "servers": ["localhost:9092"]},
    }
    settings = from_table(IngestSettings, table, source=Path("documents.toml"))

    async def wired() -> Registry:
        return Ingest(settings, open_log(settings, None)[0]).registry

    return asyncio.run(wired())


def agent_registry() -> Registry:
    """An agent's metrics."""
    registry = Registry()
    agent_metrics(registry)
    message_metrics(registry)
    watch_agent(registry, tunnels=int, streams=int, grants=int, certificate_until=float)
    return registry


METRICS = (
    ("gateway", gateway_registry),
    ("tunnel_server", node_registry),
    ("ingest", ingest_registry),
    ("tunnel_agent", agent_registry),
)


def metrics_document() -> str:
    """Every metric of every service."""
    parts = [f"# Metrics\n\n{_HEAD}"]
    parts.append(
        "Each service answers `/metrics` on its `ops_listen` address, in Prometheus' text format.\n"
        "The agent does where that is set; by default it has no listener.\n"
    )
    for title, registry in METRICS:
        rows = [_metrics_row(metric) for metric in registry().describe()]
        parts.append(
            f"\n## {title}\n\n| metric | kind | labels | what it counts |\n|---|---|---|---|\n"
            + "".join(rows)
        )
    return "".join(parts)


def schema_document(name: str) -> str:
    """A published schema of the device protocol."""
    return json.dumps({"$schema": DRAFT, **PUBLISHED[name]}, indent=2, ensure_ascii=False) + "\n"


DOCUMENTS: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_document,
    "metrics.md": metrics_document,
    "api-reference.md": api_reference,
    "commands.md": lambda: commands_document(_HEAD),
    **{f"protocol/schemas/{name}.json": partial(schema_document, name) for name in PUBLISHED},
}


def main(argv: Sequence[str]) -> int:
    """Write the documents into the folder given."""
    folder = Path(argv[0])
    for name, text in DOCUMENTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
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
