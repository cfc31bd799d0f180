"""The settings files that the runbook shows are ones that the services take."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from gateway.settings import Settings as GatewaySettings
from runtime.settings import from_table
from tunnel_server.settings import Settings as NodeSettings

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
FILES = {"certificate", "key", "ca"}


def shown(start: str) -> dict[str, Any]:
    blocks = re.findall(r"```toml\n(.*?)```", RUNBOOK.read_text("utf-8"), re.DOTALL)
    (block,) = [text for text in blocks if text.startswith(start)]
    return tomllib.loads(block)


def with_files(table: dict[str, Any], file: str) -> dict[str, Any]:
    """Certificates must be there when settings are read: any file is."""
    return {
        name: with_files(value, file) if isinstance(value, dict) else file if name in FILES else value
        for name, value in table.items()
    }


def test_the_gateways() -> None:
    settings = from_table(GatewaySettings, shown("# gateway.toml"), source=RUNBOOK)
    assert settings.secure
    assert settings.trusted_proxies == ("10.0.0.1",)


def test_login_providers() -> None:
    table = shown("# gateway.toml") | shown("# login providers")
    providers = from_table(GatewaySettings, table, source=RUNBOOK).login_providers
    assert {name: one.shown(name) for name, one in providers.items()} == {
        "google": "Google",
        "works": "The Works",
    }
    assert not providers["works"].sign_up


def test_a_nodes_both_ways() -> None:
    table = with_files(shown("# node-a.toml"), __file__)
    behind = from_table(NodeSettings, table, source=RUNBOOK)
    assert behind.visitors.scheme == "https"
    own_tls = {"certificate": __file__, "key": __file__, "proxy_protocol": True}
    visitors = {name: value for name, value in table["visitors"].items() if name != "behind_tls"} | own_tls
    tunnels = table["tunnels"] | {"proxy_protocol": True}
    passed = from_table(NodeSettings, table | {"visitors": visitors, "tunnels": tunnels}, source=RUNBOOK)
    assert passed.visitors.scheme == "https"
