"""A simulator's messages over TLS: gateway, a bridge, Mosquitto that asks for certificates, the device.

::

    with started(SimulatorSite(folder, program)) as site:
        site.kill_device()
        site.settled()
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any, Final

import asyncpg

from gateway.keys.authority import Authority
from gateway.keys.keyring import load_keyring
from gateway.keys.signing import private_pem
from testbed import ops
from testbed.gateways import Gateways
from testbed.mosquitto import Mosquitto
from testbed.people import Person
from testbed.ports import LOOPBACK, free_port
from testbed.postgres_server import PostgresServer
from testbed.processes import log_ends
from testbed.services import service_argv
from testbed.settings_tables import write_table
from testbed.waiting import eventually

DEVICE: Final = "device"
BRIDGE: Final = "bridge"
SETTLED_S: Final = 120.0
"""A device waits up to 60 s after an end of its connection, and as long again for an answer to its hello."""


class SimulatorSite:
    """`start` it and `close` it. The device tells its health each second."""

    def __init__(self, folder: Path, program: Path, *options: str) -> None:
        """`folder` needs a short path; `program` is towline-device, `options` are more of its."""
        self.folder = folder
        self.device = ""
        """Its id."""
        self.owner: Person
        self.mosquitto: Mosquitto
        self.gateways: Gateways
        self._program = program
        self._options = options
        self._postgres = PostgresServer(_made(folder / "pg"))
        self._database_url = ""
        self._bridge_ops = free_port()
        self._page = free_port()

    def start(self) -> None:
        asyncio.run(self._postgres.start())
        self._database_url = self._postgres.url(self._postgres.create_database())
        keyring = load_keyring(self.folder / "keys", time.time(), serves=False)
        self.mosquitto = Mosquitto(
            _made(self.folder / "mosquitto"),
            devices=keyring.device_ca,
            internal=keyring.internal_ca,
            server=keyring.server_ca,
        )
        self.mosquitto.start()
        for name in ("ingest", "gateway"):
            _issue(keyring.internal_ca, name, self.folder)
        (self.folder / "broker-ca.pem").write_text(keyring.server_ca.pem())
        (self.folder / "internal-ca.pem").write_text(keyring.internal_ca.pem())
        settings = {
            "device_mqtt_url": f"mqtts://{LOOPBACK}:{self.mosquitto.port}",
            "broker": self._broker_table("gateway"),
            "log": {"kind": "table"},
        }
        self.gateways = Gateways(self.folder, settings=settings, database_url=self._database_url)
        self.gateways.start()
        self._start_bridge()
        self.owner = self.gateways.owner()
        self.device = self._start_device()
        self.configure({"health_every_s": 1, "report_s": 5})

    def close(self) -> None:
        try:
            self.gateways.close()
        finally:
            self.mosquitto.close()
            self._postgres.stop()

    def logs(self) -> str:
        return "\n".join(log_ends(folder) for folder in (self.folder, self.folder / "mosquitto"))

    def _broker_table(self, name: str) -> dict[str, Any]:
        return {
            "url": f"mqtts://{LOOPBACK}:{self.mosquitto.internal_port}",
            "ca": self.folder / "broker-ca.pem",
            "certificate": self.folder / f"{name}.crt",
            "key": self.folder / f"{name}.key",
        }

    def _start_bridge(self) -> None:
        table = {
            "ops_listen": f"{LOOPBACK}:{self._bridge_ops}",
            "broker": self._broker_table("ingest"),
            "gateway": {
                "internal_url": f"https://{LOOPBACK}:{self.gateways.ports[0].internal}",
                "ca": self.folder / "internal-ca.pem",
                "certificate": self.folder / "ingest.crt",
                "key": self.folder / "ingest.key",
            },
        }
        config = write_table(self.folder / "bridge.toml", table)
        self.gateways.processes.run(BRIDGE, service_argv("ingest", config))
        self.gateways.processes.wait_ready(BRIDGE, lambda: ops.is_ready(self._bridge_ops))

    def _start_device(self) -> str:
        wish = {"approve": True, "type": "esp32"}
        token = self.folder / "token"
        token.write_text(self.owner.call("POST", "/v1/registration-tokens", wish)["token"])
        options = ["--data", self.folder / "data", "--listen", f"{LOOPBACK}:{self._page}", "--name", "Soil"]
        options += ["--gateway", self.gateways.url, "--token-file", token]
        argv = [str(word) for word in (self._program, *options, *self._options)]
        # A process of the sanitizers' build: what they find ends it with a code of its own.
        self.gateways.processes.run(DEVICE, argv)
        eventually("the device is there", lambda: self.owner.devices(), SETTLED_S)
        return str(self.owner.device("Soil")["id"])

    # What is done to it

    def kill_device(self) -> None:
        """kill -9, and started again."""
        self.gateways.processes.check_runs(DEVICE)
        self.gateways.processes.kill(DEVICE)
        self.gateways.processes.again(DEVICE)

    def kill_broker(self) -> None:
        self.mosquitto.kill()
        self.mosquitto.start()

    def configure(self, body: dict[str, Any]) -> int:
        """Wants another one; its version."""
        answer = self.owner.call("PUT", f"/v1/devices/{self.device}/configuration", {"body": body})
        return int(answer["desired"]["version"])

    def command(self, name: str, params: dict[str, Any] | None = None) -> str:
        """Sends one; its id."""
        body = {"name": name, "params": params or {}, "ttl_s": 300}
        return str(self.owner.call("POST", f"/v1/devices/{self.device}/commands", body)["id"])

    def outcome(self, command: str) -> dict[str, Any]:
        """Once it has ended."""

        def ended() -> dict[str, Any]:
            found: dict[str, Any] = self.owner.call("GET", f"/v1/commands/{command}")
            return found if found["state"] not in ("queued", "sent", "delivered") else {}

        return eventually(f"the end of {command}", ended, SETTLED_S)

    # What became of it

    def rows(self) -> list[tuple[int, int, str, str]]:
        """Everything that was ever kept of it, in order: boot, seq, id, kind."""
        query = "SELECT boot, seq, id::text, kind FROM device_history WHERE device_id = $1 ORDER BY boot, seq"
        return [tuple(row) for row in self._fetch(query, self.device)]

    def hello(self) -> dict[str, Any]:
        """What it said last when it connected."""
        [row] = self._fetch("SELECT hello FROM device_connections WHERE device_id = $1", self.device)
        return dict(row["hello"] or {})

    def goes_on(self, more: int = 3) -> None:
        """So many more messages are kept than now."""
        known = len(self.rows())
        eventually("more is kept", lambda: len(self.rows()) >= known + more, SETTLED_S)

    def starts(self) -> int:
        """How often its software began."""
        return (self.folder / f"{DEVICE}.log").read_text(errors="replace").count("started: towline-firmware")

    def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        async def ask() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self._database_url)
            try:
                await connection.set_type_codec("jsonb", encoder=str, decoder=json.loads, schema="pg_catalog")
                found: list[asyncpg.Record] = await connection.fetch(query, *arguments)
                return found
            finally:
                await connection.close()

        return asyncio.run(ask())


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _issue(authority: Authority, name: str, folder: Path) -> None:
    """NAME.crt and NAME.key, of a client."""
    issued = authority.issue_client(name, time.time(), unit=name)
    assert issued.key is not None
    (folder / f"{name}.crt").write_bytes(issued.certificate_pem())
    (folder / f"{name}.key").write_bytes(private_pem(issued.key))
