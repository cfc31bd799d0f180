"""A real Redis (Debian's redis-server) for tests: on loopback, with a password, to start and to break."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import subprocess
from pathlib import Path

from testbed.ports import LOOPBACK, free_ports
from testbed.programs import ended, program, send
from testbed.waiting import eventually
from towline.embedded.processes import launch_argv


class RedisServer:
    """One server below `folder`, which forgets all at its end. `tls` (chain, key): it has a TLS port too."""

    def __init__(self, folder: Path, tls: tuple[Path, Path] | None = None) -> None:
        self._folder = folder
        self._tls = tls
        self.port, self.tls_port = free_ports(2)
        self.password = secrets.token_urlsafe(16)
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, *, database: int = 0, tls: bool = False, host: str = LOOPBACK) -> str:
        scheme, port = ("rediss", self.tls_port) if tls else ("redis", self.port)
        return f"{scheme}://:{self.password}@{host}:{port}/{database}"

    def start(self) -> None:
        """Returns when it answers. May be repeated after an end."""
        config = self._folder / "redis.conf"
        # In the file, not in the arguments: those are everybody's to read.
        config.write_text(
            f'bind {LOOPBACK}\nport {self.port}\nrequirepass {self.password}\nsave ""\nappendonly no\n'
            f"dir {self._folder}\nmaxmemory 64mb\nmaxmemory-policy volatile-ttl\n{self._tls_lines()}"
        )
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                launch_argv(
                    [program("redis-server", "redis-server"), str(config)], death_signal=signal.SIGKILL
                ),
                stdout=log,
                stderr=log,
            )
        eventually("redis answers", lambda: self.ask("PING") == "+PONG")

    def ask(self, *words: str) -> str:
        """The first line of the answer to one command, without a client between."""
        with socket.create_connection((LOOPBACK, self.port), timeout=2) as line:
            stream = line.makefile("rwb")
            for command in (("AUTH", self.password), words):
                parts = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in command)
                stream.write(b"*%d\r\n%s" % (len(command), parts))
                stream.flush()
                answer = stream.readline()
        return answer.decode().strip()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None, "redis runs"
        send(self._process, number)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._process is not None:
                self._process.send_signal(signal.SIGCONT)
        self._end(signal.SIGTERM)

    def _tls_lines(self) -> str:
        if self._tls is None:
            return ""
        chain, key = self._tls
        return f"tls-port {self.tls_port}\ntls-cert-file {chain}\ntls-key-file {key}\ntls-auth-clients no\n"

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            assert ended(self._process), "redis did not end"
            self._process = None
