"""From the owner's click to the broker: a real Mosquitto, and the keeper as ingest's settings name it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509

from gateway.keys.authority import Issued
from gateway.keys.keyring import load_keyring
from gateway.keys.node_certificates import issue_ingest_certificate
from ingest.app import open_keeper
from ingest.settings import Settings
from runtime.internal_http import InternalHttp
from runtime.mqtt_link import MqttGoneError, MqttLink, MqttOptions
from runtime.settings import from_table
from testbed.mosquitto import Mosquitto
from testbed.processes import short_folder, started
from testbed.waiting import eventually
from tests.gateway.test_devices import poll
from tests.gateway.world import World

GOAL_S = 2.0
"""From the commit to the end of the connection."""


def settings(world: World, mosquitto: Mosquitto, folder: Path) -> Settings:
    """As an operator writes them, with the certificate that the gateway's command makes."""
    keyring = load_keyring(world.settings.keys_dir, world.clock.wall())
    issue_ingest_certificate(keyring, "ingest", folder, world.clock.wall())
    pair = {"certificate": str(folder / "ingest.crt"), "key": str(folder / "ingest.key")}
    pair["ca"] = str(folder / "internal_ca.crt")
    table = {
        "ops_listen": "127.0.0.1:0",
        "broker": pair | {"url": f"mqtts://127.0.0.1:{mosquitto.internal_port}"},
        "gateway": pair | {"internal_url": f"https://localhost:{world.gateway.internal_address.port}"},
        "keeper": {"crl_file": str(mosquitto.crl), "pid_file": str(mosquitto.pid_file)},
    }
    return from_table(Settings, table, source=Path("ingest.toml"))


async def test_a_device_that_its_owner_revokes_leaves_the_broker(world: World, tmp_path: Path) -> None:
    keyring = load_keyring(world.settings.keys_dir, time.time())
    owner = await world.person("ada")
    device, other = await world.enrol(owner), await world.enrol(owner)
    with (
        short_folder("kept") as folder,
        started(Mosquitto(folder, devices=keyring.device_ca, internal=keyring.internal_ca)) as mosquitto,
    ):
        config = settings(world, mosquitto, tmp_path / "ingest")
        assert config.gateway is not None
        http = InternalHttp(config.gateway)
        keeper = open_keeper(config, None, http)
        assert keeper is not None
        task = asyncio.create_task(keeper.run())
        links = []
        try:
            for one in (device, other):
                told = (await poll(world, one)).json()["certificate"]
                found = x509.load_pem_x509_certificate(told.encode())
                tls = mosquitto.context(Issued(found, one.key))
                options = MqttOptions("127.0.0.1", mosquitto.port, one.id, tls=tls)
                links.append((options, await MqttLink.connect(options, print)))
            await asyncio.to_thread(eventually, "the keeper hears", lambda: keeper.is_fresh)
            assert (await owner.post(f"/v1/devices/{device.id}/revoke")).status_code == 200
            assert await asyncio.wait_for(links[0][1].wait_closed(), GOAL_S)
            with pytest.raises(MqttGoneError):
                await MqttLink.connect(links[0][0], print)
            assert links[1][1].reason == ""
        finally:
            for _, link in links:
                await link.close()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            http.close()
