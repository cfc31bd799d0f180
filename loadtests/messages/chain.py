"""The message side as it runs where many devices speak: every part a process, and on this one machine.

Mosquitto with the devices' certificates (infra/mosquitto), bridges, Kafka (acks=all), a consumer apart from
the gateway, PostgreSQL that syncs each commit. Made of the same parts as the tests'.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from gateway.keys.keyring import Keyring, load_keyring
from loadtests.measure import family_cpu_ms, pss_kib, rss_kib
from loadtests.messages.rows import Rows
from loadtests.messages.talkers import Login, Order
from loadtests.seeding import SeededDevice, new_device, write_devices
from testbed import ops
from testbed.gateways import Gateways
from testbed.kafka import LASTING, KafkaServer
from testbed.mosquitto import Mosquitto
from testbed.people import Person
from testbed.ports import LOOPBACK, free_port
from testbed.postgres_server import PostgresServer
from testbed.processes import started
from testbed.programs import family
from testbed.services import enrol, service_argv
from testbed.settings_tables import ADMIN, agent_table, write_table

POSTGRES: Final = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",  # a checkpoint by time, not by what a benchmark writes
    "track_commit_timestamp": "on",  # from which the way to a row is counted
}
PREFIX: Final = "bench"
READY_S: Final = 60.0
AGENT: Final = "commanded"
NOBODY: Final = 9  # the port of a service that nobody visits: an agent has at least one


class Chain:
    """The running parts. `pids`: by name, of what costs CPU and memory."""

    def __init__(
        self,
        folder: Path,
        gateways: Gateways,
        mosquitto: Mosquitto,
        rows: Rows,
        pids: Mapping[str, Sequence[int]],
    ) -> None:
        self.folder = folder
        self.gateways = gateways
        self.rows = rows
        self.pids = pids
        self._mosquitto = mosquitto

    def spent_ms(self) -> dict[str, float]:
        """CPU-ms of each part so far."""
        return {name: sum(map(family_cpu_ms, pids)) for name, pids in self.pids.items()}

    def rss_mib(self) -> dict[str, float]:
        """Resident memory of each part now; what PostgreSQL's processes share counts once."""
        return {name: sum(map(_resident_kib, pids)) / 1024 for name, pids in self.pids.items()}

    def devices(self, number: int) -> Order:
        """So many new devices with their certificates."""
        made = [new_device() for _ in range(number)]
        asyncio.run(write_devices(self.rows.url, ADMIN, made))
        place = self.rows.prefix(made[0].id).rpartition("/")[0]
        return Order(
            LOOPBACK,
            self._mosquitto.port,
            (self.folder / "broker-ca.pem").read_text(),
            [Login(one.id, f"{place}/{one.id}", str(self._shown(one))) for one in made],
        )

    def _shown(self, device: SeededDevice) -> Path:
        issued = self._mosquitto.issue_device(device.id)
        path = self.folder / "devices" / f"{device.id}.pem"
        path.write_bytes(issued.certificate_pem() + issued.key_pem())
        return path


