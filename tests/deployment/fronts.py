"""The proxies in front, started from the very files that are shipped in infra/.

What an operator changes in them, the words listed at the head of each, is changed here and nothing else:
names stay, ports and paths become those of the run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed import nginx
from testbed.certificates import Issued
from testbed.programs import program

INFRA = Path(__file__).resolve().parents[2] / "infra"
NGINX_STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


@dataclass(frozen=True, slots=True)
class Backends:
    """host:port of what stands behind a front, node a and node b, and the files it shows and trusts."""

    gateway: str
    visitors: tuple[str, str]
    devices: tuple[str, str]
    server_ca: Path
    gateway_certificate: Issued
    wildcard: Issued
    node_certificate: Issued


def replaced(text: str, words: Mapping[str, str]) -> str:
    """Every word must be there: a file that lost one would be tested with what it says itself."""
    for word, value in words.items():
        assert word in text, f"{word!r} is not in the file"
        text = text.replace(word, value)
    return text


def _addresses(backends: Backends) -> dict[str, str]:
    return {
        "10.0.0.11:8081": backends.visitors[0],
        "10.0.0.12:8081": backends.visitors[1],
        "10.0.0.11:8082": backends.devices[0],
        "10.0.0.12:8082": backends.devices[1],
    }


def _listens(http: int | None, https: int) -> dict[str, str]:
    words = {"listen 443": f"listen 127.0.0.1:{https}", "listen [::]:443": f"listen [::1]:{https}"}
    if http is not None:
        words |= {"listen 80": f"listen 127.0.0.1:{http}", "listen [::]:80": f"listen [::1]:{http}"}
    return words


def nginx_http(backends: Backends, *, http: int, https: int) -> str:
    """towline.conf."""
    text = (INFRA / "nginx" / "towline.conf").read_text()
    files = {}
    for site, issued in (
        ("gateway.example.com", backends.gateway_certificate),
        ("tunnel.example.net", backends.wildcard),
        ("node-a.example.com", backends.node_certificate),
    ):
        files[f"/etc/letsencrypt/live/{site}/fullchain.pem"] = str(issued.chain)
        files[f"/etc/letsencrypt/live/{site}/privkey.pem"] = str(issued.key)
    own = {"/etc/towline/server_ca.crt": str(backends.server_ca), "10.0.0.10:8080": backends.gateway}
    return replaced(text, files | own | _addresses(backends) | _listens(http, https))


def nginx_stream(backends: Backends, *, https: int, gateway_tls: int) -> str:
    """towline-stream.conf."""
    text = (INFRA / "nginx" / "towline-stream.conf").read_text()
    own = {"127.0.0.1:8443": f"127.0.0.1:{gateway_tls}"}
    return replaced(text, own | _addresses(backends) | _listens(None, https))


def nginx_argv(folder: Path, http: str, stream: str, gateway_server: str) -> list[str]:
    """One nginx with both files, as a distribution's nginx.conf includes them."""
    assert NGINX_STREAM_MODULE.exists(), (
        "this test needs nginx's stream module: apt-get install libnginx-mod-stream"
    )
    (folder / "towline.conf").write_text(http)
    (folder / "towline-stream.conf").write_text(stream)
    (folder / "gateway-tls.conf").write_text(gateway_server)
    stream = f"load_module {NGINX_STREAM_MODULE};\ninclude {folder}/towline-stream.conf;\n"
    return nginx.nginx_argv(
        folder,
        f"  access_log off;\n  include {folder}/towline.conf;\n  include {folder}/gateway-tls.conf;",
        before=stream,
    )


def gateway_tls_server(backends: Backends, port: int) -> str:
    """What the head of towline-stream.conf says: the gateway's server of towline.conf, behind the stream."""
    text = (INFRA / "nginx" / "towline.conf").read_text()
    found = re.search(r"# People, the API.*?^}\n", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    live = "/etc/letsencrypt/live/gateway.example.com"
    listens = "    listen 443 ssl http2;\n    listen [::]:443 ssl http2;\n"
    behind = f"listen 127.0.0.1:{port} ssl http2 proxy_protocol;"
    words = {
        listens: f"{behind}\nset_real_ip_from 127.0.0.1;\nreal_ip_header proxy_protocol;\n",
        f"{live}/fullchain.pem": str(backends.gateway_certificate.chain),
        f"{live}/privkey.pem": str(backends.gateway_certificate.key),
    }
    return replaced(found[0], words)


def haproxy_argv(folder: Path, backends: Backends, *, http: int, https: int) -> list[str]:
    text = (INFRA / "haproxy" / "haproxy.cfg").read_text()
    own = {
        "bind :80\n": f"bind 127.0.0.1:{http}\n",
        "bind :443\n": f"bind 127.0.0.1:{https}\n",
        "10.0.0.10:8080": backends.gateway,
        "/etc/towline/gateway.pem": str(backends.gateway_certificate.both),
        "abns@towline-gateway": f"abns@towline-gateway-{https}",  # one name space for the whole machine
    }
    (folder / "haproxy.cfg").write_text(replaced(text, own | _addresses(backends)))
    return [program("haproxy", "haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]


def caddy_argv() -> list[str]:
    return [
        program("caddy", "caddy"),
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        str(INFRA / "caddy" / "Caddyfile"),
    ]


def caddy_environment(
    folder: Path, backends: Backends, *, http: int, https: int, admin: int
) -> dict[str, str]:
    """The file as it is; its certificates for gateway and nodes are of a CA of its own, see ``caddy_ca``."""
    return {
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "TOWLINE_HTTP_PORT": str(http),
        "TOWLINE_HTTPS_PORT": str(https),
        "TOWLINE_CADDY_ADMIN": f"localhost:{admin}",
        # And the machine trusts that CA no more than before.
        "TOWLINE_CADDY_OPTION": "local_certs\nskip_install_trust",
        "TOWLINE_GATEWAY": backends.gateway,
        "TOWLINE_VISITORS": " ".join(backends.visitors),
        "TOWLINE_NODE_A": backends.devices[0],
        "TOWLINE_NODE_B": backends.devices[1],
        "TOWLINE_SERVER_CA": str(backends.server_ca),
        "TOWLINE_WILDCARD_CHAIN": str(backends.wildcard.chain),
        "TOWLINE_WILDCARD_KEY": str(backends.wildcard.key),
    }


def caddy_ca(folder: Path) -> Path:
    """The root of Caddy's own CA; it is there once the first site has its certificate."""
    return folder / "data" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
