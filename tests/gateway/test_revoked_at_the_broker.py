"""From the owner's click to the broker, Mosquitto or the embedded one, by the keeper that settings name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from gateway.keys.authority import Issued
from gateway.keys.keyring import load_keyring
from gateway.keys.node_certificates import issue_ingest_certificate
from ingest.app import open_broker, open_keeper
from ingest.brokers.embedded import EmbeddedBroker
from ingest.settings import Settings
from runtime.clock import FakeClock
from runtime.internal_http import InternalHttp
from runtime.mqtt_link import MqttGoneError, MqttLink, MqttOptions, MqttRefusedError
from runtime.settings import from_table
from testbed.mosquitto import Mosquitto
from testbed.processes import short_folder, started
from testbed.waiting import eventually
from tests.gateway.test_device_connection import password_of
from tests.gateway.test_devices import poll
from tests.gateway.world import Device, World, settings_for

GOAL_S = 2.0
"""From the commit to the end of the connection."""


@pytest.fixture
async def world(tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock) -> AsyncIterator[World]:
    """It tells devices of a broker."""
    settings = settings_for(tmp_path, database_url, keys_dir, device_mqtt_url="mqtt://127.0.0.1:1883")
    running = World(settings, clock, tmp_path)
    await (await running.start()).prepared()
    yield running
    await running.close()


def settings(world: World, folder: Path, broker: str, **more: Any) -> Settings:
    """As an operator writes them, with the certificate that the gateway's command makes."""
    keyring = load_keyring(world.settings.keys_dir, world.clock.wall())
    issue_ingest_certificate(keyring, "ingest", folder, world.clock.wall())
    pair = {"certificate": str(folder / "ingest.crt"), "key": str(folder / "ingest.key")}
    pair["ca"] = str(folder / "internal_ca.crt")
    table = {
        "ops_listen": "127.0.0.1:0",
        "broker": (pair if broker.startswith("mqtts") else {}) | {"url": broker},
        "gateway": pair | {"internal_url": f"https://localhost:{world.gateway.internal_address.port}"},
    }
    return from_table(Settings, table | more, source=Path("ingest.toml"))


@asynccontextmanager
async def keeping(
    config: Settings, http: InternalHttp, embedded: EmbeddedBroker | None
) -> AsyncIterator[None]:
    """The keeper of these settings, once it hears the gateway."""
    keeper = open_keeper(config, embedded, http)
    assert keeper is not None
    task = asyncio.create_task(keeper.run())
    try:
        await asyncio.to_thread(eventually, "the keeper hears", lambda: keeper.is_fresh)
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        http.close()


async def revoked(owner: httpx.AsyncClient, device: Device, links: dict[str, MqttLink]) -> None:
    assert (await owner.post(f"/v1/devices/{device.id}/revoke")).status_code == 200
    assert await asyncio.wait_for(links[device.id].wait_closed(), GOAL_S)
    assert [link.reason for id_, link in links.items() if id_ != device.id] == [""]


async def test_a_revoked_device_leaves_mosquitto(world: World, tmp_path: Path) -> None:
    keyring = load_keyring(world.settings.keys_dir, world.clock.wall())
    owner = await world.person("ada")
    devices = [await world.enrol(owner), await world.enrol(owner)]
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(short_folder("kept"))
        mosquitto = Mosquitto(folder, devices=keyring.device_ca, internal=keyring.internal_ca)
        stack.enter_context(started(mosquitto))
        kept = {"crl_file": str(mosquitto.crl), "pid_file": str(mosquitto.pid_file)}
        broker = f"mqtts://127.0.0.1:{mosquitto.internal_port}"
        config = settings(world, tmp_path / "ingest", broker, keeper=kept)
        assert config.gateway is not None
        await stack.enter_async_context(keeping(config, InternalHttp(config.gateway), None))
        links, options = {}, {}
        for device in devices:
            told = (await poll(world, device)).json()["certificate"]
            shown = Issued(x509.load_pem_x509_certificate(told.encode()), device.key)
            tls = mosquitto.context(shown)
            options[device.id] = MqttOptions("127.0.0.1", mosquitto.port, device.id, tls=tls)
            links[device.id] = await MqttLink.connect(options[device.id], print)
            stack.push_async_callback(links[device.id].close)
        await revoked(owner, devices[0], links)
        with pytest.raises(MqttGoneError):
            await MqttLink.connect(options[devices[0].id], print)


async def test_a_revoked_device_leaves_the_embedded_broker(world: World, tmp_path: Path) -> None:
    owner = await world.person("ada")
    devices = [await world.enrol(owner), await world.enrol(owner)]
    secret = tmp_path / "secret"
    secret.write_text("of-the-gateway")
    own = {"listen": "127.0.0.1:0", "gateway_password_file": str(secret)}
    config = settings(world, tmp_path / "ingest", "mqtt://127.0.0.1:1883", embedded_broker=own)
    assert config.gateway is not None
    http = InternalHttp(config.gateway)
    broker = open_broker(config, http)
    assert broker is not None
    await broker.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(broker.close)
        await stack.enter_async_context(keeping(config, http, broker))
        links, options = {}, {}
        for device in devices:
            password = await password_of(world, device)
            options[device.id] = MqttOptions(
                "127.0.0.1", broker.port, device.id, username=device.id, password=password
            )
            links[device.id] = await MqttLink.connect(options[device.id], print)
            stack.push_async_callback(links[device.id].close)
        await revoked(owner, devices[0], links)
        with pytest.raises(MqttRefusedError, match="code 5"):
            await MqttLink.connect(options[devices[0].id], print)
