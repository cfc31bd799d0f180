"""Debian's PostgreSQL 15, the oldest that the gateway supports, for tests: an own cluster on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil

from testbed.ports import LOOPBACK, free_port
from testbed.processes import short_folder
from testbed.programs import ended
from testbed.waiting import eventually

BINARIES = Path("/usr/lib/postgresql/15/bin")
ACCOUNT = "postgres"  # made by the package; the server refuses to run as root
ROLE = "towline"


class DebianPostgres:
    """One cluster in `folder`, which that account must be able to reach. Databases by the dozen, as in
    PostgresServer.
    """

    def __init__(self, folder: Path) -> None:
        if not (BINARIES / "postgres").exists():
            raise RuntimeError("PostgreSQL 15 is missing: apt-get install postgresql-15")
        self._folder = folder
        self._password = secrets.token_urlsafe(16)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._counter = 0

    def start(self) -> None:
        """Call it in the main thread: the kernel ends the server together with the thread that began it."""
        new = not (self._folder / "cluster").exists()
        if new:
            self._make_cluster()
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "100",
        }
        argv = [str(BINARIES / "postgres"), "-D", str(self._folder / "cluster")]
        for key, value in options.items():
            argv += ["-c", f"{key}={value}"]
        with (self._folder / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(self._as_account(argv), stdout=log, stderr=log)
        ready = [str(BINARIES / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self.port)]
        eventually("PostgreSQL 15 answers", lambda: subprocess.run(ready).returncode == 0)
        if new:
            self.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{self._password}'")

    def url(self, database: str, role: str = ROLE) -> str:
        return f"postgresql://{role}:{self._password}@{LOOPBACK}:{self.port}/{database}"

    def create_database(self) -> str:
        """A new database that the gateway's role owns; its name."""
        self._counter += 1
        name = f"test_{self._counter}"
        self.execute(f"CREATE DATABASE {name} OWNER {ROLE}")
        return name

    def execute(self, statement: str) -> None:
        """As the superuser."""
        asyncio.run(self._execute(statement))

    def send_all(self, number: signal.Signals) -> None:
        """To the postmaster and every process of its own: SIGSTOP lets all of it stand still."""
        assert self._process is not None, "PostgreSQL runs"
        family = psutil.Process(self._process.pid)
        for process in [family, *family.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """kill -9 for all of it; `start` recovers."""
        self.send_all(signal.SIGKILL)
        assert self._process is not None
        assert ended(self._process), "PostgreSQL 15 did not end"
        self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self.send_all(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
            assert ended(self._process), "PostgreSQL 15 did not end"
            self._process = None

    def _make_cluster(self) -> None:
        password = self._folder / "password"
        password.write_text(self._password)
        password.chmod(0o644)
        if os.geteuid() == 0:
            subprocess.run(["chown", ACCOUNT, str(self._folder)], check=True)
        argv = [str(BINARIES / "initdb"), "-D", str(self._folder / "cluster"), "-U", ACCOUNT]
        argv += ["-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(self._as_account(argv), check=True, stdout=subprocess.DEVNULL)

    def _as_account(self, argv: Sequence[str]) -> list[str]:
        # The kernel forgets this signal when the user changes, so setpriv asks for it afterwards.
        account = [f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--init-groups"] if os.geteuid() == 0 else []
        return ["setpriv", *account, "--pdeathsig=INT", *argv]

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url("postgres", ACCOUNT), timeout=10)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def debian_postgres() -> Iterator[DebianPostgres]:
    """One for a while, in a folder that its account can reach."""
    with short_folder("pg15-") as folder:
        server = DebianPostgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
