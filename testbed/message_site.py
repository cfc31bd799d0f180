"""Everything that a message and a command pass, in real processes, each of which may be killed.

::

    with started(MessageSite(folder)) as site:
        site.kill("kafka")
        site.goes_on()

Mosquitto with both its listeners (mTLS, infra/mosquitto's own configuration), Kafka (mTLS), PostgreSQL,
Redis, two bridges, a gateway with its consumer apart, an agent, and a process of many devices
(testbed.message_devices).
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg

from gateway.keys.authority import Authority
from gateway.keys.keyring import Keyring, load_keyring
from gateway.keys.signing import private_pem
from ingest.policy.sharing import is_ours
from testbed import ops
from testbed.gateways import Gateways
from testbed.kafka import KafkaServer
from testbed.message_devices import NOTE, Plan, note_program
from testbed.mosquitto import Mosquitto
from testbed.people import Person
from testbed.ports import LOOPBACK, free_ports
from testbed.postgres_server import PostgresServer
from testbed.processes import Processes, log_ends
from testbed.redis_server import RedisServer
from testbed.services import service_argv
from testbed.settings_tables import agent_table, write_table
from testbed.waiting import eventually
from tunnel_agent.enrolment import Enrolment, EnrolmentRequest
from tunnel_agent.identity import IdentityStore
from tunnel_agent.version import SOFTWARE

BRIDGES: Final = 2
KAFKA_PREFIX: Final = "site"
AGENT: Final = "agent"
DEVICES: Final = "devices"
CONSUMER: Final = "consumer"
POSTGRES_AGAIN_S: Final = 30.0
"""A killed postmaster's backends are gone by then, and the new one may have the memory that they shared."""
RECOVERY_S: Final = 90.0
SILENT_S: Final = 86_400
APPROVED_S: Final = 30.0


