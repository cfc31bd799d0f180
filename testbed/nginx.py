"""An nginx of the run's own: nothing of the machine's configuration, everything below one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from testbed.programs import program

_KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_GATEWAYS = """\
  map $http_upgrade $gateways_connection {{
    default "";
    ~*^websocket$ upgrade;
  }}
  upstream gateways {{
{servers}
    keepalive 16;
  }}
  server {{
    listen {listen};
    # More than the gateway takes: nginx's own user may not write below the run's folder.
    client_body_buffer_size 256k;
{tls}    location / {{
      proxy_pass http://gateways;
      proxy_http_version 1.1;
      proxy_set_header Connection $gateways_connection;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_buffering off;
    }}
  }}
"""


def nginx_argv(folder: Path, http: str, *, name: str = "nginx", before: str = "") -> list[str]:
    """An nginx in the foreground with `http` in its block of that name and `before` in front of it."""
    temporary = "".join(f"  {kind}_temp_path {folder}/{name}-{kind};\n" for kind in _KINDS)
    config = folder / f"{name}.conf"
    config.write_text(
        f"daemon off;\npid {folder}/{name}.pid;\nworker_processes 1;\n"
        f"{before}events {{ worker_connections 1024; }}\n"
        f"http {{\n{temporary}{http}\n}}\n"
    )
    return [program("nginx", "nginx-light"), "-p", str(folder), "-c", str(config), "-e", "stderr"]


def gateways_behind(
    listen: str, backends: Sequence[str], certificate: tuple[Path, Path] | None = None
) -> str:
    """A site at host:port before these gateways (host:port each); with (chain, key) it ends TLS."""
    servers = "\n".join(f"    server {backend};" for backend in backends)
    tls = ""
    if certificate is not None:
        chain, key = certificate
        tls = f"    ssl_certificate {chain};\n    ssl_certificate_key {key};\n"
        listen += " ssl"
    return "  access_log off;\n" + _GATEWAYS.format(servers=servers, listen=listen, tls=tls)
