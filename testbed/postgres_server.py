"""A real PostgreSQL for tests: the embedded one, without its supervisor, and with databases by the dozen."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import asyncpg

from towline.embedded.postgres import OWNER, ROLE, SUPERUSER, EmbeddedPostgres
from towline.embedded.processes import launch_argv

START_TIMEOUT_S = 30.0
# Syncing costs seconds here and proves nothing: tests kill the server, never the machine.
UNSAFE: Mapping[str, str] = {"fsync": "off", "max_connections": "100"}


class PostgresServer:
    """One cluster below `folder`; `start` and `stop` may be repeated."""

    def __init__(self, folder: Path, options: Mapping[str, str] = UNSAFE) -> None:
        """`options` stand after those of `towline up`, and win."""
        self._options = options
        self._embedded = EmbeddedPostgres(folder / "postgres", folder / "secrets")
        self._secrets = folder / "secrets"
        self._log = folder / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._counter = 0

    async def start(self) -> None:
        """Call it in the main thread: the kernel ends the server together with the thread that began it."""
        self._embedded.prepare()
        program = self._embedded.program()
        argv = list(program.argv)
        for key, value in self._options.items():
            argv += ["-c", f"{key}={value}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 (it must begin in this very thread)
                launch_argv(argv, death_signal=signal.SIGINT, jail=program.jail),
                env=dict(program.environment or {}),
                stdout=log,
                stderr=log,
            )
        await self._wait_ready()

    @property
    def pid(self) -> int:
        """Of its first process."""
        assert self._process is not None, "PostgreSQL runs"
        return self._process.pid

    def kill(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """As a crash does: every backend is gone at once. After SIGKILL they find that out for themselves."""
        self._end(number)

    def stop(self) -> None:
        self._end(signal.SIGINT)

    def url(self, database: str, role: str = ROLE) -> str:
        socket = self._embedded.dsn.partition("host=")[2]
        password = (self._secrets / f"postgres-{role}").read_text().strip()
        return f"postgresql://{role}:{quote(password)}@/{database}?host={socket}"

    def create_database(self, template: str = "template1", *, owner: str = ROLE) -> str:
        """A new database; its name. Without `owner` the gateway's role owns it, as on a small site."""
        self._counter += 1
        name = f"test_{self._counter}"
        asyncio.run(self._execute(f"CREATE DATABASE {name} OWNER {owner} TEMPLATE {template}"))
        return name

    def owner_url(self, database: str) -> str:
        return self.url(database, OWNER)

    def drop_database(self, name: str) -> None:
        asyncio.run(self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url("postgres", SUPERUSER))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not await self._embedded.accepts_connections():
            if time.monotonic() > deadline or self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()[-2000:]}")
            await asyncio.sleep(0.05)
        await self._embedded.make_database()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_TIMEOUT_S)
            self._process = None
