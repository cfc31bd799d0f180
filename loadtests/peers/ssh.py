"""`ssh -R`: OpenSSH's reverse port forwarding. Raw TCP, encrypted; it parses no HTTP and knows no session."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.figures import SSH
from loadtests.measure import Target
from testbed.ports import free_port
from testbed.programs import family, program, running, wait_listening

_SERVER = """
ListenAddress 127.0.0.1
Port {port}
HostKey {root}/host_key
PidFile none
AuthorizedKeysFile {root}/client_key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding yes
PermitRootLogin prohibit-password
MaxStartups 200
LogLevel ERROR
"""


@dataclass(frozen=True, slots=True)
class Sshd:
    """A running sshd of ours, and what a client needs."""

    root: Path
    port: int
    pid: int

    def client(self, remote_port: int, upstream_port: int) -> list[str]:
        """The command that forwards `remote_port` of the server to the device's `upstream_port`."""
        forward = f"127.0.0.1:{remote_port}:127.0.0.1:{upstream_port}"
        return [
            program("ssh", "openssh-client"), "-F", "/dev/null", "-N", "-i", str(self.root / "client_key"),
            "-o", "IdentitiesOnly=yes",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "ExitOnForwardFailure=yes", "-o", "LogLevel=ERROR", "-p", str(self.port),
            "-R", forward, f"{getpass.getuser()}@127.0.0.1",
        ]  # fmt: skip


@contextmanager
def sshd(root: Path) -> Iterator[Sshd]:
    """An OpenSSH server with keys of its own on a port of its own."""
    folder = root / "ssh"
    folder.mkdir()
    for name in ("host_key", "client_key"):
        made = [program("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f"]
        subprocess.run([*made, str(folder / name)], check=True)
    port = free_port()
    config = folder / "sshd_config"
    config.write_text(_SERVER.format(port=port, root=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(
            mode=0o755, exist_ok=True
        )  # where sshd, started by root, drops its privileges
    argv = [program("sshd", "openssh-server"), "-D", "-e", "-f", str(config)]
    with running(argv, log=folder / "sshd.log") as process:
        wait_listening(port, process)
        yield Sshd(folder, port, process.pid)


@contextmanager
def ssh_tunnels(server: Sshd, upstream_port: int, number: int) -> Iterator[Sequence[tuple[int, int]]]:
    """`number` clients at once; (the server's port, the client's pid) of each."""
    with ExitStack() as stack:
        started = []
        for index in range(number):
            port = free_port()
            argv = server.client(port, upstream_port)
            process = stack.enter_context(running(argv, log=server.root / f"client-{index}.log"))
            started.append((port, process))
        for port, process in started:
            wait_listening(port, process)
        yield [(port, process.pid) for port, process in started]


@contextmanager
def ssh_forward(server: Sshd, upstream_port: int) -> Iterator[Target]:
    """One forwarded port as a target."""
    with ssh_tunnels(server, upstream_port, 1) as [(port, client)]:
        pids = {"sshd": family(server.pid), "ssh": family(client)}
        yield Target(SSH, "127.0.0.1", port, (), pids)
