"""Every secret is good at its own door alone: shown at all the others it opens nothing, and is not used up.

The same secret is taken to each foreign door first and to its own at the end: that it opens there shows that
it was good all the while, and that no other door burnt it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi.routing import APIRoute

from gateway.internal.app import ROUTERS
from gateway.keys.authority import NODE_LIFETIME
from gateway.keys.keyring import Keyring, load_keyring
from gateway.policy.clients import OWN_CLIENT
from runtime.tcp_door import PATH, SUBPROTOCOL
from runtime.tunnel_link import dial
from testbed.people import CALL_TIMEOUT_S, OPEN_PATH, Link, Person, entered, http_client
from testbed.processes import short_folder, started
from testbed.services import enrol
from testbed.settings_tables import ADMIN, PASSWORD, agent_table, write_table
from testbed.small_site import SmallSite
from tests.gateway.world import make_csr
from tests.tunnel_server.doubles import DeviceKey, TestDevice
from tunnel_agent.gateway_client import trust
from tunnel_agent.identity import Identity, IdentityStore
from tunnel_protocol import CloseCode

LOGIN_COOKIE, SESSION_COOKIE = "towline_login", "towline_session"
REFUSED = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
    }
)
"""Not 429 (nobody looked at it), 410 (it was known) or 422 (it was not understood)."""


@dataclass
class Ground:
    """A gateway, a node, a device with a page and a TCP service, and one that is enrolled and not there."""

    site: SmallSite
    owner: Person
    device: str
    absent: Identity
    keyring: Keyring
    web: Link
    tcp: Link
    enrolment: str
    secrets: dict[str, str] = field(repr=False)

    def internal(self, pair: tuple[Path, Path] | None = None) -> httpx.Client:
        """A client of the gateway's internal listener, with or without a certificate and its key."""
        context = ssl.create_default_context(cafile=self.site.folder / "certificates" / "internal_ca.crt")
        if pair is not None:
            context.load_cert_chain(*pair)
        port = self.site.gateways.ports[0].internal
        url = f"https://localhost:{port}"
        return httpx.Client(base_url=url, verify=context, trust_env=False, timeout=CALL_TIMEOUT_S)

    def node(self) -> httpx.Client:
        certificates = self.site.folder / "certificates"
        return self.internal((certificates / "node.crt", certificates / "node.key"))


def other_device(site: SmallSite, owner: Person) -> Identity:
    """Enrolled; no agent runs for it."""
    state = site.folder / "absent-state"
    config = write_table(site.folder / "absent.toml", agent_table(state, {"web": 9}))
    enrol(site.url, owner.registration_token(), config, hardware_id="absent", name="absent")
    return IdentityStore(state).load()


def asked_to_join(owner: Person) -> dict[str, Any]:
    """The answer to a device that waits for its approval."""
    wish = enrolment(owner.registration_token(approve=False))
    answer: dict[str, Any] = owner.call("POST", "/v1/enrolments", wish)
    return answer


def enrolment(token: str) -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    return {
        "token": token,
        "csr": make_csr(key),
        "name": "Newcomer",
        "hardware_id": secrets.token_hex(6),
        "software": "test/1",
    }


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with short_folder("door-") as folder, started(SmallSite(folder)) as site:
        owner = site.gateways.owner()
        device = site.add_device("greenhouse", owner, tcp=True)
        absent = other_device(site, owner)
        keyring = load_keyring(folder / "keys", time.time())
        web, tcp, fresh = (owner.open_session(device, service) for service in ("web", "tcp", "web"))
        pending = asked_to_join(owner)
        with closing(entered(web["url"])) as visitor, closing(site.gateways.person()) as program:
            wish = {"username": ADMIN, "password": PASSWORD, "refresh": True}
            logged_in = program.call("POST", "/v1/login", wish)
            made = Ground(
                site, owner, device, absent, keyring, visitor.link, Link.parse(tcp["url"]),
                pending["enrolment_id"], {},
            )  # fmt: skip
            made.secrets.update(
                {
                    "access token": logged_in["access_token"],
                    "refresh token": logged_in["refresh_token"],
                    "API token": owner.call(
                        "POST", "/v1/me/api-tokens", {"name": "script", "scopes": ["devices:read"]}
                    )["token"],
                    "registration token": owner.registration_token(),
                    "poll secret": pending["poll_secret"],
                    "link token": Link.parse(fresh["url"]).token,
                    "login cookie": owner.http.cookies[LOGIN_COOKIE],
                    "session cookie": visitor.http.cookies[SESSION_COOKIE],
                    "TCP session id": tcp_session_id(tcp["url"]),
                    "fresh link": fresh["url"],
                }
            )
            with closing(made.node()) as node:
                grant = node.get(f"/internal/v1/sessions/{web['id']}/grant")
                made.secrets["grant token"] = grant.json()["grant"]
            yield made


