"""What a certificate of the internal CA opens: a node's the nodes' routes, ingest's its own, others none."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from gateway.internal.app import ROUTERS
from gateway.internal.peer import any_peer, ingest_of, node_of
from gateway.keys.keyring import load_keyring
from gateway.policy.peers import Peer, PeerRole, peer_of
from tests.gateway.world import World

UNKNOWN = "d_zzzzzzzzzzzzzzzz"
ROUTES = [
    (asked, method, route.path.replace("{sid}", UNKNOWN).replace("{device_id}", UNKNOWN))
    for router, asked in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute) and asked is not any_peer
    for method in sorted(route.methods or ())
]


def peer(world: World, unit: str | None) -> httpx.AsyncClient:
    """Somebody with a certificate of the internal CA for this unit."""
    keyring, now = load_keyring(world.settings.keys_dir, world.clock.wall()), world.clock.wall()
    issued = keyring.internal_ca.issue_client("one", now, unit=unit)
    folder = Path(world.folder)
    (folder / "peer.crt").write_bytes(issued.certificate_pem())
    (folder / "peer.key").write_bytes(issued.key_pem())
    (folder / "peer-ca.crt").write_text(keyring.internal_ca.pem())
    context = ssl.create_default_context(cafile=str(folder / "peer-ca.crt"))
    context.load_cert_chain(folder / "peer.crt", folder / "peer.key")
    return world.internal(context)


ROLES = {None: node_of, "ingest": ingest_of, "gateway": None, "node": None}


@pytest.mark.parametrize("unit", ROLES)
async def test_each_kind_of_peer_has_its_own_routes(world: World, unit: str | None) -> None:
    client, own = peer(world, unit), ROLES[unit]
    opened, refused = 0, 0
    for asked, method, path in ROUTES:
        answer = await client.request(method, path, json={} if method == "POST" else None)
        shut = answer.status_code == 403 and answer.json()["code"] == "wrong_peer"
        assert shut is (asked is not own), (unit, method, path, answer.text)
        opened, refused = opened + (not shut), refused + shut
    assert refused >= 9 if own is not node_of else opened >= 9


async def test_the_feed_is_for_all_that_are_known(world: World) -> None:
    for unit, status in ((None, 200), ("ingest", 200), ("gateway", 403), ("broker", 403)):
        async with peer(world, unit).stream("GET", "/internal/v1/revocations") as answer:
            assert answer.status_code == status


@pytest.mark.parametrize(
    ("subject", "found"),
    [
        ([], Peer(None, "")),
        ([[("commonName", "a")]], Peer(PeerRole.NODE, "a")),
        ([[("organizationalUnitName", "ingest")], [("commonName", "a")]], Peer(PeerRole.INGEST, "a")),
        ([[("organizationalUnitName", "Ingest")], [("commonName", "a")]], Peer(None, "a")),
        (
            [*([("organizationalUnitName", u)] for u in "xy"), [("commonName", "a")]],
            Peer(None, ""),
        ),
        ([[("commonName", "a")], [("commonName", "b")]], Peer(None, "")),
    ],
)
def test_what_a_subject_says(subject: list[list[tuple[str, str]]], found: Peer) -> None:
    assert peer_of(subject) == found
