"""One Postgres a run, one database and one gateway a test."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography.hazmat.primitives import serialization

from gateway.keys.keyring import load_keyring
from gateway.store import database, migrate, schema
from runtime.clock import FakeClock
from testbed.postgres_server import PostgresServer
from tests.gateway.standing_still import STATEMENT_S
from tests.gateway.world import World, settings_for
from towline.embedded.postgres import OWNER


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "database: needs a real PostgreSQL; not part of test-fast")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "postgres" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.database)


# Where files are memory: a database is copied there in a fifth of the time, and each test copies one.
MEMORY = Path("/dev/shm")
# A cluster takes at most half a GB, with its log; several runs may go on at once.
MEMORY_WANTED = 4 * 1024**3


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    fits = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_WANTED
    with TemporaryDirectory(prefix="towline-pg-", dir=MEMORY if fits else None) as folder:
        server = PostgresServer(Path(folder))
        asyncio.run(server.start())
        yield server
        server.stop()


@pytest.fixture(scope="session")
def template(postgres: PostgresServer) -> str:
    """A database with the schema, to copy from. The gateway's role has its rights there and owns nothing."""
    name = postgres.create_database(owner=OWNER)
    asyncio.run(schema.put(postgres.url(name), postgres.owner_url(name), migrate.load()))
    return name


@pytest.fixture(scope="session")
def made_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys are slow to make: once a run, copied for each test."""
    folder = tmp_path_factory.mktemp("made") / "keys"
    load_keyring(folder, time.time())
    return folder


@pytest.fixture(scope="session", autouse=True)
def keys_read_once() -> Iterator[None]:
    """OpenSSL proves again that a key's factors are prime each time it reads the key: half of a gateway's
    start. The same bytes are the same key.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serialization, "load_pem_private_key", cache(serialization.load_pem_private_key))
        yield


@pytest.fixture
def keys_dir(made_keys: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_keys, tmp_path / "keys"))


@pytest.fixture
def database_url(postgres: PostgresServer, template: str) -> Iterator[str]:
    """As the gateway's own role."""
    name = postgres.create_database(template, owner=OWNER)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def owner_url(postgres: PostgresServer, database_url: str) -> str:
    """The same database as the role that owns its tables."""
    return postgres.owner_url(re.findall(r"/(\w+)\?", database_url)[0])


@pytest.fixture
def clock() -> FakeClock:
    # TLS compares certificates with the machine's clock, so the fake one begins there.
    return FakeClock(wall=time.time())


@pytest.fixture
def patient_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of gateways that are started afterwards, for tests in which somebody stands still."""
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_S", STATEMENT_S)
    monkeypatch.setattr(database, "COMMAND_TIMEOUT_S", STATEMENT_S + 1.0)


@pytest.fixture
async def world(tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock) -> AsyncIterator[World]:
    running = World(settings_for(tmp_path, database_url, keys_dir), clock, tmp_path)
    await (await running.start()).prepared()
    yield running
    await running.close()
