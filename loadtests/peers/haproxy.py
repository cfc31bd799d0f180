"""haproxy as a keep-alive HTTP proxy to the upstream; no TLS, no checks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtests.figures import HAPROXY
from loadtests.measure import Target
from testbed.ports import free_port
from testbed.programs import family, program, running, wait_listening

_CONFIG = """
global
  maxconn 4096
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 60s
  option http-keep-alive
frontend visitors
  bind 127.0.0.1:{port}
  default_backend device
backend device
  http-reuse always
  server device 127.0.0.1:{upstream}
"""


@contextmanager
def haproxy(root: Path, upstream_port: int) -> Iterator[Target]:
    port = free_port()
    config = root / "haproxy.cfg"
    config.write_text(_CONFIG.format(port=port, upstream=upstream_port))
    argv = [program("haproxy", "haproxy"), "-db", "-f", str(config)]
    with running(argv, log=root / "haproxy.log") as process:
        wait_listening(port, process)
        yield Target(HAPROXY, "127.0.0.1", port, (), {"proxy": family(process.pid)})
