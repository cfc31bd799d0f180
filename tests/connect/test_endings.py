"""How `towline connect` and a transfer through it end when something else does."""

from __future__ import annotations

import os
import shlex
import signal
import time
from pathlib import Path

import pytest

from testbed.waiting import eventually
from tests.connect.conftest import NAME, Bench
from tests.connect.sshd import Running, program
from tests.connect.test_ssh import CUT_S, MIB, random_file, run, sha256
from towline.connect.command import WATCH_S

SIZE = 100 * MIB
RATE = 40 * MIB  # bytes/s
SLOW = 8 * MIB  # of a copy that must not be over before it is cut
SLACK_S = 2.0  # processes that share two cores with the other tests


@pytest.mark.parametrize("how", ["session", "device"])
def test_an_idle_entrance_ends_with_its_session(bench: Bench, how: str) -> None:
    """Nobody has connected yet, so no node cuts anything: the next program would be told much later."""
    with bench.another_device(f"idle-{how}") as device:
        entrance = bench.connect(device)
        (session,) = bench.sessions()
        done = bench.stack.cli("revoke", how, session if how == "session" else device)
        assert done.returncode == 0, done.stderr
        revoked = time.monotonic()
        assert entrance.running.ended() == 1
        assert time.monotonic() - revoked < WATCH_S + CUT_S + SLACK_S
        assert b"towline: the session was ended at the gateway: " in entrance.running.err


def test_an_idle_entrance_says_that_its_time_is_over(bench: Bench) -> None:
    entrance = bench.connect(NAME, "ssh", "--duration", "5")
    assert entrance.running.ended() == 1
    assert entrance.running.err == b"towline: the session has expired\n"


def test_a_ca_is_refused_where_nothing_is_encrypted(bench: Bench) -> None:
    done = run(bench.towline("connect", NAME, "ssh", "--ca", str(bench.server.folder / "known_hosts")))
    assert done.returncode == 1
    assert b"--ca is of no use here" in done.stderr
    eventually("the session has ended", lambda: not bench.sessions())


@pytest.fixture
def file(bench: Bench) -> tuple[Path, str]:
    path = bench.folder / "here"
    return path, random_file(path, SIZE)


def copying(bench: Bench, port: int, source: str, target: str, rate: int = RATE) -> Running:
    """scp, slowly enough that it can be met half-way."""
    limit = ("-l", str(rate * 8 // 1_000))
    return bench.run([program("scp"), *bench.server.options(), "-P", str(port), "-q", *limit, source, target])


def there(bench: Bench, path: Path) -> str:
    return f"{bench.server.user}@127.0.0.1:{shlex.quote(str(path))}"


def half_way(path: Path) -> None:
    eventually(f"{path.name} grows", lambda: path.exists() and path.stat().st_size > SIZE // 20)


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_copy_that_a_dying_node_cut_is_told_so(bench: Bench, file: tuple[Path, str], way: str) -> None:
    """kill -9: an error, never a short file that looks whole. The entrance serves again with the node."""
    path, _ = file
    entrance, copy = bench.connect(), bench.folder / "copy"
    ends = (str(path), there(bench, copy)) if way == "up" else (there(bench, path), str(copy))
    scp = copying(bench, entrance.port, *ends, rate=SLOW)
    half_way(copy)
    bench.stack.kill_process("tunnel_server")
    assert scp.ended() != 0
    assert copy.stat().st_size < SIZE
    assert b"towline: the connection to the tunnel server broke" in entrance.running.err
    eventually("ssh works again", lambda: run(bench.ssh(entrance.port, "true")).returncode == 0)
    assert entrance.stop() == 0


@pytest.mark.parametrize(("name", "number"), [("gateway", signal.SIGKILL), ("tunnel_server", signal.SIGTERM)])
def test_a_copy_outlives_the_gateway_and_a_drain(
    bench: Bench, file: tuple[Path, str], name: str, number: signal.Signals
) -> None:
    path, digest = file
    entrance, copy = bench.connect(), bench.folder / "copy"
    scp = copying(bench, entrance.port, str(path), there(bench, copy))
    half_way(copy)
    old = bench.stack.pid(name)
    os.kill(old, number)
    assert scp.ended() == 0, bytes(scp.err)
    assert sha256(copy) == digest
    eventually(f"{name} started again", lambda: bench.stack.pid(name) != old)
    eventually("ssh works again", lambda: run(bench.ssh(entrance.port, "true")).returncode == 0)
    eventually("the gateway can be told", lambda: bench.stack.cli("sessions").returncode == 0)
    assert entrance.stop() == 0
