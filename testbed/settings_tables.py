"""What stands in the services' settings files; whatever a run wants otherwise it adds or replaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.ports import LOOPBACK, free_ports
from towline.toml_text import toml_text

PASSWORD = "correct horse battery staple"
ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class GatewayPorts:
    public: int
    internal: int
    ops: int

    @classmethod
    def free(cls) -> GatewayPorts:
        return cls(*free_ports(3))


@dataclass(frozen=True, slots=True)
class NodePorts:
    visitors: int
    devices: int
    ops: int


def write_table(path: Path, table: Mapping[str, Any]) -> Path:
    path.write_text(toml_text(table))
    return path


def gateway_table(
    folder: Path,
    ports: GatewayPorts,
    *,
    public_url: str,
    database_url: str,
    tunnel_urls: Sequence[str],
    **more: Any,
) -> dict[str, Any]:
    """A gateway whose keys, administrator's password and database address lie in `folder`."""
    (folder / "password").write_text(PASSWORD)
    (folder / "database").write_text(database_url)
    return {
        "public_url": public_url,
        "public_listen": f"{LOOPBACK}:{ports.public}",
        "internal_listen": f"{LOOPBACK}:{ports.internal}",
        "ops_listen": f"{LOOPBACK}:{ports.ops}",
        "keys_dir": folder / "keys",
        "database_url_file": folder / "database",
        "agent_tunnel_urls": list(tunnel_urls),
        "admin_username": ADMIN,
        "admin_password_file": folder / "password",
        **more,
    }


def node_table(
    certificates: Path,
    name: str,
    ops: int,
    *,
    internal_port: int,
    gateway_url: str,
    visitors: Mapping[str, Any],
    tunnels: Mapping[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """A node with the certificates that `issue_node_certificate` wrote; `tunnels` may name others."""
    return {
        "node": name,
        "ops_listen": f"{LOOPBACK}:{ops}",
        "visitors": dict(visitors),
        "tunnels": {
            "certificate": certificates / "agents.crt",
            "key": certificates / "agents.key",
            **tunnels,
        },
        "gateway": {
            "internal_url": f"https://{LOOPBACK}:{internal_port}",
            "public_url": gateway_url,
            "ca": certificates / "internal_ca.crt",
            "certificate": certificates / "node.crt",
            "key": certificates / "node.key",
        },
        **more,
    }


def agent_table(
    state: Path | str, services: Mapping[str, int | Mapping[str, Any]], **more: Any
) -> dict[str, Any]:
    """An agent; a service is its port on loopback, or its own table."""
    tables = {
        name: {"address": f"{LOOPBACK}:{service}"} if isinstance(service, int) else dict(service)
        for name, service in services.items()
    }
    return {"state_dir": state, **more, "services": tables}