@contextmanager
def message_chain(folder: Path, bridges: int = 1) -> Iterator[Chain]:
    """Starts everything below `folder`, and ends it."""
    (folder / "devices").mkdir(parents=True)
    with ExitStack() as stack:
        keyring = load_keyring(folder / "keys", time.time(), serves=False)
        kafka = stack.enter_context(started(KafkaServer(_folder(folder, "kafka"), LASTING)))
        postgres = PostgresServer(_folder(folder, "pg"), POSTGRES)
        asyncio.run(postgres.start())
        stack.callback(postgres.stop)
        url = postgres.url(postgres.create_database())
        mosquitto = stack.enter_context(started(_broker(_folder(folder, "broker"), keyring)))
        (folder / "broker-ca.pem").write_text(keyring.server_ca.pem())
        log = {"kind": "kafka", "servers": [f"{LOOPBACK}:{kafka.port}"], "prefix": PREFIX}
        consumer_ops = free_port()
        settings = {
            "log": log,
            "consumer": "apart",
            "consumer_ops_listen": f"{LOOPBACK}:{consumer_ops}",
            "device_mqtt_url": f"mqtts://{LOOPBACK}:{mosquitto.port}",
            "broker": _broker_table(folder, keyring, mosquitto, "gateway"),
        }
        gateways = stack.enter_context(started(Gateways(folder, settings=settings, database_url=url)))
        run, wait = gateways.processes.run, gateways.processes.wait_ready
        consume = [sys.executable, "-m", "gateway", "consume", "--config", str(gateways.config())]
        run("consumer", consume)
        wait("consumer", lambda: ops.is_ready(consumer_ops))
        for number in range(bridges):
            _bridge(
                folder, gateways, number, bridges, log, _broker_table(folder, keyring, mosquitto, "ingest")
            )
        pids = {
            "mosquitto": (mosquitto.pid,),
            "bridge": tuple(gateways.processes.pid(f"bridge-{number}") for number in range(bridges)),
            "kafka": (kafka.pid,),
            "consumer": (gateways.processes.pid("consumer"),),
            "postgres": (postgres.pid,),
            "gateway": (gateways.processes.pid("gateway-0"),),
        }
        rows = stack.enter_context(closing(Rows(url)))
        yield Chain(folder, gateways, mosquitto, rows, pids)


@contextmanager
def agent(chain: Chain) -> Iterator[tuple[Person, str]]:
    """A real agent that takes commands; its owner, who is logged in, and its id."""
    owner = chain.gateways.owner()
    table = agent_table(chain.folder / "agent-state", {"none": NOBODY}, messages={"enabled": True})
    config = write_table(chain.folder / "agent.toml", table)
    token = owner.registration_token()
    device = enrol(chain.gateways.url, token, config, hardware_id=AGENT, name=AGENT)
    chain.gateways.processes.run("agent", service_argv("tunnel_agent", config))
    yield owner, device
    chain.gateways.processes.stop("agent")


def _bridge(
    folder: Path, gateways: Gateways, number: int, of: int, log: Mapping[str, Any], broker: Mapping[str, Any]
) -> None:
    name, port = f"bridge-{number}", free_port()
    table = {
        "ops_listen": f"{LOOPBACK}:{port}",
        "bridge": number,
        "bridges": of,
        "broker": broker,
        "log": log,
    }
    config = write_table(folder / f"{name}.toml", table)
    gateways.processes.run(name, service_argv("ingest", config))
    gateways.processes.wait_ready(name, lambda: ops.is_ready(port), READY_S)


def _broker(folder: Path, keyring: Keyring) -> Mosquitto:
    """It shows a certificate that agents trust, as one in production does."""
    broker = Mosquitto(folder, devices=keyring.device_ca, internal=keyring.internal_ca)
    shown = keyring.server_ca.issue_server("broker", [LOOPBACK, "localhost"], time.time())
    (folder / "broker.pem").write_bytes(shown.certificate_pem())
    (folder / "broker.key").write_bytes(shown.key_pem())
    return broker


def _broker_table(folder: Path, keyring: Keyring, broker: Mosquitto, name: str) -> dict[str, Any]:
    """How a service reaches the internal listener."""
    issued = keyring.internal_ca.issue_client(name, time.time())
    (folder / f"{name}.crt").write_bytes(issued.certificate_pem())
    (folder / f"{name}.key").write_bytes(issued.key_pem())
    return {
        "url": f"mqtts://{LOOPBACK}:{broker.internal_port}",
        "ca": folder / "broker-ca.pem",
        "certificate": folder / f"{name}.crt",
        "key": folder / f"{name}.key",
    }


def _resident_kib(pid: int) -> int:
    found = family(pid)
    if len(found) == 1:
        return rss_kib(pid)
    total = 0
    for one in found:
        with suppress(FileNotFoundError):  # it ended meanwhile
            total += pss_kib(one)
    return total


def _folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    (parent / name).chmod(0o755)
    return parent / name