def tcp_session_id(url: str) -> str:
    link = Link.parse(url)
    with closing(http_client(link, Origin=link.origin)) as client:
        answer = client.post(PATH, data={"token": link.token})
        assert answer.status_code == HTTPStatus.OK, answer.text
        return str(answer.json()["session_id"])


def at_gateway(ground: Ground, method: str, path: str, **sent: Any) -> int:
    """As somebody without a cookie of their own."""
    with closing(http_client(Link.parse(ground.site.url))) as client:
        return client.request(method, path, **sent).status_code


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def gateway_bearer(ground: Ground, secret: str) -> int:
    return at_gateway(ground, "GET", "/v1/devices", headers=bearer(secret))


def gateway_cookie(ground: Ground, secret: str) -> int:
    return at_gateway(ground, "GET", "/v1/devices", headers={"Cookie": f"{LOGIN_COOKIE}={secret}"})


def gateway_refresh(ground: Ground, secret: str) -> int:
    form = {"grant_type": "refresh_token", "client_id": OWN_CLIENT, "refresh_token": secret}
    return at_gateway(ground, "POST", "/v1/oauth/token", data=form)


def gateway_enrolment(ground: Ground, secret: str) -> int:
    return at_gateway(ground, "POST", "/v1/enrolments", json=enrolment(secret))


def gateway_poll(ground: Ground, secret: str) -> int:
    return at_gateway(ground, "GET", f"/v1/enrolments/{ground.enrolment}", headers=bearer(secret))


def internal_listener(ground: Ground, secret: str) -> int:
    """Nothing but a certificate opens it: 0 is a connection that TLS refused."""
    headers = bearer(secret) | {"Cookie": f"{LOGIN_COOKIE}={secret}; {SESSION_COOKIE}={secret}"}
    with closing(ground.internal()) as client:
        try:
            return client.get("/internal/v1/keys", headers=headers).status_code
        except httpx.TransportError:
            return 0


def at_node(link: Link, method: str, path: str, **sent: Any) -> int:
    """From an address of its own: limits of guessers are not the subject."""
    address = f"192.0.2.{secrets.randbelow(250) + 1}"
    with closing(http_client(link, Origin=link.origin)) as client:
        client.headers["X-Forwarded-For"] = address
        return client.request(method, path, **sent).status_code


def node_page(ground: Ground, secret: str) -> int:
    return at_node(ground.web, "GET", "/", headers={"Cookie": f"{SESSION_COOKIE}={secret}"})


def node_page_bearer(ground: Ground, secret: str) -> int:
    return at_node(ground.web, "GET", "/", headers=bearer(secret))


def node_link(ground: Ground, secret: str) -> int:
    own = secret == ground.secrets["link token"]
    link = Link.parse(ground.secrets["fresh link"]) if own else ground.web
    return at_node(link, "POST", OPEN_PATH, data={"token": secret})


def tcp_door(ground: Ground, secret: str) -> int:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode(),
        "Sec-WebSocket-Protocol": SUBPROTOCOL,
    }
    return at_node(ground.tcp, "GET", PATH, headers=upgrade | bearer(secret))


def tcp_link(ground: Ground, secret: str) -> int:
    own = secret == ground.secrets["link token"]
    link = Link.parse(ground.secrets["fresh link"]) if own else ground.tcp
    return at_node(link, "POST", PATH, data={"token": secret})


class Pretender(DeviceKey):
    """Signs with a secret that is no key."""

    def __init__(self, identity: Identity, secret: str) -> None:
        self.key_id = identity.key.key_id
        self.public = identity.key.public_der
        self._secret = secret

    def sign(self, data: bytes) -> bytes:
        return hashlib.sha512(self._secret.encode()).digest()


class Owned(Pretender):
    """Signs with the device's key."""

    def __init__(self, identity: Identity) -> None:
        super().__init__(identity, "")
        self._key = identity.key

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


async def at_tunnel_door(identity: Identity, key: DeviceKey) -> CloseCode | None:
    """None: let in."""
    device = TestDevice(key, ("127.0.0.1", 9), device_id=identity.device_id)
    (url,) = identity.tunnel_urls
    await dial(url, device, ssl=trust(identity.server_ca), max_message=1 << 20, timeout_s=CALL_TIMEOUT_S)
    device.ended.add_done_callback(lambda _: device.ready.set())
    try:
        await device.wait_ready()
        return device.ended.result().code if device.ended.done() else None
    finally:
        await device.close()


