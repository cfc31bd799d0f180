"""Certificates, CAs and passwords that change in their files while a process runs: its next dial has them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from gateway.commands.downlink import MqttDownlink
from gateway.commands.settings import BrokerSettings
from gateway.keys.authority import load_authority
from gateway.metrics import gateway_metrics
from ingest.brokers.embedded import EmbeddedBroker
from runtime.certificates import CertificateWatch
from runtime.clock import SYSTEM_CLOCK
from runtime.event_log.interface import UP, Entry, LogUnavailableError
from runtime.event_log.kafka import KafkaWriter, address_of
from runtime.event_log.settings import KafkaSettings
from runtime.metrics import Registry
from runtime.mqtt_link import MqttError, MqttLink, MqttOptions
from runtime.tasks import TaskOwner
from testbed.kafka import KafkaServer
from testbed.mosquitto import Mosquitto
from testbed.processes import short_folder, started
from tests.brokers.embedded import SECRETS
from tests.mqtt_link.clients import WAIT_S


def watch() -> CertificateWatch:
    return CertificateWatch(Registry(), wall=time.time)


async def test_at_the_broker(tmp_path: Path) -> None:
    """The CA that signed the broker's certificate is another one, then ours is renewed by the right one."""
    now = time.time()
    former = load_authority(tmp_path, "former", "Former", now)
    with short_folder("files") as folder:
        server = load_authority(folder, "server", "Server", now)
        with started(Mosquitto(folder, server=server)) as mosquitto:
            ca, certificate, key = (tmp_path / name for name in ("ca.pem", "client.crt", "client.key"))

            def show(authority: object) -> None:
                issued = authority.issue_client("ingest", now)  # type: ignore[attr-defined]
                certificate.write_bytes(issued.certificate_pem())
                key.write_bytes(issued.key_pem())

            show(former)
            ca.write_text(former.pem())
            url = f"mqtts://127.0.0.1:{mosquitto.internal_port}"
            settings = BrokerSettings(url, ca=ca, certificate=certificate, key=key)
            context, certificates = settings.tls(), watch()
            assert context is not None
            certificates.follow("broker", context, settings)
            options = MqttOptions(settings.host, settings.port, "ingest-0", tls=context)
            with pytest.raises(MqttError):
                await MqttLink.connect(options, print)
            ca.write_text("nonsense\n")
            certificates.reload()
            ca.write_text(former.pem() + server.pem())
            certificates.reload()
            with pytest.raises(MqttError):  # the broker trusts no certificate of that one
                await MqttLink.connect(options, print)
            show(mosquitto.internal)
            certificates.reload()
            await (await MqttLink.connect(options, print)).close()


async def test_of_the_downlink_a_password(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("the former one\n")
    settings = BrokerSettings(
        f"mqtt://127.0.0.1:{embedded.port}", username="gateway", password_file=password, version="3.1.1"
    )
    downlink = MqttDownlink(settings, SYSTEM_CLOCK, gateway_metrics(Registry()))
    there, tasks = asyncio.Event(), TaskOwner("test")
    downlink.on_connected = there.set
    running = tasks.start(downlink.run(), "downlink")
    try:
        for wrong in ("", "\n"):  # a file that is being written ends nothing
            password.write_text(wrong)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(there.wait(), 0.5)
        password.write_text(SECRETS["gateway"])
        await asyncio.wait_for(there.wait(), WAIT_S)
        assert not running.done()
    finally:
        await tasks.close(WAIT_S)


@pytest.mark.xdist_group("kafka")
async def test_at_kafka(kafka: KafkaServer, tmp_path: Path) -> None:
    tls = kafka.tls_address("renewed")
    assert tls.ca is not None
    assert tls.certificate is not None
    assert tls.key is not None
    now = time.time()
    former = load_authority(tmp_path, "former", "Former", now)
    issued = former.issue_client("ingest", now)
    ca, certificate, key = (tmp_path / name for name in ("ca.pem", "client.crt", "client.key"))
    ca.write_text(former.pem())
    certificate.write_bytes(issued.certificate_pem())
    key.write_bytes(issued.key_pem())
    settings = KafkaSettings(tls.servers, tls.prefix, ca, certificate, key)
    address, certificates = address_of(settings), watch()
    assert address.context is not None
    certificates.follow("log", address.context, settings)
    writer = KafkaWriter(address)
    try:
        with pytest.raises(LogUnavailableError):
            await writer.start()
        ca.write_bytes(tls.ca.read_bytes())
        certificate.write_bytes(tls.certificate.read_bytes())
        key.write_bytes(tls.key.read_bytes())
        certificates.reload()
        async with asyncio.timeout(WAIT_S):
            await writer.start()
            await writer.append(UP, 0, [Entry(b"d_a", b"x", int(now * 1000))])
    finally:
        await writer.close()