class MessageSite:
    """`start` it and `close` it. What can be killed: `kinds`."""

    def __init__(
        self,
        folder: Path,
        *,
        devices: int = 20,
        sources: Mapping[str, Mapping[str, Any]] | None = None,
        bridges: Mapping[str, Any] | None = None,
    ) -> None:
        """`folder` needs a short path. `sources`: of the agent. `bridges`: more of their settings."""
        self.folder = folder
        self.kafka = KafkaServer(_made(folder / "kafka"))
        self.postgres = PostgresServer(_made(folder / "pg"))
        self.redis = RedisServer(folder)
        self.names = [f"dev{number:02}" for number in range(devices)]
        self.ids: dict[str, str] = {}
        """By name, the agent's too."""
        self.mosquitto: Mosquitto
        self.gateways: Gateways
        self.owner: Person
        self.database_url = ""
        self.ended_by_itself: list[str] = []
        """Processes that nobody killed."""
        self._agent_sources = dict(sources or {})
        self._bridge_settings = dict(bridges or {})
        names = [*self.bridges, CONSUMER, AGENT]
        self._ops = dict(zip(names, free_ports(len(names)), strict=True))
        self._running = ExitStack()

    @property
    def bridges(self) -> list[str]:
        return [f"bridge-{number}" for number in range(BRIDGES)]

    @property
    def kinds(self) -> dict[str, Callable[[], None]]:
        """By name what kills it with -9 and begins it again."""
        own = {name: partial(self._kill_process, name) for name in (*self.bridges, CONSUMER, AGENT, DEVICES)}
        return {
            **own,
            "gateway": partial(self._kill_process, "gateway-0"),
            "broker": self._kill_broker,
            "kafka": self._kill_kafka,
            "postgres": self._kill_postgres,
            "redis": self._kill_redis,
        }

    # Starting and ending

    def start(self) -> None:
        """In the main thread; returns when all of it is ready."""
        self.kafka.begin()
        self._running.callback(self.kafka.kill)
        asyncio.run(self.postgres.start())
        self._running.callback(self.postgres.stop)
        self.database_url = self.postgres.url(self.postgres.create_database())
        self.redis.start()
        self._running.callback(self.redis.stop)
        keyring = load_keyring(self.folder / "keys", time.time(), serves=False)
        self._start_broker(keyring)
        self._start_gateway(keyring)
        for number, name in enumerate(self.bridges):
            self._run_ingest(number, name)
        consume = [sys.executable, "-m", "gateway", "consume", "--config", str(self.gateways.config())]
        self.processes.run(CONSUMER, consume)
        self.owner = self.gateways.owner()
        self._enrol_all()
        self.talk(Plan())
        self.processes.run(
            DEVICES, [sys.executable, "-m", "testbed.message_devices", str(self.devices_folder)]
        )
        self.processes.run(AGENT, service_argv("tunnel_agent", self._agent_config(talks=True)))
        for name in (*self.bridges, CONSUMER):
            self.processes.wait_ready(name, partial(ops.is_ready, self._ops[name]))

    def close(self) -> None:
        self._running.close()

    def logs(self) -> str:
        folders = (self.folder, *(self.folder / name for name in ("mosquitto", "kafka", "pg")))
        return "\n".join(log_ends(folder) for folder in folders)

    @property
    def processes(self) -> Processes:
        """Those that are ours: not the broker, the log and the databases."""
        return self.gateways.processes

    @property
    def devices_folder(self) -> Path:
        return self.folder / "devices"

    def _start_broker(self, keyring: Keyring) -> None:
        self.mosquitto = Mosquitto(
            _made(self.folder / "mosquitto"),
            devices=keyring.device_ca,
            internal=keyring.internal_ca,
            server=keyring.server_ca,
        )
        self._running.callback(self.mosquitto.close)
        self.mosquitto.start()
        for name in ("ingest", "gateway"):
            _issue(keyring.internal_ca, name, self.folder)
        (self.folder / "broker-ca.pem").write_text(keyring.server_ca.pem())

    def _start_gateway(self, keyring: Keyring) -> None:
        assert keyring.directory == self.folder / "keys"
        settings = {
            "redis_url": self.redis.url(),
            "device_mqtt_url": f"mqtts://{LOOPBACK}:{self.mosquitto.port}",
            "broker": self._broker_table("gateway"),
            "log": self._log_table(),
            "consumer": "apart",
            "consumer_ops_listen": f"{LOOPBACK}:{self._ops[CONSUMER]}",
        }
        self.gateways = Gateways(self.folder, settings=settings, database_url=self.database_url)
        self._running.callback(self.gateways.close)
        self.gateways.start()

    def _broker_table(self, name: str) -> dict[str, Any]:
        return {
            "url": f"mqtts://{LOOPBACK}:{self.mosquitto.internal_port}",
            "ca": self.folder / "broker-ca.pem",
            "certificate": self.folder / f"{name}.crt",
            "key": self.folder / f"{name}.key",
        }

    def _log_table(self) -> dict[str, Any]:
        address = self.kafka.tls_address(KAFKA_PREFIX)
        return {
            "kind": "kafka",
            "servers": list(address.servers),
            "prefix": address.prefix,
            "ca": address.ca,
            "certificate": address.certificate,
            "key": address.key,
        }

    def _run_ingest(self, number: int, name: str) -> None:
        table = {
            "ops_listen": f"{LOOPBACK}:{self._ops[name]}",
            "broker": self._broker_table("ingest"),
            "log": self._log_table(),
            "bridge": number,
            "bridges": BRIDGES,
            **self._bridge_settings,
        }
        self.processes.run(name, service_argv("ingest", write_table(self.folder / f"{name}.toml", table)))

    def _agent_config(self, *, talks: bool) -> Path:
        messages = {
            "enabled": True,
            "sources": {
                name: dict(source) | ({} if talks else {"report_s": float(SILENT_S)})
                for name, source in self._agent_sources.items()
            },
            "commands": {NOTE: {"exec": list(note_program(self.devices_folder))}},
        }
        # Nothing listens there: no session is opened, and no tunnel is needed for messages.
        more = {"ops_listen": f"{LOOPBACK}:{self._ops[AGENT]}", "messages": messages}
        table = agent_table(self.state(AGENT), {"web": free_ports(1)[0]}, **more)
        return write_table(self.folder / "agent.toml", table)

    def _enrol_all(self) -> None:
        for name in (*self.names, AGENT):
            self.ids[name] = self.enrol(self.state(name), name)

    def enrol(self, state: Path, name: str) -> str:
        """One more device of the owner's; its id."""
        request = EnrolmentRequest(
            gateway=self.gateways.url,
            token=self.owner.registration_token(),
            name=name,
            hardware_id=name,
            software=SOFTWARE,
            gateway_ca=None,
            wait_s=APPROVED_S,
        )
        return Enrolment(IdentityStore(state), request, say=lambda _: None).run().device_id

    def state(self, name: str) -> Path:
        """Of a device, below the process's folder; the agent's elsewhere."""
        return (self.folder if name == AGENT else self.devices_folder) / name / "state"

    # Killing

    def kill(self, kind: str) -> None:
        """kill -9, and begun again at once; it may take a while until it is of use. In the main thread."""
        self.look()
        self.kinds[kind]()

    def look(self) -> None:
        """Notes which processes have ended though nobody killed them, and begins them again."""
        for name in list(self.processes):
            code = self.processes[name].poll()
            if code is not None:
                self.ended_by_itself.append(f"{name}: {code}")
                self.processes.again(name)

    def _kill_process(self, name: str) -> None:
        self.processes.kill(name)
        self.processes.again(name)

    def _kill_broker(self) -> None:
        self.mosquitto.kill()
        self.mosquitto.start()

    def _kill_kafka(self) -> None:
        self.kafka.kill()
        self.kafka.begin()

    def _kill_redis(self) -> None:
        self.redis.kill()
        self.redis.start()

    def _kill_postgres(self) -> None:
        self.postgres.kill(signal.SIGKILL)

        def again() -> bool:
            try:
                asyncio.run(self.postgres.start())
            except (RuntimeError, asyncpg.PostgresError) as error:
                raise OSError(str(error)) from error  # not yet
            return True

        eventually("PostgreSQL starts again", again, POSTGRES_AGAIN_S)

    # Looking

    def talk(self, plan: Plan) -> None:
        """How the devices of the process talk from now on."""
        self.devices_folder.mkdir(exist_ok=True)
        plan.write(self.devices_folder)

    def agent_talks(self, talks: bool) -> None:
        """From its next start on, which is now: False: nothing but a report of its health at each start."""
        self._agent_config(talks=talks)
        self.kill(AGENT)

    def standing(self) -> dict[str, dict[str, Any]]:
        """By name how far each outbox is, as its process said last."""
        path = self.devices_folder / "standing.json"
        found: dict[str, dict[str, Any]] = json.loads(path.read_text("ascii")) if path.exists() else {}
        return found

    def floors(self) -> dict[str, tuple[int, ...]]:
        """By name what each was told."""
        return {name: tuple(one["floor"]) for name, one in self.standing().items()}

    def goes_on(self, *, stored: bool = False) -> None:
        """At each bridge a device is told of more than it was; `stored`: and the history has more."""
        known = self.floors()
        rows = self.history_rows() if stored else 0

        def moved() -> bool:
            self.look()
            floors = self.floors()
            return all(
                any(floors.get(name, (0, 0)) > known.get(name, (0, 0)) for name in names)
                for names in self.names_by_bridge()
            )

        eventually("something new is accepted", moved, RECOVERY_S)
        if stored:
            eventually("something new is stored", lambda: self.history_rows() > rows, RECOVERY_S)

    def history_rows(self) -> int:
        """Of all devices. OSError while the database is away."""
        try:
            [row] = self.rows("SELECT count(*) FROM device_history")
        except asyncpg.PostgresError as error:
            raise OSError(str(error)) from error
        count: int = row["count"]
        return count

    def names_by_bridge(self) -> list[list[str]]:
        """Of the process's devices."""
        return [
            [name for name in self.names if is_ours(f"o/s/t/{self.ids[name]}/state", bridge, BRIDGES)]
            for bridge in range(BRIDGES)
        ]

    def metric(self, name: str, start: str) -> float:
        """Of a bridge, the consumer or the agent: the sum of what begins so."""
        return ops.metric(self._ops[name], start)

    def bridge_metric(self, start: str) -> float:
        """The sum of both."""
        return sum(self.metric(name, start) for name in self.bridges)

    def lag(self) -> float:
        """Records of the log that were not stored yet."""
        return self.metric(CONSUMER, "towline_gateway_log_lag{")

    def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Of the database itself."""

        async def ask() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.database_url)
            try:
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
    issued = authority.issue_client(name, time.time())
    assert issued.key is not None
    (folder / f"{name}.crt").write_bytes(issued.certificate_pem())
    (folder / f"{name}.key").write_bytes(private_pem(issued.key))
