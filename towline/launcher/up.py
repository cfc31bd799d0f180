"""`towline up`: start everything in order, print the address, keep it running, stop it in reverse."""

from __future__ import annotations

import asyncio
import fcntl
import getpass
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from gateway.errors import KeyFileError, MigrationError, StoreUnavailableError
from gateway.keys.keyring import load_keyring
from gateway.keys.node_certificates import issue_ingest_certificate, issue_node_certificate
from gateway.store import migrate, schema
from runtime.clock import SYSTEM_CLOCK
from runtime.process import Shutdown
from runtime.tasks import TaskOwner
from towline.data_folder import DataFolder
from towline.embedded.leftovers import end_leftovers
from towline.embedded.postgres import EmbeddedPostgres
from towline.embedded.processes import Program, Supervisor
from towline.errors import TowlineError
from towline.gateway_client import GatewayClient
from towline.launcher import demo, simulator
from towline.launcher.config_files import NODE, ConfigFiles, SessionSite
from towline.launcher.demo import DemoDevice
from towline.launcher.ports import LOOPBACK, Ports
from towline.launcher.probes import http_ok
from towline.launcher.progress import Progress, welcome_text

POSTGRES_TIMEOUT_S = 60.0  # recovery after a kill -9 replays up to max_wal_size
SERVICE_TIMEOUT_S = 30.0  # a service starts in about a second; a Raspberry Pi takes ten times that
DEVICE_TIMEOUT_S = 15.0  # the agent connects at once and retries within seconds
CERTIFICATE_RENEW_S = 30 * 86_400.0  # renewed at a start that finds less than this left; issued for a year


def run_up(data: DataFolder, ports: Ports, site: SessionSite, device: DemoDevice) -> int:
    """Run until Ctrl-C or SIGTERM; the exit code. TowlineError for anything that keeps it from starting."""
    try:
        data.make()
        with _only_one(data):
            end_leftovers(data.run)
            ports.ensure_free()
            return asyncio.run(_Launcher(data, ports, site, device).main())
    except OSError as error:
        raise TowlineError(f"{error.filename or data.root}: {error.strerror or error}") from error


