"""The embedded database alone: its user, its password, its files, and what a kill leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from towline.embedded.leftovers import is_running
from towline.embedded.postgres import EmbeddedPostgres
from towline.embedded.processes import Supervisor

TIMEOUT_S = 60.0


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    made = Supervisor(tmp_path, lambda line: None)
    yield made
    await made.stop()


async def running(tmp_path: Path, supervisor: Supervisor) -> EmbeddedPostgres:
    postgres = EmbeddedPostgres(tmp_path / "postgres", tmp_path / "secrets")
    postgres.prepare()
    await supervisor.start(postgres.program(), TIMEOUT_S)
    await postgres.make_database()
    return postgres


async def test_a_new_database_needs_its_password_and_listens_on_no_port(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    postgres = await running(tmp_path, supervisor)
    connection = await asyncpg.connect(postgres.dsn)
    try:
        assert await connection.fetchval("SHOW listen_addresses") == ""
        assert await connection.fetchval("SHOW password_encryption") == "scram-sha-256"
        assert not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE kept (x int)")
    finally:
        await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.dsn, password="wrong")


async def test_its_user_is_not_root_and_its_files_are_its_own(tmp_path: Path, supervisor: Supervisor) -> None:
    await running(tmp_path, supervisor)
    process = supervisor["postgres"].process
    assert process is not None
    uid = os.stat(f"/proc/{process.pid}").st_uid
    assert uid != 0
    assert uid != 65534  # nobody: whoever else runs as nobody could read the data
    assert (uid == os.geteuid()) == (os.geteuid() != 0)
    cluster = tmp_path / "postgres" / "cluster"
    assert cluster.stat().st_uid == uid
    assert stat.S_IMODE(cluster.stat().st_mode) == 0o700
    assert not (tmp_path / "postgres" / "initdb-password").exists()


async def test_a_postmaster_that_was_left_behind_is_stopped(tmp_path: Path, supervisor: Supervisor) -> None:
    postgres = await running(tmp_path, supervisor)
    process = supervisor["postgres"].process
    assert process is not None
    pid = process.pid
    again = EmbeddedPostgres(tmp_path / "postgres", tmp_path / "secrets")
    # In a thread: this process is the parent that reaps it.
    assert not await asyncio.to_thread(again.prepare)
    assert not is_running(pid, str(tmp_path))
    assert again.dsn == postgres.dsn


async def test_after_a_kill_it_recovers_with_its_data(tmp_path: Path, supervisor: Supervisor) -> None:
    postgres = await running(tmp_path, supervisor)
    connection = await asyncpg.connect(postgres.owner_dsn)
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS x")
    one = supervisor["postgres"]
    assert one.process is not None
    os.kill(one.process.pid, signal.SIGKILL)
    connection.terminate()
    async with asyncio.timeout(TIMEOUT_S):
        while one.restarts == 0 or not await postgres.accepts_connections():
            await asyncio.wait([asyncio.ensure_future(one.ready.wait())], timeout=0.05)
    connection = await asyncpg.connect(postgres.owner_dsn)
    assert await connection.fetchval("SELECT x FROM kept") == 7
    await connection.close()


def test_a_cluster_that_was_half_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "cluster-new").mkdir(parents=True)
    (tmp_path / "postgres" / "cluster-new" / "junk").write_text("x")
    postgres = EmbeddedPostgres(tmp_path / "postgres", tmp_path / "secrets")
    assert postgres.prepare()
    assert not postgres.prepare()
    assert not (tmp_path / "postgres" / "cluster" / "junk").exists()
