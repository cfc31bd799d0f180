"""A tunnel server in a process of its own, with a gateway in memory: what attackers are let loose on.

`python -m tests.hostile.node_process FOLDER SETTINGS`: FOLDER holds chain.pem and key.pem, SETTINGS is JSON:
`tunnels` for the devices' listener, `visitors` and `limits` for the visitors' (`"tls": true`: with the same
certificate). The first line on stdout is the addresses as JSON; after that every connection to the control
port sends one line of JSON and gets one.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from runtime import logs
from runtime.process import Shutdown, run_loop
from tests.tunnel_server.conftest import settings
from tests.tunnel_server.doubles import MemoryGateway
from tunnel_server.app import Node
from tunnel_server.control.gateway import DeviceFacts
from tunnel_server.settings import VisitorLimits

SESSION_S = 7_200.0  # longer than any run, the soak's too
HANDSHAKE_S = 2.0  # a handshake without an end shall be seen to end within the test


class Gateway(MemoryGateway):
    """Keeps no report but the newest: what tests keep must not look like the server's memory."""

    async def report_presence(self, report: dict[str, Any]) -> bool:
        self.reports.clear()
        return await super().report_presence(report)


class Control:
    """What tests may ask of the process."""

    def __init__(self, node: Node, gateway: Gateway) -> None:
        self._node = node
        self._gateway = gateway

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(await reader.readline())
        answer = getattr(self, asked.pop("call"))(**asked)
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    def add_device(self, device: str, public_key: str) -> None:
        self._gateway.devices[device] = DeviceFacts(device, device, bytes.fromhex(public_key))

    def add_session(self, device: str, label: str) -> dict[str, str]:
        sid, cookie = self._gateway.add_session(label=label, device_id=device, life_s=SESSION_S)
        return {"sid": sid, "cookie": cookie.decode()}

    def state(self) -> dict[str, Any]:
        node = self._node
        return {
            "tunnels": {
                device: len(found.tunnels)
                for device, found in node.devices._devices.items()  # one test process, one question
            },
            "connections": len(node.tunnels._tunnels),
            "handshakes": len(node.tunnels._handshakes),
            "visitors": len(node.edge.connections),
            "visitor_handshakes": node.edge.in_handshake,
            "resolved": self._gateway.resolved,
        }

    def metrics(self) -> str:
        return self._node.registry.render().decode()


async def main(folder: Path, overrides: dict[str, Any]) -> None:
    """Until SIGTERM."""
    logs.configure("tunnel_server", "info")
    pem = {"certificate": folder / "chain.pem", "key": folder / "key.pem"}
    visitors = overrides["visitors"]
    if visitors.pop("tls", False):
        visitors |= pem
    config = settings(
        tunnels=pem | {"handshake_s": HANDSHAKE_S} | overrides["tunnels"],
        visitors=visitors,
        limits=VisitorLimits(**({"resolves_per_s": 1000.0} | overrides["limits"])),
        drain_s=0.5,
    )
    gateway = Gateway()
    node = Node(config, gateway)
    shutdown = Shutdown().install()
    await node.start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, node.certificates.reload)
    control = await asyncio.start_server(Control(node, gateway).serve, "127.0.0.1", 0)
    ports = {
        "tunnels": node.tunnels.address.port,
        "visitors": node.visitors.address.port,
        "control": control.sockets[0].getsockname()[1],
    }
    print(json.dumps(ports), flush=True)
    try:
        await shutdown.requested.wait()
    finally:
        control.close()
        await node.stop()


if __name__ == "__main__":
    sys.exit(run_loop("hostile_node", main(Path(sys.argv[1]), json.loads(sys.argv[2]))))
