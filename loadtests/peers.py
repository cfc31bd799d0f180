"""The peers beside the product: nginx as the upstream itself, and nginx as a plain proxy to it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.measure import Target, children

START_DEADLINE_S = 10
BULK_BYTES = 512 * 1024 * 1024  # long enough that start-up does not show, small enough for the page cache

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
    """The device's web server in every benchmark: `/1k`, `/64k`, `/bulk`; `/upload` reads all of it."""

    port: int
    target: Target


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} does not listen on port {port}") from None
            time.sleep(0.02)


@contextmanager
def _nginx(name: str, http: str, root: Path, port: int) -> Iterator[tuple[int, ...]]:
    binary = shutil.which("nginx", path="/usr/sbin:" + os.environ.get("PATH", ""))
    if binary is None:
        raise RuntimeError("nginx is missing: apt-get install nginx-light")
    config = root / f"{name}.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    config.write_text(user + _COMMON.format(root=root, name=name, http=http))
    process = subprocess.Popen([binary, "-e", str(root / f"{name}-start.log"), "-c", str(config)])
    try:
        _wait_listening(port, process)
        yield tuple(children(process.pid))
    finally:
        process.terminate()
        process.wait(timeout=START_DEADLINE_S)


@contextmanager
def upstream(root: Path) -> Iterator[Upstream]:
    """nginx serving files of 1 KB, 64 KB and BULK_BYTES from `root`."""
    www = root / "www"
    www.mkdir()
    (www / "1k").write_bytes(b"x" * 1024)
    (www / "64k").write_bytes(b"y" * 65536)
    with (www / "bulk").open("wb") as bulk:
        chunk = os.urandom(1 << 20)
        for _ in range(BULK_BYTES >> 20):
            bulk.write(chunk)
    port, sink_port = free_port(), free_port()
    sink = subprocess.Popen([sys.executable, "-m", "loadtests.sink", str(sink_port)])
    http = _UPSTREAM.format(port=port, root=root, sink=sink_port)
    try:
        _wait_listening(sink_port, sink)
        with _nginx("upstream", http, root, port) as pids:
            yield Upstream(port, Target("nginx direct", "127.0.0.1", port, (), {"nginx": pids}))
    finally:
        sink.terminate()
        sink.wait(timeout=START_DEADLINE_S)


@contextmanager
def nginx_proxy(root: Path, upstream_port: int) -> Iterator[Target]:
    """nginx as a keep-alive HTTP proxy to the upstream; no TLS, no checks."""
    port = free_port()
    with _nginx("proxy", _PROXY.format(port=port, upstream=upstream_port), root, port) as pids:
        yield Target("nginx as proxy", "127.0.0.1", port, (), {"proxy": pids})
