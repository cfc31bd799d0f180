"""snitun: a tunnel that routes by the TLS server name and carries opaque TLS; no HTTP, no session of its own.

It is GPL, and so lives in its own environment (`make bench` installs it); here it is only started.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.figures import SNITUN
from loadtests.measure import Target
from testbed.ports import free_port
from testbed.programs import family, running, wait_listening

ROOT = Path(__file__).resolve().parents[2]
PYTHON_VARIABLE = "TOWLINE_BENCH_PEERS_PYTHON"
HOSTNAME = "localhost"  # the server name that wrk and curl send, since they connect by it


def peers_python() -> str:
    """The interpreter of the peers' environment; RuntimeError where it is not installed."""
    python = Path(os.environ.get(PYTHON_VARIABLE, ROOT / ".venv-bench-peers" / "bin" / "python"))
    if not python.exists():
        raise RuntimeError(
            f"snitun is not installed: make bench does it, or {PYTHON_VARIABLE} names its python"
        )
    return str(python)


@dataclass(frozen=True, slots=True)
class Snitun:
    """A running snitun server, and what a client needs."""

    root: Path
    sni_port: int
    pid: int
    order: dict[str, Any]


def _runner(end: str, order: dict[str, Any]) -> list[str]:
    script = Path(__file__).with_name("snitun_runner.py")
    return [peers_python(), "-I", str(script), end, json.dumps(order)]


@contextmanager
def snitun_server(root: Path) -> Iterator[Snitun]:
    order: dict[str, Any] = {
        "key": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "aes_key": os.urandom(32).hex(),
        "aes_iv": os.urandom(16).hex(),
        "sni_port": free_port(),
        "peer_port": free_port(),
    }
    with running(_runner("server", order), log=root / "snitun-server.log") as process:
        wait_listening(order["sni_port"], process)
        yield Snitun(root, order["sni_port"], process.pid, order)


@contextmanager
def snitun_client(server: Snitun, end_port: int, hostnames: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """One process that holds a tunnel for each hostname and connects to `end_port`."""
    argv = _runner("client", {**server.order, "end_port": end_port, "hostnames": hostnames})
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(
                f"snitun's client did not connect: {(server.root / 'snitun-server.log').read_text()}"
            )
        yield process
    finally:
        process.kill()  # it has no clean end, and none is measured
        process.communicate()


@contextmanager
def snitun_forward(server: Snitun, tls_port: int) -> Iterator[Target]:
    """One tunnel as a target: TLS from the visitor to the device's own TLS port."""
    with snitun_client(server, tls_port, [HOSTNAME]) as client:
        pids = {"server": family(server.pid), "client": family(client.pid)}
        yield Target(SNITUN, HOSTNAME, server.sni_port, (), pids, tls=True)
