"""The brokers that bridges are tried with; each bridge with its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.keys.signing import private_pem
from ingest.app import Ingest
from ingest.brokers.embedded import EmbeddedBroker
from ingest.brokers.topic_rule import BRIDGE
from ingest.settings import Settings
from runtime.event_log.interface import LogWriter
from runtime.settings import from_table
from testbed.mosquitto import Mosquitto
from testbed.processes import short_folder, started
from tests.ingest.world import until
from tests.mqtt_link.clients import Clients

SECRET = "bridge-secret"


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Mosquitto]:
    with short_folder("ingest") as folder, started(Mosquitto(folder)) as server:
        yield server


async def embedded_broker(port: int = 0) -> EmbeddedBroker:
    async def check(device: str, password: str) -> bool:
        return password == f"of-{device}"

    broker = EmbeddedBroker(check, {BRIDGE: SECRET}, port=port)
    await broker.start()
    return broker


@pytest.fixture
async def embedded() -> AsyncIterator[EmbeddedBroker]:
    broker = await embedded_broker()
    try:
        yield broker
    finally:
        await broker.close()


class Site:
    """One broker, with the bridges and devices at it."""

    def __init__(self, broker: Mosquitto | EmbeddedBroker, clients: Clients, folder: Path) -> None:
        self.broker = broker
        self.clients = clients
        self._folder = folder

    @asynccontextmanager
    async def bridge(self, log: LogWriter, **changes: Any) -> AsyncIterator[Ingest]:
        """Runs, and hears devices."""
        made = Ingest(self.settings(**changes), log)
        await made.start()
        try:
            await until("the bridge is ready", lambda: made.failed_checks() == [])
            yield made
        finally:
            await made.stop()
            assert not made.crashed

    def settings(self, **changes: Any) -> Settings:
        table = {"ops_listen": "127.0.0.1:0", "broker": self.broker_table()}
        # A log of the test's own is given in place of this one.
        table["log"] = {"kind": "kafka", "servers": ["127.0.0.1:1"]}
        return from_table(Settings, table | changes, source=self._folder / "ingest.toml")

    def broker_table(self) -> dict[str, Any]:
        """How a bridge reaches the broker."""
        broker = self.broker
        if isinstance(broker, EmbeddedBroker):
            password = self._folder / "password"
            password.write_text(f"{SECRET}\n")
            url = f"mqtt://127.0.0.1:{broker.port}"
            return {"url": url, "username": BRIDGE, "password_file": str(password)}
        issued = broker.internal.issue_client(
            BRIDGE, broker.internal.certificate.not_valid_before_utc.timestamp() + 60
        )
        assert issued.key is not None
        files = {name: self._folder / f"bridge.{name}" for name in ("ca", "certificate", "key")}
        files["ca"].write_text(broker.internal.pem())
        files["certificate"].write_bytes(issued.certificate_pem())
        files["key"].write_bytes(private_pem(issued.key))
        url = f"mqtts://127.0.0.1:{broker.internal_port}"
        return {"url": url} | {name: str(path) for name, path in files.items()}


@pytest.fixture(params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest) -> Mosquitto | EmbeddedBroker:
    found: Mosquitto | EmbeddedBroker = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def site(broker: Mosquitto | EmbeddedBroker, tmp_path: Path) -> AsyncIterator[Site]:
    async with Clients(broker) as clients:
        yield Site(broker, clients, tmp_path)
