"""A real sshd of the test's own: own keys, own port, key login alone; and the ssh programs that go there."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.people import CALL_TIMEOUT_S
from testbed.ports import free_ports
from testbed.up import STOP_TIMEOUT_S
from testbed.waiting import eventually

PROGRAMS = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "scp": "openssh-client",
    "sftp": "openssh-client",
}
PRIVSEP = Path("/run/sshd")  # where sshd, started by root, jails what speaks to strangers


def program(name: str) -> str:
    """The absolute path (sshd starts itself again by it); an assertion that names the Debian package else."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert found is not None, f"{name} is missing: apt-get install {PROGRAMS[name]}"
    return found


@dataclass(frozen=True)
class SshServer:
    """A running sshd; ``folder`` holds the client's key and known host too."""

    folder: Path
    port: int

    @property
    def user(self) -> str:
        return getpass.getuser()

    def options(self) -> list[str]:
        """For ssh, scp and sftp: nothing of the machine's own configuration or keys."""
        pairs = {
            "IdentityFile": self.folder / "client",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": "device",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": int(CALL_TIMEOUT_S),
            "LogLevel": "ERROR",
        }
        return ["-F", "none", *(part for name, value in pairs.items() for part in ("-o", f"{name}={value}"))]


def _key(path: Path) -> str:
    """Make a key; its public line without the comment."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=CALL_TIMEOUT_S
    )
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def _config(folder: Path, port: int) -> str:
    return f"""\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
PidFile none
UsePAM no
StrictModes no
AuthorizedKeysFile {folder}/authorized_keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
MaxStartups 50
"""


@contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """Runs until the block ends."""
    folder.mkdir()
    if os.geteuid() == 0:
        PRIVSEP.mkdir(mode=0o755, exist_ok=True)
    (port,) = free_ports(1)
    host, client = _key(folder / "host"), _key(folder / "client")
    (folder / "authorized_keys").write_text(client + "\n")
    (folder / "known_hosts").write_text(f"device {host}\n")
    (folder / "sshd_config").write_text(_config(folder, port))
    log = folder / "sshd.log"
    process = subprocess.Popen(
        [program("sshd"), "-D", "-f", str(folder / "sshd_config"), "-E", str(log)],
        stdin=subprocess.DEVNULL,
    )
    try:

        def listens() -> bool:
            assert process.poll() is None, f"sshd ended: {log.read_text()}"
            return "Server listening" in (log.read_text() if log.exists() else "")

        eventually("sshd listens", listens)
        yield SshServer(folder, port)
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)


class Running:
    """A program whose output lines are heard as they come."""

    def __init__(self, argv: list[str], cwd: Path) -> None:
        self.process = subprocess.Popen(
            argv, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.out = bytearray()
        self.err = bytearray()
        self._threads = [
            threading.Thread(target=self._hear, args=(stream, kept), daemon=True)
            for stream, kept in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for thread in self._threads:
            thread.start()

    def _hear(self, stream: object, kept: bytearray) -> None:
        read = stream.read1  # type: ignore[attr-defined]  # subprocess's pipes are BufferedReader
        while data := read(65_536):
            kept += data

    def say(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def heard(self, text: bytes, timeout_s: float = CALL_TIMEOUT_S) -> bytes:
        """All output once ``text`` stands in it."""
        try:
            eventually(f"{text!r} is heard", lambda: text in self.out, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; output {bytes(self.out)!r}, errors {bytes(self.err)!r}") from None
        return bytes(self.out)

    def ended(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Its exit code."""
        code = self.process.wait(timeout_s)
        for thread in self._threads:
            thread.join(CALL_TIMEOUT_S)
        return code

    def close(self) -> None:
        for stream in (self.process.stdin,):
            if stream is not None and not stream.closed:
                stream.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.ended()
        for output in (self.process.stdout, self.process.stderr):
            if output is not None:
                output.close()