def tunnel_door(ground: Ground, secret: str) -> int:
    """0: refused as what does not hold."""
    code = asyncio.run(at_tunnel_door(ground.absent, Pretender(ground.absent, secret)))
    return 0 if code is CloseCode.AUTH_FAILED else HTTPStatus.OK


Door = Callable[[Ground, str], int]
DOORS: tuple[Door, ...] = (
    gateway_bearer,
    gateway_cookie,
    gateway_refresh,
    gateway_enrolment,
    gateway_poll,
    internal_listener,
    node_page,
    node_page_bearer,
    node_link,
    tcp_door,
    tcp_link,
    tunnel_door,
)
NO_DOOR = None  # the device alone reads a grant, in the tunnel that the node has with it
OWN: dict[str, tuple[Door | None, int]] = {
    "access token": (gateway_bearer, HTTPStatus.OK),
    "API token": (gateway_bearer, HTTPStatus.OK),
    "login cookie": (gateway_cookie, HTTPStatus.OK),
    "refresh token": (gateway_refresh, HTTPStatus.OK),
    "registration token": (gateway_enrolment, HTTPStatus.CREATED),
    "poll secret": (gateway_poll, HTTPStatus.OK),
    "session cookie": (node_page, HTTPStatus.OK),
    "link token": (node_link, HTTPStatus.SEE_OTHER),
    "TCP session id": (tcp_door, HTTPStatus.SWITCHING_PROTOCOLS),
    "grant token": (NO_DOOR, 0),
}


JWTS = frozenset({"access token", "link token", "grant token"})
"""Longer than what the doors of enrolment read at all: they answer 422."""


@pytest.mark.parametrize("name", OWN)
def test_a_secret_is_good_at_its_own_door_alone(ground: Ground, name: str) -> None:
    secret, (own, opens) = ground.secrets[name], OWN[name]
    said = {door.__name__: door(ground, secret) for door in DOORS if door is not own}
    refused = REFUSED | {0}
    odd = {door for door, status in said.items() if status not in refused}
    assert odd == ({"gateway_enrolment", "gateway_poll"} if name in JWTS else set()), said
    assert {said[door] for door in odd} <= {HTTPStatus.UNPROCESSABLE_ENTITY}, said
    assert {door for door, status in said.items() if status == 0} == {"internal_listener", "tunnel_door"}
    if own is not None:
        assert own(ground, secret) == opens


def test_the_tunnel_door_takes_the_devices_key(ground: Ground) -> None:
    assert asyncio.run(at_tunnel_door(ground.absent, Owned(ground.absent))) is None


def device_certificate(ground: Ground) -> tuple[Path, Path]:
    state = ground.site.folder / "absent-state"
    return state / "device.crt", state / "device.key"


def expired_node_certificate(ground: Ground) -> tuple[Path, Path]:
    """Of this gateway's own CA for the node's own name, and no longer good."""
    long_ago = time.time() - NODE_LIFETIME.total_seconds() - 86_400
    issued = ground.keyring.internal_ca.issue_client("node", long_ago)
    certificate, key = ground.site.folder / "expired.crt", ground.site.folder / "expired.key"
    certificate.write_bytes(issued.certificate_pem())
    key.write_bytes(issued.key_pem())
    return certificate, key


def agents_listener_certificate(ground: Ground) -> tuple[Path, Path]:
    folder = ground.site.folder / "certificates"
    return folder / "agents.crt", folder / "agents.key"


@pytest.mark.parametrize(
    "certificate", [device_certificate, expired_node_certificate, agents_listener_certificate]
)
def test_the_internal_listener_takes_a_nodes_certificate_alone(
    ground: Ground, certificate: Callable[[Ground], tuple[Path, Path]]
) -> None:
    with closing(ground.internal(certificate(ground))) as client, pytest.raises(httpx.TransportError):
        client.get("/internal/v1/keys")
    with closing(ground.node()) as node:
        assert node.get("/internal/v1/keys").status_code == HTTPStatus.OK


def internal_routes() -> list[tuple[str, str]]:
    found = [route for router, _ in ROUTERS for route in router.routes]
    table = [(method, r.path) for r in found if isinstance(r, APIRoute) for method in sorted(r.methods or ())]
    assert len(table) >= 10
    return table


@pytest.mark.parametrize(("method", "path"), internal_routes())
def test_the_public_listener_has_none_of_the_nodes_routes(ground: Ground, method: str, path: str) -> None:
    there = path.replace("{sid}", str(uuid4())).replace("{device_id}", ground.device)
    there = there.replace("{topic}/{part}", "up/0")
    assert "{" not in there
    body: dict[str, str] | None = {} if method == "POST" else None
    answer = ground.owner.http.request(method, there, json=body)
    assert answer.status_code == HTTPStatus.NOT_FOUND, answer.text
