"""The least that lets somebody open a device: a gateway, a node, agents of a demo device.

::

    with started(SmallSite(folder, settings={"native_clients": …}, redis=True)) as site:
        device = site.add_device("Greenhouse")
        site.gateways.owner().open_session(device)

Each process is started by its own command and settings file, over plain `*.localhost`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed import ops
from testbed.gateways import Gateways
from testbed.people import Person
from testbed.ports import LOOPBACK, free_ports
from testbed.processes import START_S
from testbed.redis_server import RedisServer
from testbed.services import enrol, issue_node_certificate, service_argv
from testbed.settings_tables import NodePorts, agent_table, node_table, write_table
from testbed.waiting import eventually

NODE = "node"


class SmallSite:
    """`start` it and `close` it. The processes: gateway-0, node, demo, and an agent for each device."""

    def __init__(
        self, folder: Path, *, settings: Mapping[str, Any] | None = None, redis: bool = False
    ) -> None:
        """`settings` are added to the gateway's; with `redis` it keeps what is short-lived in one of its own.

        `folder` needs a short path: PostgreSQL's socket is below it.
        """
        self.folder = folder
        self.node = NodePorts(*free_ports(3))
        self.redis = RedisServer(folder) if redis else None
        own: dict[str, Any] = {
            "agent_tunnel_urls": [f"wss://localhost:{self.node.devices}/tunnel"],
            "tunnel_scheme": "http",
            "tunnel_port": self.node.visitors,
            **(settings or {}),
        }
        if self.redis is not None:
            own["redis_url"] = self.redis.url()
        self.gateways = Gateways(folder, settings=own)
        self.processes = self.gateways.processes
        self._demo_port = 0  # known once the demo device runs

    @property
    def url(self) -> str:
        """The gateway's public URL."""
        return self.gateways.url

    def start(self) -> None:
        if self.redis is not None:
            self.redis.start()
        self.gateways.start()
        self.processes.run(NODE, service_argv("tunnel_server", self._node_config()))
        self.processes.wait_ready(NODE, lambda: ops.is_ready(self.node.ops))
        self._start_demo()

    def _node_config(self) -> Path:
        certificates = issue_node_certificate(
            self.gateways.config(), NODE, self.folder / "certificates", ["localhost"]
        )
        table = node_table(
            certificates,
            NODE,
            self.node.ops,
            internal_port=self.gateways.ports[0].internal,
            gateway_url=self.url,
            visitors={
                "listen": f"{LOOPBACK}:{self.node.visitors}",
                "domain": "localhost",
                "trusted_proxies": [LOOPBACK],
            },
            tunnels={"listen": f"{LOOPBACK}:{self.node.devices}", "server_names": ["localhost"]},
        )
        return write_table(self.folder / "node.toml", table)

    def _start_demo(self) -> None:
        file = self.folder / "demo-port"
        argv = ["-m", "demo_device", "--data", str(self.folder / "demo"), "--port-file", str(file)]
        self.processes.run("demo", [sys.executable, *argv])
        self._demo_port = int(
            eventually("the demo device", lambda: file.exists() and file.read_text().strip(), START_S)
        )

    def add_device(self, name: str, owner: Person, *, tcp: bool = False) -> str:
        """One more agent in front of the demo device, enrolled for the owner and online; its id.

        The demo device is the service `web` and, with `tcp`, the service `tcp` of that kind too.
        """
        services: dict[str, int | Mapping[str, Any]] = {"web": self._demo_port}
        if tcp:
            services["tcp"] = {"address": f"{LOOPBACK}:{self._demo_port}", "kind": "tcp"}
        table = agent_table(self.folder / f"{name}-state", services)
        config = write_table(self.folder / f"{name}.toml", table)
        token = owner.registration_token()
        device = enrol(self.url, token, config, name=name, hardware_id=name)
        self.processes.run(f"agent-{name}", service_argv("tunnel_agent", config))
        self.wait_online(device, owner)
        return device

    def wait_online(self, device: str, owner: Person) -> None:
        """Until the gateway says so: of one that was away it hears with its node's next report."""
        eventually(
            f"{device} is online", lambda: owner.call("GET", f"/v1/devices/{device}")["online"], START_S
        )

    def start_gateway(self) -> None:
        """After it was killed. When this returns the node hears it: revocations arrive, people are let in."""
        log = self.folder / f"{NODE}.log"
        heard = ops.feeds_heard(log)
        self.processes.again("gateway-0")
        self.gateways.wait_ready("gateway-0")
        eventually("the node hears the gateway", lambda: ops.feeds_heard(log) > heard)

    def restart_gateway(self) -> None:
        """Killed and started again; what it held in memory is gone."""
        self.processes.kill("gateway-0")
        self.start_gateway()

    def logs(self) -> str:
        return self.gateways.logs()

    def close(self) -> None:
        try:
            self.gateways.close()
        finally:
            if self.redis is not None:
                self.redis.stop()
