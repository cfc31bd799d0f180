"""nginx as the upstream of every path, and nginx as a plain proxy to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.figures import DIRECT, DIRECT_TLS, PROXY
from loadtests.measure import Target
from testbed.ports import free_port
from testbed.programs import family, program, running, wait_listening

BULK_BYTES = 512 * 1024 * 1024  # long enough that start-up does not show, small enough for the page cache
STALLED_BYTES = 100_000_000

_COMMON = """
daemon off;
worker_processes 1;
error_log {root}/{name}-error.log warn;
pid {root}/{name}.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nodelay on;
  keepalive_requests 100000000;
  client_max_body_size 0;
  client_body_temp_path {root}/{name}-body;
  proxy_temp_path {root}/{name}-proxy;
  fastcgi_temp_path {root}/{name}-fastcgi;
  uwsgi_temp_path {root}/{name}-uwsgi;
  scgi_temp_path {root}/{name}-scgi;
{http}
}}
"""

_UPSTREAM = """
  server {{
    listen 127.0.0.1:{port};
    listen 127.0.0.1:{tls_port} ssl;
    ssl_certificate {root}/upstream.crt;
    ssl_certificate_key {root}/upstream.key;
    root {root}/www;
    default_type application/octet-stream;
    etag off;
    location /upload {{
      proxy_pass http://127.0.0.1:{sink};
      proxy_http_version 1.1;
      proxy_request_buffering off;
    }}
  }}
"""

_PROXY = """
  upstream device {{ server 127.0.0.1:{upstream}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://device;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_max_temp_file_size 0;
      proxy_request_buffering off;
    }}
  }}
"""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The device's web server in every benchmark: `/1k`, `/64k`, `/bulk`, `/stalled`; `/upload` reads it all.

    The same on a TLS port for paths that carry TLS through (snitun), who end it at the device.
    """

    port: int
    tls_port: int
    target: Target
    tls_target: Target


@contextmanager
def _nginx(name: str, http: str, root: Path, port: int) -> Iterator[tuple[int, ...]]:
    config = root / f"{name}.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    config.write_text(user + _COMMON.format(root=root, name=name, http=http))
    argv = [program("nginx", "nginx-light"), "-e", str(root / f"{name}-start.log"), "-c", str(config)]
    with running(argv) as process:
        wait_listening(port, process)
        yield family(process.pid)


def _files(www: Path) -> None:
    www.mkdir()
    (www / "1k").write_bytes(b"x" * 1024)
    (www / "64k").write_bytes(b"y" * 65536)
    (www / "stalled").write_bytes(b"z" * STALLED_BYTES)
    with (www / "bulk").open("wb") as bulk:
        chunk = os.urandom(1 << 20)
        for _ in range(BULK_BYTES >> 20):
            bulk.write(chunk)


def _certificate(root: Path) -> None:
    subprocess.run(
        [
            program("openssl", "openssl"), "req", "-x509",
            "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", str(root / "upstream.key"), "-out", str(root / "upstream.crt"),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip


@contextmanager
def upstream(root: Path) -> Iterator[Upstream]:
    """nginx serving files of 1 KB, 64 KB, 100 MB and BULK_BYTES from `root`."""
    _files(root / "www")
    _certificate(root)
    port, tls_port, sink_port = free_port(), free_port(), free_port()
    http = _UPSTREAM.format(port=port, tls_port=tls_port, root=root, sink=sink_port)
    with running([sys.executable, "-m", "loadtests.sink", str(sink_port)]) as sink:
        wait_listening(sink_port, sink)
        with _nginx("upstream", http, root, port) as pids:
            yield Upstream(
                port,
                tls_port,
                Target(DIRECT, "127.0.0.1", port, (), {"nginx": pids}),
                Target(DIRECT_TLS, "localhost", tls_port, (), {"nginx": pids}, tls=True),
            )


@contextmanager
def nginx_proxy(root: Path, upstream_port: int) -> Iterator[Target]:
    """nginx as a keep-alive HTTP proxy to the upstream; no TLS, no checks."""
    port = free_port()
    with _nginx("proxy", _PROXY.format(port=port, upstream=upstream_port), root, port) as pids:
        yield Target(PROXY, "127.0.0.1", port, (), {"proxy": pids})
