"""ssh, scp and sftp through `towline connect` to a real sshd on a device."""

from __future__ import annotations

import hashlib
import os
import shlex
import socket
import subprocess
import time
from pathlib import Path

import pytest

from testbed.people import CALL_TIMEOUT_S
from testbed.waiting import eventually
from tests.connect.conftest import NAME, Bench, writers_of
from tests.connect.sshd import program
from towline.connect.session import end_session, open_session
from towline.data_folder import DataFolder
from towline.gateway_client import Credentials, GatewayClient

MIB = 1 << 20
CUT_S = 2.0  # the promise, from the command's return to the end of the connection


def run(argv: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, capture_output=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]


def random_file(path: Path, size: int) -> str:
    """Write ``size`` random bytes; their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size // MIB):
            piece = os.urandom(MIB)
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_commands_run_and_their_exit_codes_come_back(bench: Bench) -> None:
    port = bench.connect().port
    done = run(bench.ssh(port, "echo out; echo err >&2; exit 7"))
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)
    piped = run(bench.ssh(port, "sha256sum"), input=b"x" * 3_000_000)
    assert piped.stdout.split()[0].decode() == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_a_conversation_passes_line_by_line(bench: Bench) -> None:
    talk = bench.run(bench.ssh(bench.connect().port, "cat"))
    for number in range(20):
        talk.say(b"line %d\n" % number)
        talk.heard(b"line %d\n" % number)
    assert talk.process.stdin is not None
    talk.process.stdin.close()
    assert talk.ended() == 0


def test_scp_of_100_mb_both_ways_gives_equal_files(bench: Bench) -> None:
    port = bench.connect(bench.device).port
    here, there, back = (bench.folder / name for name in ("here", "there", "back"))
    digest = random_file(here, 100 * MIB)
    scp = [program("scp"), *bench.server.options(), "-P", str(port), "-q"]
    remote = f"{bench.server.user}@127.0.0.1:{shlex.quote(str(there))}"
    for argv in ([*scp, str(here), remote], [*scp, remote, str(back)]):
        done = run(argv)
        assert done.returncode == 0, done.stderr
    assert sha256(there) == digest
    assert sha256(back) == digest


def test_sftp_passes(bench: Bench) -> None:
    port = bench.connect().port
    here, back = bench.folder / "here", bench.folder / "back"
    digest = random_file(here, 3 * MIB)
    there = bench.folder / "there"
    commands = f"put {here} {there}\nget {there} {back}\n".encode()
    sftp = [program("sftp"), *bench.server.options(), "-P", str(port), "-q", "-b", "-"]
    done = run([*sftp, f"{bench.server.user}@127.0.0.1"], input=commands)
    assert done.returncode == 0, done.stderr
    assert sha256(back) == digest


def test_two_at_once_over_one_port_and_two_commands(bench: Bench) -> None:
    first, second = bench.connect(), bench.connect()
    talks = [bench.run(bench.ssh(port, "cat")) for port in (first.port, first.port, second.port)]
    for turn in range(3):
        for number, talk in enumerate(talks):
            talk.say(b"turn %d of %d\n" % (turn, number))
            talk.heard(b"turn %d of %d\n" % (turn, number))
    assert len(bench.sessions()) == 2
    assert first.stop() == 0  # its session ends, the other one goes on
    assert talks[0].ended() != 0
    assert talks[1].ended() != 0
    talks[2].say(b"still here\n")
    talks[2].heard(b"still here\n")
    assert len(bench.sessions()) == 1


def test_the_proxy_command_of_ssh(bench: Bench) -> None:
    proxy = shlex.join(bench.towline("connect", NAME, "ssh", "--stdio"))
    argv = bench.ssh(1, "sha256sum", options=("-o", f"ProxyCommand={proxy}"))
    done = run(argv, input=b"y" * 1_000_000)
    assert done.stdout.split()[0].decode() == hashlib.sha256(b"y" * 1_000_000).hexdigest(), done.stderr
    assert done.returncode == 0
    eventually("the session has ended", lambda: not bench.sessions())


@pytest.mark.parametrize("how", ["session", "device"])
def test_a_revocation_cuts_within_two_seconds(bench: Bench, how: str) -> None:
    """A conversation and an upload that never ends: ssh, and the upload on the device, are gone."""
    with bench.another_device(f"cut-{how}") as device:
        entrance = bench.connect(device)
        talk = bench.run(bench.ssh(entrance.port, "cat"))
        talk.say(b"hello\n")
        talk.heard(b"hello\n")
        grown = bench.folder / "upload"
        upload = bench.run(
            ["sh", "-c", f"{shlex.join(bench.ssh(entrance.port, f'cat > {grown}'))} < /dev/zero"]
        )
        eventually("the upload runs", lambda: grown.exists() and grown.stat().st_size > MIB)
        (session,) = bench.sessions()
        target = session if how == "session" else device
        done = bench.stack.cli("revoke", how, target)
        assert done.returncode == 0, done.stderr
        began = time.monotonic()
        assert talk.ended(CUT_S) != 0
        assert upload.ended(CUT_S) != 0
        assert time.monotonic() - began <= CUT_S
        assert entrance.running.ended(CUT_S) == 1  # and it says why
        assert b"was revoked" in entrance.running.err
        size = grown.stat().st_size
        eventually("sshd's end of the upload is gone", lambda: not writers_of(grown))
        assert grown.stat().st_size - size < 4 * MIB  # what was under way in the device's own buffers


def test_ctrl_c_ends_the_session_at_the_gateway(bench: Bench) -> None:
    entrance = bench.connect()
    talk = bench.run(bench.ssh(entrance.port, "cat"))
    talk.say(b"hello\n")
    talk.heard(b"hello\n")
    assert len(bench.sessions()) == 1
    assert entrance.stop() == 0
    assert bench.sessions() == []
    assert talk.ended(CUT_S) != 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", entrance.port), CALL_TIMEOUT_S)


def test_the_session_ends_with_its_time_and_says_so(bench: Bench) -> None:
    entrance = bench.connect(NAME, "ssh", "--duration", "10")  # half of it is for who logs in first
    talk = bench.run(bench.ssh(entrance.port, "cat"))
    talk.say(b"hello\n")
    talk.heard(b"hello\n")
    assert entrance.running.ended() == 1
    assert talk.ended(CUT_S) != 0
    assert b"the session has expired" in entrance.running.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nobody", "ssh"], b"there is no device 'nobody'"),
        ([NAME, "vnc"], b"no service 'vnc'"),
        ([NAME, "web"], b"is a web page: `towline link"),
        (["asleep", "ssh"], b"The device is offline. (device_offline)"),
        ([NAME, "shut", "--stdio"], b"its service did not accept the connection"),
        ([NAME, "ssh", "--port", "{taken}"], b"cannot listen on 127.0.0.1:"),
        ([NAME, "ssh", "--duration", "1000000"], b"duration_s"),
    ],
)
def test_what_is_told_when_it_cannot_be(bench: Bench, argv: list[str], said: bytes) -> None:
    if "asleep" in argv:
        with bench.another_device("asleep"):
            pass
        eventually("it is offline", lambda: "offline" in bench.line_of("asleep"))
    taken = str(bench.server.port)
    done = run(bench.towline("connect", *(part.replace("{taken}", taken) for part in argv)), input=b"")
    assert done.returncode == 1
    assert said in done.stderr, done.stderr
    assert done.stderr.startswith(b"towline: ")
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""
    assert bench.sessions() == []  # and what was opened for it is closed again


def test_a_link_is_for_pages(bench: Bench) -> None:
    done = bench.stack.cli("link", NAME, "--service", "ssh")
    assert done.returncode == 1
    assert f"`towline connect {bench.device} ssh` opens it" in done.stderr
    assert bench.sessions() == []


def test_a_service_that_refuses_costs_only_that_connection(bench: Bench) -> None:
    entrance = bench.connect(NAME, "shut")
    for _ in range(2):
        local = socket.create_connection(("127.0.0.1", entrance.port), CALL_TIMEOUT_S)
        with local, pytest.raises(ConnectionResetError):
            local.recv(1)
    assert entrance.running.process.poll() is None
    assert entrance.stop() == 0
    assert bytes(entrance.running.err).count(b"did not accept the connection") == 2


async def test_the_session_id_is_nowhere_but_in_its_header(bench: Bench) -> None:
    gateway = GatewayClient(Credentials.load(DataFolder(bench.stack.data).credentials))
    session = await open_session(gateway, NAME, "ssh", duration_s=60, ca=None)
    door = await session.open()
    assert (await door.receive()).startswith(b"SSH-2.0")
    door.abort()
    await end_session(gateway, session.id)
    assert session.secret not in repr(session)
    leaks = [path for path in bench.stack.data.rglob("*.log") if session.secret in path.read_text()]
    assert leaks == []
    assert len(session.secret) == 43
