"""What a tunnel server node needs to speak with the gateway and to be trusted by agents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.errors import KeyFileError
from gateway.keys.files import locked, write_private
from gateway.keys.keyring import Keyring
from gateway.policy.names import NODE_PATTERN


def issue_node_certificate(
    keyring: Keyring, name: str, hosts: Sequence[str], out: Path, now: float
) -> list[Path]:
    """Write into `out`: node.crt/node.key (client, CN = name), internal_ca.crt (whom the node trusts as the
    gateway), agents.crt/agents.key (server certificate for `hosts`), server_ca.crt (what agents trust).

    KeyFileError for a name that is not a DNS label. Existing files are replaced: that is how one renews.
    """
    if NODE_PATTERN.fullmatch(name) is None:
        raise KeyFileError(f"node name {name!r}: must be a DNS label in small letters")
    client = keyring.internal_ca.issue_client(name, now)
    listener = keyring.server_ca.issue_server(name, hosts, now)
    files = {
        "node.key": (client.key_pem(), 0o600),
        "node.crt": (client.certificate_pem(), 0o644),
        "internal_ca.crt": (keyring.internal_ca.pem().encode(), 0o644),
        "agents.key": (listener.key_pem(), 0o600),
        "agents.crt": (listener.certificate_pem(), 0o644),
        "server_ca.crt": (keyring.server_ca.pem().encode(), 0o644),
    }
    with locked(out):
        for file, (data, mode) in files.items():
            write_private(out / file, data, mode)
    return [out / file for file in files]
