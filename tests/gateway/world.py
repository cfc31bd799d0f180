"""A running gateway and the people, devices and nodes that talk to it, all over real sockets."""

from __future__ import annotations

import base64
import hashlib
import secrets
import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import argon2
import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

from gateway.app import Gateway
from gateway.keys.keyring import load_keyring
from gateway.keys.node_certificates import issue_node_certificate
from gateway.passwords import Passwords
from gateway.settings import Settings
from gateway.store import people
from runtime.clock import Clock

ORIGIN = "http://gateway.localhost:8080"
ADMIN_PASSWORD = "correct horse battery staple"
WELCOME_SECRET = "welcome-secret-for-tests"
CHEAP = argon2.profiles.CHEAPEST


@dataclass
class Device:
    """A device's own side: its key, what enrolment answered, its instance."""

    id: str
    key: ec.EllipticCurvePrivateKey
    enrolment: dict[str, Any]
    instance: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def public_der(self) -> bytes:
        """SubjectPublicKeyInfo."""
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def key_id(self) -> str:
        return hashlib.sha256(self.public_der).hexdigest()[:32]

    def sign(self, message: bytes) -> bytes:
        r, s = utils.decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def make_csr(key: Any, common_name: str = "ignored") -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def settings_for(folder: Path, database_url: str, keys_dir: Path, **changes: Any) -> Settings:
    (folder / "admin").write_text(ADMIN_PASSWORD + "\n")
    (folder / "welcome").write_text(WELCOME_SECRET)
    settings = Settings(
        public_url=ORIGIN,
        keys_dir=keys_dir,
        agent_tunnel_urls=("wss://localhost:8082/tunnel",),
        public_listen="127.0.0.1:0",
        internal_listen="127.0.0.1:0",
        ops_listen="127.0.0.1:0",
        database_url=database_url,
        tunnel_scheme="http",
        tunnel_domain="localhost",
        tunnel_port=8081,
        admin_password_file=folder / "admin",
        welcome_secret_file=folder / "welcome",
    )
    return replace(settings, **changes)


class World:
    """One gateway. Close it with `close`."""

    def __init__(self, settings: Settings, clock: Clock, folder: Path) -> None:
        self.settings = settings
        self.clock = clock
        self.folder = folder
        self.passwords = Passwords(CHEAP)  # its own: who waits for a check waits in one loop
        self.gateway = Gateway(settings, clock, self.passwords)
        self._clients: list[httpx.AsyncClient] = []

    async def start(self) -> World:
        await self.gateway.start()
        return self

    async def prepared(self) -> World:
        await self.gateway.prepared
        return self

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
        await self.gateway.close()

    def browser(self) -> httpx.AsyncClient:
        """Not logged in; sends what a browser sends from the gateway's own pages."""
        return self._client(headers={"origin": ORIGIN, "sec-fetch-site": "same-origin"})

    def program(self, token: str | None = None) -> httpx.AsyncClient:
        """A client that is no browser."""
        return self._client(headers={} if token is None else {"authorization": f"Bearer {token}"})

    async def person(self, username: str = "admin", password: str = ADMIN_PASSWORD) -> httpx.AsyncClient:
        """A browser that is logged in; another name than the administrator's is created first."""
        if username != self.settings.admin_username:
            await self.add_user(username, password)
        return await self.again(username, password)

    async def again(self, username: str, password: str = ADMIN_PASSWORD) -> httpx.AsyncClient:
        """One more browser in which this person is logged in."""
        client = self.browser()
        answer = await client.post("/v1/login", json={"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        return client

    async def add_user(self, username: str, password: str = ADMIN_PASSWORD) -> UUID:
        password_hash = await self.passwords.hash(password)
        async with self.gateway.parts.database.transaction() as tx:
            return await people.put_user(tx, username, password_hash)

    async def enrol(
        self, owner: httpx.AsyncClient, *, approve: bool = True, name: str = "Pump", type: str | None = None
    ) -> Device:
        wish = {"approve": approve} | ({} if type is None else {"type": type})
        token = (await owner.post("/v1/registration-tokens", json=wish)).json()["token"]
        key = ec.generate_private_key(ec.SECP256R1())
        body = {
            "token": token,
            "csr": make_csr(key),
            "name": name,
            "hardware_id": f"hw-{secrets.token_hex(6)}",
            "software": "agent 1.0",
        }
        answer = await self.program().post("/v1/enrolments", json=body)
        assert answer.status_code == 201, answer.text
        return Device(answer.json()["device_id"], key, answer.json())

    def node(self, name: str = "node-a") -> Node:
        """A tunnel server node with its own client certificate."""
        out = self.folder / f"node-{name}"
        keyring = load_keyring(self.settings.keys_dir, self.clock.wall())
        issue_node_certificate(keyring, name, ["localhost"], out, self.clock.wall())
        context = ssl.create_default_context(cafile=str(out / "internal_ca.crt"))
        context.load_cert_chain(out / "node.crt", out / "node.key")
        return Node(name, self.internal(context), self.clock)

    def internal(self, context: ssl.SSLContext) -> httpx.AsyncClient:
        url = f"https://localhost:{self.gateway.internal_address.port}"
        return self._keep(httpx.AsyncClient(base_url=url, verify=context, trust_env=False))

    def _client(self, **options: Any) -> httpx.AsyncClient:
        url = f"http://{self.gateway.public_address}"
        return self._keep(httpx.AsyncClient(base_url=url, trust_env=False, **options))

    def _keep(self, client: httpx.AsyncClient) -> httpx.AsyncClient:
        self._clients.append(client)
        return client


class Node:
    """What a tunnel server node says to the gateway."""

    def __init__(self, name: str, client: httpx.AsyncClient, clock: Clock) -> None:
        self.name = name
        self.http = client
        self.boot = secrets.token_hex(8)
        self._clock = clock

    async def report(self, *events: dict[str, Any], full: bool = False) -> Any:
        body = {"node": self.name, "boot": self.boot, "full": full, "events": list(events)}
        answer = await self.http.post("/internal/v1/presence", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def connect(self, device: Device, connection: int = 1) -> None:
        await self.report(self.event(device, connection=connection))

    def event(self, device: Device, **changes: Any) -> dict[str, Any]:
        event = {
            "device_id": device.id,
            "instance": device.instance,
            "connection": 1,
            "state": "connected",
            "at": self._clock.wall(),
            "software": "agent 1.0",
            "services": [{"name": "web", "kind": "web"}, {"name": "ssh", "kind": "tcp"}],
            "rtt_ms": 3.5,
            "error": None,
        }
        return {**event, **changes}

    async def redeem(self, *, label: str, cookie: str = "cookie", **presented: str) -> httpx.Response:
        body = {"label": label, "cookie_sha256": sha256_hex(cookie), "client": "192.0.2.1", **presented}
        return await self.http.post("/internal/v1/links/redeem", json=body)

    async def resolve(self, label: str, cookie: str = "cookie") -> httpx.Response:
        body = {"label": label, "cookie_sha256": sha256_hex(cookie)}
        return await self.http.post("/internal/v1/sessions/resolve", json=body)


def sha256_hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class OpenedLink:
    """A session's link, taken apart."""

    session: str
    label: str
    token: str


async def open_session(owner: httpx.AsyncClient, device: Device, **body: Any) -> OpenedLink:
    answer = await owner.post(f"/v1/devices/{device.id}/sessions", json=body)
    assert answer.status_code == 201, answer.text
    url = httpx.URL(answer.json()["url"])
    assert url.path == "/.towline/open"
    return OpenedLink(answer.json()["id"], url.host.partition(".")[0], url.fragment)
