"""The gateway's signing side, as far as an agent sees it: device root, grant keys, key lists, grants,
certificates.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from tunnel_agent.certificate import read_certificate
from tunnel_agent.device_key import DeviceKey
from tunnel_agent.identity import Identity
from tunnel_agent.policy.key_list import KeyList, verify_key_list

DEVICE = "d_abcdefgh12345678"
NOW = 1_800_000_000.0  # wall clock of the tests, as runtime.clock.FakeClock starts


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def part(value: object) -> str:
    return b64(json.dumps(value).encode())


class GrantKey:
    """An RSA key with its kid."""

    def __init__(self, kid: str, bits: int = 2048) -> None:
        self.kid = kid
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=bits)

    def jwk(self, **changes: object) -> dict[str, object]:
        public = self.private.public_key().public_numbers()
        jwk: dict[str, object] = {
            "kty": "RSA",
            "kid": self.kid,
            "alg": "RS256",
            "use": "sig",
            "n": number(public.n),
            "e": number(public.e),
        }
        return {name: value for name, value in (jwk | changes).items() if value is not None}

    def sign(self, signed: bytes) -> bytes:
        return self.private.sign(signed, padding.PKCS1v15(), SHA256())


# RSA keys take a tenth of a second to make, so all tests share two; nothing here is changed by a test.
KEY = GrantKey("k1")
OTHER_KEY = GrantKey("k2")


class Authority:
    """One gateway's keys."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now
        self.root = ec.generate_private_key(ec.SECP256R1())
        self.ca = ec.generate_private_key(ec.SECP256R1())

    def key_list_text(
        self,
        n: int = 1,
        jwks: list[dict[str, object]] | None = None,
        *,
        header: dict[str, object] | None = None,
        payload: dict[str, object] | None = None,
    ) -> bytes:
        head = {"alg": "ES256", "typ": "keys+jwt"} | (header or {})
        body = {"n": n, "iat": int(self.now) - 3600, "keys": jwks or [KEY.jwk()]} | (payload or {})
        signed = f"{part(head)}.{part(body)}".encode()
        return signed + b"." + b64(es256(self.root, signed)).encode()

    def key_list(self, n: int = 1, *keys: GrantKey) -> KeyList:
        jwks = [key.jwk() for key in keys or (KEY,)]
        return verify_key_list(self.key_list_text(n, jwks), self.root.public_key())

    def certificate(self, key: DeviceKey, start: float = -86400, end: float = 86400) -> str:
        """A PEM certificate for the device's key; start and end in seconds from now."""
        request = x509.load_pem_x509_csr(key.signing_request().encode())
        return self.certificate_for(request, start, end)

    def certificate_for(
        self, request: x509.CertificateSigningRequest, start: float = -86400, end: float = 86400
    ) -> str:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DEVICE)])
        builder = x509.CertificateBuilder(name, name, request.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(datetime.fromtimestamp(self.now + start, UTC))
        builder = builder.not_valid_after(datetime.fromtimestamp(self.now + end, UTC))
        return builder.sign(self.ca, SHA256()).public_bytes(Encoding.PEM).decode()

    def root_pem(self) -> str:
        public = self.root.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def identity(self, urls: tuple[str, ...], *, server_ca: str | None = None) -> Identity:
        key = DeviceKey.generate()
        return Identity(
            device_id=DEVICE,
            gateway_url="http://127.0.0.1:1",
            tunnel_urls=urls,
            key=key,
            certificate=read_certificate(self.certificate(key), key),
            device_ca="",
            device_root=self.root.public_key(),
            key_list=self.key_list(),
            server_ca=server_ca,
            gateway_ca=None,
        )


def es256(key: ec.EllipticCurvePrivateKey, signed: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def claims(now: float = NOW, **changes: object) -> dict[str, object]:
    """A grant's claims; a change to None takes the claim out."""
    session = str(uuid4())
    base: dict[str, object] = {
        "iss": "https://gateway.test",
        "aud": DEVICE,
        "sub": "u_1",
        "sid": session,
        "svc": "web",
        "jti": session,
        "iat": int(now),
        "exp": int(now) + 3600,
    }
    return {name: value for name, value in (base | changes).items() if value is not None}


def grant_id(body: dict[str, object]) -> bytes:
    """The frame's id of a grant with these claims."""
    return bytes.fromhex(str(body["jti"]).replace("-", ""))


def token(body: object, key: GrantKey = KEY, **header: object) -> bytes:
    """A signed grant; header parameters may be changed, or taken out by None."""
    head = {"alg": "RS256", "typ": "grant+jwt", "kid": key.kid} | header
    signed = f"{part({k: v for k, v in head.items() if v is not None})}.{part(body)}".encode()
    return signed + b"." + b64(key.sign(signed)).encode()
