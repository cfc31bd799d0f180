"""What the gateway's peers need to speak with it: tunnel server nodes and ingest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.errors import KeyFileError
from gateway.keys.files import locked, write_private
from gateway.keys.keyring import Keyring
from gateway.policy.names import NODE_PATTERN
from gateway.policy.peers import PeerRole


def issue_node_certificate(
    keyring: Keyring, name: str, hosts: Sequence[str], out: Path, now: float
) -> list[Path]:
    """Write into `out`: node.crt/node.key (client, CN = name), internal_ca.crt (whom the node trusts as the
    gateway), agents.crt/agents.key (server certificate for `hosts`), server_ca.crt (what agents trust).

    KeyFileError for a name that is not a DNS label. Existing files are replaced: that is how one renews.
    """
    files = _client_files(keyring, name, "node", None, now)
    listener = keyring.server_ca.issue_server(name, hosts, now)
    files |= {
        "agents.key": (listener.key_pem(), 0o600),
        "agents.crt": (listener.certificate_pem(), 0o644),
        "server_ca.crt": (keyring.server_ca.pem().encode(), 0o644),
    }
    return _put(files, out)


def issue_ingest_certificate(
    keyring: Keyring, name: str, out: Path, now: float, hosts: Sequence[str] = ()
) -> list[Path]:
    """Write into `out`: ingest.crt/ingest.key (client, CN = name, and the unit that makes it no node's) and
    internal_ca.crt (whom ingest trusts as the gateway). With `hosts` also listener.crt/listener.key (server
    certificate for them: where the gateway hands over what devices say over HTTPS).

    KeyFileError for a name that is not a DNS label. Existing files are replaced: that is how one renews.
    """
    files = _client_files(keyring, name, "ingest", PeerRole.INGEST, now)
    if hosts:
        listener = keyring.internal_ca.issue_server(name, hosts, now)
        files |= {
            "listener.key": (listener.key_pem(), 0o600),
            "listener.crt": (listener.certificate_pem(), 0o644),
        }
    return _put(files, out)


def issue_gateway_certificate(keyring: Keyring, out: Path, now: float) -> list[Path]:
    """Write into `out`: gateway.crt/gateway.key (client, CN = gateway: the broker lets that send commands)
    and internal_ca.crt, for the tables `broker` and `log` of gateways and consumers.
    """
    return _put(_client_files(keyring, PeerRole.GATEWAY, "gateway", PeerRole.GATEWAY, now), out)


_Files = dict[str, tuple[bytes, int]]  # name → contents, mode


def _client_files(keyring: Keyring, name: str, file: str, role: PeerRole | None, now: float) -> _Files:
    if NODE_PATTERN.fullmatch(name) is None:
        raise KeyFileError(f"name {name!r}: must be a DNS label in small letters")
    client = keyring.internal_ca.issue_client(name, now, unit=role)
    return {
        f"{file}.key": (client.key_pem(), 0o600),
        f"{file}.crt": (client.certificate_pem(), 0o644),
        "internal_ca.crt": (keyring.internal_ca.pem().encode(), 0o644),
    }


def _put(files: _Files, out: Path) -> list[Path]:
    with locked(out):
        for file, (data, mode) in files.items():
            write_private(out / file, data, mode)
    return [out / file for file in files]
