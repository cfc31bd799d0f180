"""The settings files of the services for one machine, all on loopback."""

from __future__ import annotations

import os
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.private_files import write_private
from towline.data_folder import DataFolder
from towline.errors import TowlineError
from towline.gateway_client import Credentials
from towline.launcher.ports import Ports
from towline.toml_text import toml_text

NODE = "local"  # the one tunnel server node's name
ADMIN = "admin"
SECRET_BYTES = 24  # 192 bits: no rate limit needs to protect it
DEMO_SERVICE = "web"
# What the broker knows its two users by that are no devices.
INGEST_PASSWORD = "broker-ingest-password"
GATEWAY_PASSWORD = "broker-gateway-password"


@dataclass(frozen=True, slots=True)
class SessionSite:
    """Where sessions live: plain `*.localhost`, or TLS on a wildcard domain that leads to this machine."""

    domain: str = "localhost"
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        given = [self.domain != "localhost", self.certificate is not None, self.key is not None]
        if any(given) and not all(given):
            raise TowlineError("--tunnel-domain, --tunnel-certificate and --tunnel-key belong together")
        if self.certificate is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
            except OSError as error:  # ssl.SSLError is one
                raise TowlineError(
                    f"--tunnel-certificate {self.certificate}, --tunnel-key {self.key}: are not a certificate"
                    f" and its key in PEM ({error.strerror})"
                ) from error

    @property
    def scheme(self) -> str:
        return "http" if self.certificate is None else "https"


class ConfigFiles:
    """Writes DATA/config/*.toml and the secrets they name; the secrets are made once and stay."""

    def __init__(self, data: DataFolder, ports: Ports, site: SessionSite) -> None:
        self._data = data
        self._ports = ports
        self._site = site
        self.gateway = data.config / "gateway.toml"
        self.server = data.config / "server.toml"
        self.agent = data.config / "agent.toml"
        self.ingest = data.config / "ingest.toml"
        self.gateway_url = f"http://localhost:{ports.gateway}"

    @property
    def welcome_address(self) -> str:
        """What a person opens; the secret is in the fragment, which no server or log sees."""
        return f"{self.gateway_url}/welcome#{self._secret('welcome')}"

    def credentials(self) -> Credentials:
        return Credentials(self.gateway_url, ADMIN, self._secret("admin-password"))

    def write(self, database_url: str) -> None:
        """Write everything, as far as it is known before the services run."""
        self._secret("welcome")
        self.credentials().save(self._data)
        write_private(self._data.secrets / "database-url", (database_url + "\n").encode())
        self._write(self.gateway, self._gateway_table())
        self._write(self.server, self._server_table())
        self._write(self.agent, self._agent_table())
        self._secret(INGEST_PASSWORD)
        self._secret(GATEWAY_PASSWORD)
        self._write(self.ingest, self._ingest_table())

    def _gateway_table(self) -> dict[str, Any]:
        ports = self._ports
        return {
            "public_url": self.gateway_url,
            "public_listen": ports.at("gateway"),
            "internal_listen": ports.at("internal"),
            "ops_listen": ports.at("gateway_ops"),
            "keys_dir": self._data.keys,
            "agent_tunnel_urls": [self._tunnel_url()],
            "database_url_file": self._data.secrets / "database-url",
            "audit_heads_dir": self._data.audit_heads,
            "tunnel_scheme": self._site.scheme,
            "tunnel_domain": self._site.domain,
            "tunnel_port": ports.visitors,
            "admin_username": ADMIN,
            "admin_password_file": self._data.secrets / "admin-password",
            "welcome_secret_file": self._data.secrets / "welcome",
            "device_mqtt_url": self._broker_url(),
            "ingest_urls": [f"https://{ports.at('ingest')}"],
            "log": {"kind": "table"},
            "broker": {
                "url": self._broker_url(),
                "username": "gateway",
                "password_file": self._data.secrets / GATEWAY_PASSWORD,
                "version": "3.1.1",  # what the embedded broker speaks
            },
        }

    def _server_table(self) -> dict[str, Any]:
        ports, node = self._ports, self._data.node
        return {
            "node": NODE,
            "ops_listen": ports.at("server_ops"),
            "visitors": self._visitors_table(),
            "tunnels": {
                "listen": ports.at("agents"),
                "server_names": ["localhost"],
                "certificate": node / "agents.crt",
                "key": node / "agents.key",
            },
            "gateway": {
                "internal_url": f"https://{ports.at('internal')}",
                "public_url": self.gateway_url,
                "ca": node / "internal_ca.crt",
                "certificate": node / "node.crt",
                "key": node / "node.key",
            },
        }

    def _ingest_table(self) -> dict[str, Any]:
        ports, ingest = self._ports, self._data.ingest
        return {
            "ops_listen": ports.at("ingest_ops"),
            "broker": {
                "url": self._broker_url(),
                "username": "ingest",
                "password_file": self._data.secrets / INGEST_PASSWORD,
            },
            "embedded_broker": {
                "listen": ports.at("mqtt"),
                "gateway_password_file": self._data.secrets / GATEWAY_PASSWORD,
            },
            "gateway": {
                "internal_url": f"https://{ports.at('internal')}",
                "ca": ingest / "internal_ca.crt",
                "certificate": ingest / "ingest.crt",
                "key": ingest / "ingest.key",
            },
            "http": {
                "listen": ports.at("ingest"),
                "ca": ingest / "internal_ca.crt",
                "certificate": ingest / "listener.crt",
                "key": ingest / "listener.key",
            },
        }

    def _visitors_table(self) -> dict[str, Any]:
        table: dict[str, Any] = {"listen": self._ports.at("visitors"), "domain": self._site.domain}
        if self._site.certificate is not None and self._site.key is not None:
            table |= {"certificate": self._site.certificate.absolute(), "key": self._site.key.absolute()}
        return table

    def _agent_table(self) -> dict[str, Any]:
        ports = self._ports
        return {
            "state_dir": self._data.agent_state,
            # Written out, so that a later start with another --port needs no new enrolment.
            "server_urls": [self._tunnel_url()],
            "services": {DEMO_SERVICE: {"address": ports.at("demo"), "kind": "web", "host": "rewrite"}},
            "messages": {
                "enabled": True,
                "sources": {
                    "greenhouse": {
                        "url": f"http://{ports.at('demo')}/api/readings",
                        "keys": ["temperature", "humidity", "light", "vent"],
                        "sample_s": 2.0,
                        "report_s": 10.0,
                    }
                },
                "configuration": {
                    "keys": ["vent"],
                    "url": f"http://{ports.at('demo')}/api/configuration",
                },
            },
        }

    def _broker_url(self) -> str:
        return f"mqtt://{self._ports.at('mqtt')}"

    def _tunnel_url(self) -> str:
        return f"wss://localhost:{self._ports.agents}/tunnel"

    def _secret(self, name: str) -> str:
        """The text of DATA/secrets/NAME, made at the first use."""
        path = self._data.secrets / name
        if not path.exists():
            write_private(path, (secrets.token_urlsafe(SECRET_BYTES) + "\n").encode())
        return path.read_text("utf-8").strip()

    def _write(self, path: Path, table: Mapping[str, Any]) -> None:
        head = f"# Written by `towline up` (process {os.getpid()}) at each start: changes here are lost.\n"
        write_private(path, (head + toml_text(table)).encode())
