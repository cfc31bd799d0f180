"""Makes what the parts of infra/compose.yaml show each other: passwords, keys, certificates.

Runs in the image. Run again it keeps every password and key, and renews the certificates, which last a year.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from gateway.keys.keyring import Keyring, load_keyring
from gateway.keys.node_certificates import (
    issue_gateway_certificate,
    issue_ingest_certificate,
    issue_node_certificate,
)

# Whose processes read a folder: the users of the images (infra/Containerfile, and the official ones).
TOWLINE, POSTGRES, REDIS, KAFKA, MOSQUITTO = 10001, 999, 999, 1000, 1883
OWNERS = {
    "gateway": TOWLINE,
    "owner": TOWLINE,
    "node-a": TOWLINE,
    "ingest-0": MOSQUITTO,  # it writes the broker's list
    "ingest-1": TOWLINE,
    "postgres": POSTGRES,
    "redis": REDIS,
    "kafka": KAFKA,
    "mosquitto": MOSQUITTO,
    "run": MOSQUITTO,
}
# What the gateway asks of Redis, and no more (docs/runbook.md, "Setting Redis up").
REDIS_RIGHTS = (
    "resetchannels ~towline:* &towline:wake:* -@all +set +getdel +get +eval +evalsha +script|load"
    " +publish +psubscribe +ping +auth +select"
)


class Site:
    """The folder that is mounted into the parts, piece by piece."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in OWNERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name).chmod(0o700)

    def write(self, name: str, data: bytes | str) -> None:
        """For its reader alone."""
        path = self.folder / name
        path.touch(0o600)
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    def secret(self, name: str) -> str:
        """Made once."""
        path = self.folder / name
        if not path.exists():
            self.write(name, secrets.token_urlsafe(32))
        return path.read_text()

    def hand_over(self, owners: Mapping[str, int]) -> None:
        """To each part's user; only root can, and only root's folder needs it."""
        if os.geteuid() != 0:
            return
        for name, owner in owners.items():
            for path in (self.folder / name, *(self.folder / name).rglob("*")):
                shutil.chown(path, owner, owner)


def put_passwords(site: Site) -> None:
    site.secret("postgres/superuser-password")
    service, owner = site.secret("postgres/service-password"), site.secret("postgres/owner-password")
    site.write("gateway/database-url", f"postgresql://towline:{service}@postgres/towline")
    site.write("owner/url", f"postgresql://towline_owner:{owner}@postgres/towline")
    redis = site.secret("gateway/redis-password")
    site.write("gateway/redis-url", f"redis://towline:{redis}@redis:6379")
    digest = hashlib.sha256(redis.encode()).hexdigest()
    site.write("redis/users.acl", f"user default off\nuser towline on #{digest} {REDIS_RIGHTS}\n")
    site.secret("gateway/admin-password")


def put_certificates(site: Site, keyring: Keyring, node: str, broker: str, now: float) -> None:
    server_ca, internal_ca = keyring.server_ca.pem(), keyring.internal_ca.pem()
    issue_node_certificate(keyring, "node-a", [node], site.folder / "node-a", now)
    for bridge in ("ingest-0", "ingest-1"):
        # The broker's ACL knows both by this name.
        issue_ingest_certificate(keyring, "ingest", site.folder / bridge, now, [bridge])
        site.write(f"{bridge}/server_ca.crt", server_ca)
    issue_gateway_certificate(keyring, site.folder / "gateway", now)
    site.write("gateway/server_ca.crt", server_ca)
    kafka = keyring.server_ca.issue_server("kafka", ["kafka"], now)
    site.write("kafka/kafka.pem", kafka.key_pem() + kafka.certificate_pem())
    site.write("kafka/clients-ca.pem", internal_ca)
    shown = keyring.server_ca.issue_server("mosquitto", ["mosquitto", broker], now)
    site.write("mosquitto/broker.pem", shown.certificate_pem())
    site.write("mosquitto/broker.key", shown.key_pem())
    site.write("mosquitto/internal-ca.pem", internal_ca)
    site.write("mosquitto/devices-ca.pem", keyring.device_ca.pem())
    if not (site.folder / "mosquitto/devices-crl.pem").exists():  # the keeper's, from then on
        site.write("mosquitto/devices-crl.pem", keyring.device_ca.revocation_list([], now))


def prepare(out: Path, acl: Path, node: str, broker: str, now: float) -> Site:
    """All of it, below `out`; `node` and `broker` are the names that devices dial."""
    site = Site(out)
    (out / "gateway/audit-heads").mkdir(exist_ok=True)
    put_passwords(site)
    keyring = load_keyring(out / "gateway/keys", now, serves=False)
    put_certificates(site, keyring, node, broker, now)
    site.write("mosquitto/acl", acl.read_bytes())
    return site


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the secrets of infra/compose.yaml.")
    parser.add_argument("--out", type=Path, required=True, help="the folder `site`")
    parser.add_argument("--acl", type=Path, default=Path(__file__).parent / "acl", help="the broker's")
    parser.add_argument("--node", required=True, help="name that devices dial for their tunnels")
    parser.add_argument("--broker", required=True, help="name that devices dial for their messages")
    given = parser.parse_args()
    site = prepare(given.out, given.acl, given.node, given.broker, time.time())
    site.hand_over(OWNERS)
    print(f"{given.out} is prepared; the administrator's password is in gateway/admin-password")


if __name__ == "__main__":
    main()
