"""What a phone's app says to a device that is to be set up: protocomm security 2 over HTTP, as an oracle.

SRP-6a by RFC 5054 with SHA-512, AES-256-GCM by `cryptography`, and the few messages by hand.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# RFC 3526, section 4; its generator is 5 (RFC 5054, appendix A).
_PRIME_HEX: Final = (
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd"
    "ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed"
    "ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f"
    "83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b"
    "e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510"
    "15728e5a8aaac42dad33170d04507a33a85521abdf1cba64ecfb850458dbef0a8aea71575d060c7db3970f85a6e1e4c7"
    "abf5ae8cdb0933d71e8c94e04a25619dcee3d2261ad2ee6bf12ffa06d98a0864d87602733ec86a64521f2b18177b200c"
    "bbe117577a615d6c770988c0bad946e208e24fa074e5ab3143db5bfce0fd108e4b82d120a93ad2caffffffffffffffff"
)
PRIME: Final = int(_PRIME_HEX, 16)
GENERATOR: Final = 5
BYTES: Final = 384
USER: Final = b"towline"
TIMEOUT_S: Final = 30.0


class Refused(Exception):
    """The device answered with another status than 200; the first argument is that."""


# --- numbers and hashes ---


def digest(*parts: bytes) -> bytes:
    return hashlib.sha512(b"".join(parts)).digest()


def whole(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def padded(number: int) -> bytes:
    return number.to_bytes(BYTES, "big")


def shortest(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


# --- Protocol Buffers ---


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(raw: bytes) -> dict[int, int | bytes]:
    """Members by number, the last of each."""
    found: dict[int, int | bytes] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(raw):
        tag = number()
        if tag & 7 == 0:
            found[tag >> 3] = number()
        else:
            assert tag & 7 == 2, f"wire type {tag & 7}"
            length = number()
            found[tag >> 3] = raw[at : at + length]
            at += length
    assert at == len(raw)
    return found


def member(raw: bytes, *path: int) -> bytes:
    """The bytes at the end of these numbers, each in the one before."""
    for number in path:
        found = fields(raw)[number]
        assert isinstance(found, bytes)
        raw = found
    return raw


def number_in(raw: bytes, number: int) -> int:
    found = fields(raw).get(number, 0)
    assert isinstance(found, int)
    return found


# --- the session ---


class Phone:
    """One app on one connection. `with_cookie`: it keeps the session over connections."""

    def __init__(self, port: int, pin: str, user: bytes = USER) -> None:
        self._line = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self._pin = pin.encode()
        self._user = user
        self._secret = secrets.randbelow(PRIME)
        self.public = padded(pow(GENERATOR, self._secret, PRIME))
        self.cookie: str | None = None
        self._cipher: AESGCM | None = None
        self._nonce = b""

    def close(self) -> None:
        self._line.close()

    def post(self, path: str, body: bytes) -> bytes:
        headers = {"Cookie": self.cookie} if self.cookie is not None else {}
        self._line.request("POST", path, body, headers)
        answer = self._line.getresponse()
        told = answer.read()
        self.cookie = answer.headers.get("Set-Cookie", self.cookie)
        if answer.status != 200:
            raise Refused(answer.status)
        return told

    def version(self) -> Any:
        return json.loads(self.post("/proto-ver", b"---"))

    def session(self, kind: int, number: int, body: bytes) -> bytes:
        payload = (field(1, kind) if kind else b"") + field(number, body)
        return self.post("/prov-session", field(2, 2) + field(12, payload))

    def _key(self, salt: bytes, theirs: int) -> bytes:
        x = whole(digest(salt, digest(self._user, b":", self._pin)))
        k = whole(digest(padded(PRIME), padded(GENERATOR)))
        u = whole(digest(self.public, padded(theirs)))
        base = (theirs - k * pow(GENERATOR, x, PRIME)) % PRIME
        return digest(shortest(pow(base, self._secret + u * x, PRIME)))

    def begin(self) -> tuple[bytes, bytes]:
        """The salt and the device's number."""
        answer = self.session(0, 20, field(1, self._user) + field(2, self.public))
        response = member(answer, 12, 21)
        assert number_in(response, 1) == 0
        return member(response, 3), member(response, 2)

    def open(self) -> None:
        salt, theirs = self.begin()
        key = self._key(salt, whole(theirs))
        group = bytes(
            one ^ other for one, other in zip(digest(padded(PRIME)), digest(padded(GENERATOR)), strict=True)
        )
        proof = digest(group, digest(self._user), salt, self.public, theirs, key)
        response = member(self.session(2, 22, field(1, proof)), 12, 23)
        assert member(response, 2) == digest(self.public, proof, key), "the device did not prove itself"
        self._cipher = AESGCM(key[:32])
        self._nonce = member(response, 3)
        assert self._nonce[8:] == b"\0\0\0\1"

    def next_nonce(self) -> bytes:
        nonce = self._nonce
        self._nonce = nonce[:8] + (whole(nonce[8:]) + 1).to_bytes(4, "big")
        return nonce

    def seal(self, plain: bytes) -> bytes:
        assert self._cipher is not None
        return self._cipher.encrypt(self.next_nonce(), plain, None)

    def ask(self, path: str, plain: bytes) -> bytes:
        sealed = self.post(path, self.seal(plain))
        assert self._cipher is not None
        return self._cipher.decrypt(self.next_nonce(), sealed, None)

    # --- what is asked ---

    def set_wifi(self, ssid: bytes, password: bytes) -> int:
        message = field(1, ssid) + (field(2, password) if password else b"")
        answer = self.ask("/prov-config", field(1, 2) + field(12, message))
        assert number_in(answer, 1) == 3
        return number_in(member(answer, 13), 1)

    def apply_wifi(self) -> int:
        answer = self.ask("/prov-config", field(1, 4) + field(14, b""))
        assert number_in(answer, 1) == 5
        return number_in(member(answer, 15), 1)

    def wifi_state(self) -> int:
        """0 connected, 1 connecting, 2 disconnected, 3 failed."""
        answer = self.ask("/prov-config", field(10, b""))
        assert number_in(answer, 1) == 1
        return number_in(member(answer, 11), 2)

    def towline(self, **request: Any) -> Any:
        return json.loads(self.ask("/towline", json.dumps(request).encode()))
