"""The audit log of a `towline up`: nobody set anything up, and it is out of the gateway's own reach."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys

import asyncpg
import pytest

from gateway.audit.heads import FILE
from testbed.processes import ROOT
from testbed.up import Stack
from testbed.waiting import eventually

CALL_S = 60.0


def audit(stack: Stack, *argv: str) -> subprocess.CompletedProcess[str]:
    config = str(stack.data / "config" / "gateway.toml")
    command = [sys.executable, "-m", "towline", "audit", *argv, "--config", config]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CALL_S, check=False)


def test_the_gateways_password_changes_nothing_and_the_command_verifies(shared: Stack) -> None:
    table = (shared.data / "config" / "gateway.toml").read_text()
    assert "migration" not in table
    assert "owner" not in table
    url = (shared.data / "secrets" / "database-url").read_text().strip()

    async def try_it() -> None:
        connection = await asyncpg.connect(url)
        try:
            assert await connection.fetchval("SELECT count(*) FROM audit_events") > 0
            for statement in ("DELETE FROM audit_events", "ALTER TABLE audit_events DISABLE TRIGGER ALL"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        finally:
            await connection.close()
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.InvalidPasswordError)):
            await asyncpg.connect(re.sub(r"/towline\?", "/postgres?", url))

    asyncio.run(try_it())
    eventually("the first head is signed", (shared.data / "audit-heads" / FILE).exists)
    said = audit(shared, "verify")
    assert said.returncode == 0, said.stderr
    assert "nothing was changed" in said.stdout
    assert (shared.data / "audit-heads").stat().st_mode & 0o077 == 0
    written = audit(shared, "export")
    assert written.returncode == 0, written.stderr
    assert written.stdout.count("\n") > 2


def test_a_restart_signs_the_last_head_and_the_next_start_goes_on(own: Stack) -> None:
    own.start()
    own.stop()
    heads = own.data / "audit-heads" / FILE
    first = heads.read_text().count("\n")
    assert first >= 1
    own.start()
    own.api().items("/v1/devices")
    own.stop()
    assert heads.read_text().count("\n") > first