class _Launcher:
    """One run of `towline up`."""

    def __init__(self, data: DataFolder, ports: Ports, site: SessionSite, device: DemoDevice) -> None:
        self._data = data
        self._ports = ports
        self._device = device
        self._progress = Progress()
        self._supervisor = Supervisor(data.root, self._progress.say)
        self._config = ConfigFiles(data, ports, site)

    async def main(self) -> int:
        shutdown = Shutdown().install()
        tasks = TaskOwner("up")
        start = tasks.start(self._try_start(), "start")
        stop = tasks.start(_until(shutdown.requested), "stop")
        try:
            await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                error = start.result()
                if error is not None:
                    raise error
                await stop
            self._progress.say("stopping")
        finally:
            await tasks.close(SERVICE_TIMEOUT_S)
            await self._supervisor.stop()
        return 0

    async def _try_start(self) -> TowlineError | OSError | None:
        """What kept it from starting is an answer, not a crash: one line tells it."""
        try:
            await self._start()
        except (TowlineError, OSError) as error:
            return error
        return None

    async def _start(self) -> None:
        say = self._progress.say
        say(f"data in {self._data.root}")
        await self._start_postgres()
        if self._device is DemoDevice.SIMULATOR:
            await simulator.ensure_built(say)
        needs_nobody = [self._demo_device()] if self._device is DemoDevice.AGENT else []
        await self._start_together(self._gateway(), *needs_nobody)
        say("gateway ready")
        await asyncio.to_thread(self._issue_certificates)
        gateway = GatewayClient(self._config.credentials())
        if self._device is DemoDevice.AGENT:
            # Independent of each other until the agent dials.
            await asyncio.gather(self._start_together(self._server(), self._ingest()), self._enrol(gateway))
            say("tunnel server, message broker and demo device ready")
            await self._start_agent(gateway)
        else:
            await self._start_together(self._server(), self._ingest())
            say("tunnel server and message broker ready")
        if self._device is DemoDevice.SIMULATOR:
            await self._start_simulator(gateway)
        self._progress.show(
            welcome_text(
                self._config.welcome_address,
                self._progress.elapsed_s,
                visitors_port=self._ports.visitors,
                ssh_target=_ssh_target(),
            )
        )

    async def _start_together(self, *programs: Program) -> None:
        await asyncio.gather(*(self._supervisor.start(program, SERVICE_TIMEOUT_S) for program in programs))

    async def _start_postgres(self) -> None:
        postgres = EmbeddedPostgres(self._data.postgres, self._data.secrets)
        if not (self._data.postgres / "cluster").exists():
            self._progress.say("making the database (first start only)")
        # In this thread on purpose: a child's death signal is tied to the thread that made it.
        postgres.prepare()
        self._config.write(postgres.dsn)
        await self._supervisor.start(postgres.program(), POSTGRES_TIMEOUT_S)
        await postgres.make_database()
        await _put_schema(postgres)
        self._progress.say("database ready")

    async def _enrol(self, gateway: GatewayClient) -> None:
        if not demo.is_enrolled(self._data):
            await demo.enrol(self._data, gateway, self._config.agent)
            self._progress.say("demo device enrolled")

    async def _start_agent(self, gateway: GatewayClient) -> None:
        ready = _is_online(gateway, demo.DEMO_NAME)
        await self._start_device(self._service("agent", "tunnel_agent", self._config.agent, ready))

    async def _start_simulator(self, gateway: GatewayClient) -> None:
        ready = _is_online(gateway, simulator.NAME)
        async with simulator.enrolling(self._data, gateway) as options:
            program = simulator.program(self._data, self._ports.at("demo"), options, ready)
            await self._start_device(program)

    async def _start_device(self, program: Program) -> None:
        """Without the tunnel everything else still works, so its absence is said and stops nothing."""
        try:
            await self._supervisor.start(program, DEVICE_TIMEOUT_S)
        except TowlineError as error:
            self._progress.say(f"the demo device is not connected (it keeps trying): {error}")
        else:
            self._progress.say("demo device connected")

    def _issue_certificates(self) -> None:
        """Not by `python -m gateway`: each of those would take as long to start as the gateway itself."""
        data, now = self._data, SYSTEM_CLOCK.wall()
        node = _lasts(data.node / "node.crt")
        ingest = _lasts(data.ingest / "ingest.crt") and _lasts(data.ingest / "listener.crt")
        if node and ingest:
            return
        try:
            keyring = load_keyring(data.keys, now, serves=False)
            if not node:
                issue_node_certificate(keyring, NODE, ("localhost", "127.0.0.1"), data.node, now)
            if not ingest:
                issue_ingest_certificate(keyring, NODE, data.ingest, now, (LOOPBACK,))
        except KeyFileError as error:
            raise TowlineError(f"no certificates for the services: {error}") from error

    def _gateway(self) -> Program:
        return self._service(
            "gateway", "gateway", self._config.gateway, self._ready("gateway_ops", "/readyz")
        )

    def _server(self) -> Program:
        return self._service(
            "tunnel_server", "tunnel_server", self._config.server, self._ready("server_ops", "/readyz")
        )

    def _ingest(self) -> Program:
        return self._service("ingest", "ingest", self._config.ingest, self._ready("ingest_ops", "/readyz"))

    def _demo_device(self) -> Program:
        argv = [sys.executable, "-m", "demo_device", "--listen", self._ports.at("demo")]
        argv += ["--data", str(self._data.demo / "device")]
        return Program("demo_device", argv, str(self._data.demo / "device"), self._ready("demo", "/"))

    def _service(self, name: str, module: str, config: Path, ready: Callable[[], Awaitable[bool]]) -> Program:
        return Program(name, [sys.executable, "-m", module, "--config", str(config)], str(config), ready)

    def _ready(self, part: str, path: str) -> Callable[[], Awaitable[bool]]:
        port: int = getattr(self._ports, part)
        return lambda: http_ok(port, path)


async def _put_schema(postgres: EmbeddedPostgres) -> None:
    """By the owner's role, whose password the gateway never sees."""
    try:
        await schema.put(postgres.dsn, postgres.owner_dsn, migrate.load())
    except (MigrationError, StoreUnavailableError) as error:
        raise TowlineError(f"the database's schema: {error}") from error


async def _until(event: asyncio.Event) -> None:
    await event.wait()


def _is_online(gateway: GatewayClient, name: str) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        try:
            found: list[dict[str, Any]] = await asyncio.to_thread(gateway.items, "/v1/devices")
        except TowlineError:
            return False
        return any(one["name"] == name and one["online"] for one in found)

    return ready


def _lasts(path: Path) -> bool:
    """Whether the certificate is there and good for a while; its own dates decide, not the file's."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    return left.total_seconds() > CERTIFICATE_RENEW_S


@contextmanager
def _only_one(data: DataFolder) -> Iterator[None]:
    """Hold the folder's lock, which the kernel gives back however this process ends."""
    with open(data.lock, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "?"
            raise TowlineError(
                f"another `towline up` (process {owner}) uses {data.root}: stop it or choose another --data"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _ssh_target() -> str | None:
    """``user@host`` as the person's own computer reached this one; None when nobody came over SSH."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if len(connection) != 4:  # client address, client port, server address, server port (sshd(8))
        return None
    return f"{getpass.getuser()}@{connection[2]}"
