"""A table of forgeries: none is accepted. And the tokens that we mint say what the contract says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from gateway.errors import BadTokenError
from gateway.keys.keyring import Keyring, load_keyring
from gateway.tokens import strict
from gateway.tokens.mint import ACCESS_AUDIENCE, ACCESS_TYP, GRANT_MAX_BYTES, LINK_AUDIENCE, Tokens

NOW = 1_800_000_000
ISSUER = "https://gateway.example"


@pytest.fixture(scope="module")
def keyring(made_keys: Path) -> Keyring:
    return load_keyring(made_keys, NOW)


@pytest.fixture(scope="module")
def tokens(keyring: Keyring) -> Tokens:
    return Tokens(keyring, ISSUER)


def b64(data: bytes | dict[str, Any]) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Forge:
    """Makes tokens that differ from a good one in a single thing."""

    def __init__(self, keyring: Keyring) -> None:
        self.key = keyring.login.active(NOW).private
        self.kid = keyring.login.active(NOW).kid
        self.grant_key = keyring.grant.active(NOW)
        self.header: dict[str, Any] = {"alg": "RS256", "typ": ACCESS_TYP, "kid": self.kid}
        self.claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": ACCESS_AUDIENCE,
            "sub": str(uuid4()),
            "lid": str(uuid4()),
            "jti": str(uuid4()),
            "iat": NOW,
            "exp": NOW + 900,
        }

    def signed(self, header: str, claims: str, key: rsa.RSAPrivateKey | None = None) -> str:
        message = f"{header}.{claims}".encode()
        signature = (key or self.key).sign(message, padding.PKCS1v15(), hashes.SHA256())
        return f"{header}.{claims}.{b64(signature)}"

    def token(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        kept = {k: v for k, v in {**self.claims, **claims}.items() if v is not ...}
        return self.signed(b64({**self.header, **(header or {})}), b64(kept))

    def hs256_with_public_key(self) -> str:
        public = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        text = f"{b64({**self.header, 'alg': 'HS256'})}.{b64(self.claims)}"
        return f"{text}.{b64(hmac.new(public, text.encode(), hashlib.sha256).digest())}"

    def hs256_with_the_jwk(self) -> str:
        modulus = self.key.public_key().public_numbers().n
        text = f"{b64({**self.header, 'alg': 'HS256'})}.{b64(self.claims)}"
        secret = modulus.to_bytes((modulus.bit_length() + 7) // 8, "big")
        return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"

    def with_own_key(self, member: str) -> str:
        own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        value: Any = "https://evil.example/keys"
        if member == "jwk":
            value = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key()))
        return self.signed(b64({**self.header, member: value}), b64(self.claims), own)

    def es256(self) -> str:
        key = ec.generate_private_key(ec.SECP256R1())
        return jwt.encode(self.claims, key, "ES256", {"typ": ACCESS_TYP, "kid": self.kid})

    def pss(self) -> str:
        text = f"{b64({**self.header, 'alg': 'PS256'})}.{b64(self.claims)}"
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        return f"{text}.{b64(self.key.sign(text.encode(), pss, hashes.SHA256()))}"

    def slack_bits(self, part: int) -> str:
        """The same bytes, spelt with other low bits in a part's last character."""
        parts = self.token().split(".")
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        for extra in ("", " ", "  "):
            parts = self.signed(
                b64({**self.header}), b64(json.dumps(self.claims).encode() + extra.encode())
            ).split(".")
            if len(parts[part]) % 4:
                break
        last = alphabet.index(parts[part][-1])
        parts[part] = parts[part][:-1] + alphabet[last ^ 1]
        if part < 2:
            return self.signed(parts[0], parts[1])
        return ".".join(parts)


FORGERIES: dict[str, Callable[[Forge], str]] = {
    "none": lambda f: f"{b64({**f.header, 'alg': 'none'})}.{b64(f.claims)}.",
    "None with a signature": lambda f: f.token({"alg": "None"}),
    "no signature": lambda f: f.token().rpartition(".")[0] + ".",
    "HS256 with the public key": lambda f: f.hs256_with_public_key(),
    "ES256": lambda f: f.es256(),
    "PS256": lambda f: f.pss(),
    "RS512 in the header": lambda f: f.token({"alg": "RS512"}),
    "jku": lambda f: f.with_own_key("jku"),
    "jwk": lambda f: f.with_own_key("jwk"),
    "x5u": lambda f: f.with_own_key("x5u"),
    "x5c": lambda f: f.with_own_key("x5c"),
    "jku beside a good signature": lambda f: f.token({"jku": "https://evil.example"}),
    "crit": lambda f: f.token({"crit": ["exp"]}),
    "b64 false": lambda f: f.token({"b64": False, "crit": ["b64"]}),
    "zip": lambda f: f.token({"zip": "DEF"}),
    "another key": lambda f: f.signed(
        b64(f.header), b64(f.claims), rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ),
    "the grant key": lambda f: f.signed(
        b64({**f.header, "kid": f.grant_key.kid}), b64(f.claims), f.grant_key.private
    ),
    "the grant key under the login kid": lambda f: f.signed(
        b64(f.header), b64(f.claims), f.grant_key.private
    ),
    "unknown kid": lambda f: f.token({"kid": "../../etc/passwd"}),
    "kid is a list": lambda f: f.token({"kid": [f.kid]}),
    "no kid": lambda f: f.signed(b64({"alg": "RS256", "typ": ACCESS_TYP}), b64(f.claims)),
    "no typ": lambda f: f.signed(b64({"alg": "RS256", "kid": f.kid}), b64(f.claims)),
    "typ of a link": lambda f: f.token({"typ": "link+jwt"}),
    "typ JWT": lambda f: f.token({"typ": "JWT"}),
    "typ in capitals": lambda f: f.token({"typ": "AT+JWT"}),
    "aud of a link": lambda f: f.token(aud=LINK_AUDIENCE),
    "aud is a list": lambda f: f.token(aud=[ACCESS_AUDIENCE]),
    "no aud": lambda f: f.token(aud=...),
    "another issuer": lambda f: f.token(iss="https://evil.example"),
    "no issuer": lambda f: f.token(iss=...),
    "expired beyond the leeway": lambda f: f.token(exp=NOW - 31),
    "no exp": lambda f: f.token(exp=...),
    "exp is text": lambda f: f.token(exp=str(NOW + 900)),
    "exp is true": lambda f: f.token(exp=True),
    "exp is a fraction": lambda f: f.token(exp=NOW + 0.5),
    "from the future": lambda f: f.token(iat=NOW + 31),
    "no iat": lambda f: f.token(iat=...),
    "nbf in the future": lambda f: f.token(nbf=NOW + 31),
    "no lid": lambda f: f.token(lid=...),
    "lid is no UUID": lambda f: f.token(lid="1"),
    "lid is a number": lambda f: f.token(lid=7),
    "no sub": lambda f: f.token(sub=...),
    "sub is a list": lambda f: f.token(sub=[f.claims["sub"]]),
    "no jti": lambda f: f.token(jti=...),
    "aud of a device": lambda f: f.token(aud="d_" + "a" * 16),
    "typ of a grant": lambda f: f.token({"typ": "grant+jwt"}),
    "typ of the key list": lambda f: f.token({"typ": "keys+jwt"}),
    "typ and aud of a link": lambda f: f.token({"typ": "link+jwt"}, aud=LINK_AUDIENCE),
    "typ with application/": lambda f: f.token({"typ": "application/at+jwt"}),
    "kid of nobody, our key": lambda f: f.token({"kid": "x" * 43}),
    "kid with SQL": lambda f: f.token({"kid": "' OR 1=1 --"}),
    "kid is null": lambda f: f.token({"kid": None}),
    "use and key_ops in the header": lambda f: f.token({"use": "enc", "key_ops": ["encrypt"]}),
    "alg in small letters": lambda f: f.token({"alg": "rs256"}),
    "HS256 with the JWK": lambda f: f.hs256_with_the_jwk(),
    "exp beyond any number": lambda f: f.signed(
        b64(f.header), b64(json.dumps({**f.claims, "exp": 0}).replace('"exp": 0', '"exp": 1e999').encode())
    ),
    "4,097 bytes": lambda f: f.token(padding="x" * (4097 * 3 // 4)),
    "a megabyte": lambda f: f.token(padding="x" * 1_000_000),
    "a blank before": lambda f: " " + f.token(),
    "an escaped member name twice": lambda f: f.signed(
        b64(f.header), b64(json.dumps(f.claims).encode()[:-1] + b', "\\u0061ud": "towline-gateway"}')
    ),
    "an empty header member": lambda f: f.token({"": ""}),
    "over 4 KB": lambda f: f.token(padding="x" * 4096),
    "header slack bits": lambda f: f.slack_bits(0),
    "claims slack bits": lambda f: f.slack_bits(1),
    "signature slack bits": lambda f: f.slack_bits(2),
    "padded": lambda f: f.token() + "==",
    "newline": lambda f: f.token() + "\n",
    "standard alphabet": lambda f: f.token().replace("-", "+").replace("_", "/") + "/",
    "two parts": lambda f: f.token().rpartition(".")[0],
    "four parts": lambda f: f.token() + ".x",
    "five parts (JWE)": lambda f: f.token() + ".x.y",
    "JSON form": lambda f: json.dumps({"payload": b64(f.claims), "signatures": []}),
    "duplicate member": lambda f: f.signed(
        b64(f.header), b64(json.dumps(f.claims).encode()[:-1] + b', "aud": "towline-gateway"}')
    ),
    "duplicate alg": lambda f: f.signed(
        b64(json.dumps(f.header).encode()[:-1] + b', "alg": "RS256"}'), b64(f.claims)
    ),
    "claims are a list": lambda f: f.signed(b64(f.header), b64(b"[]")),
    "NaN": lambda f: f.signed(b64(f.header), b64(json.dumps({**f.claims, "exp": float("nan")}).encode())),
    "deep": lambda f: f.signed(b64(f.header), b64(b"[" * 3000)),
    "not UTF-8": lambda f: f.signed(b64(f.header), b64(b'{"iss": "\xff"}')),
    "empty": lambda f: "",
    "dots": lambda f: "..",
    "not ASCII": lambda f: f.token() + "ü",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_refused(name: str, keyring: Keyring, tokens: Tokens) -> None:
    with pytest.raises(BadTokenError):
        tokens.read_access(FORGERIES[name](Forge(keyring)), NOW)


def test_the_forger_makes_good_tokens_too(keyring: Keyring, tokens: Tokens) -> None:
    forge = Forge(keyring)
    login_id = UUID(forge.claims["lid"])
    for good in (forge.token(), forge.token(exp=NOW - 29), forge.token(iat=NOW + 30)):
        assert tokens.read_access(good, NOW).login_id == login_id
        assert tokens.read_access(good, NOW).user_id == UUID(forge.claims["sub"])


def test_every_flipped_bit_is_noticed(keyring: Keyring, tokens: Tokens) -> None:
    good = tokens.link(uuid4(), uuid4(), "a" * 26, "click", NOW, NOW + 60)
    for position in range(0, len(good), 7):
        changed = good[:position] + ("A" if good[position] != "A" else "B") + good[position + 1 :]
        with pytest.raises(BadTokenError):
            tokens.read_link(changed, NOW)


def test_no_token_passes_for_another(tokens: Tokens) -> None:
    access = tokens.access(uuid4(), uuid4(), NOW, 900)
    link = tokens.link(uuid4(), uuid4(), "a" * 26, "click", NOW, NOW + 60)
    grant = tokens.grant(uuid4(), uuid4(), uuid4(), "d_" + "a" * 16, "web", NOW, NOW + 60)
    for reader, good in ((tokens.read_access, access), (tokens.read_link, link)):
        for token in (access, link, grant):
            if token is good:
                reader(token, NOW)
            else:
                with pytest.raises(BadTokenError):
                    reader(token, NOW)


def test_published_keys_verify_our_tokens(keyring: Keyring, tokens: Tokens) -> None:
    keys = {str(key.key_id): key.key for key in jwt.PyJWKSet.from_dict(tokens.jwks()).keys}
    token = tokens.access(uuid4(), uuid4(), NOW, 900)
    claims = strict.verify(token, keys, typ=ACCESS_TYP, audience=ACCESS_AUDIENCE, issuer=ISSUER, now=NOW)
    assert claims["exp"] == NOW + 900
    assert all(set(key) == {"kty", "n", "e", "kid", "alg", "use"} for key in tokens.jwks()["keys"])


def test_the_published_keys_serve_for_nothing_but_our_signatures(tokens: Tokens) -> None:
    """A verifier that looks at `use`, `key_ops` and `alg` takes them; no member is private."""
    for key in tokens.jwks()["keys"]:
        assert (key["use"], key["alg"], key["kty"], key.get("key_ops")) == ("sig", "RS256", "RSA", None)
        assert not {"d", "p", "q", "dp", "dq", "qi", "oth", "k"} & set(key)
        assert len(base64.urlsafe_b64decode(key["n"] + "==")) >= 256


def test_a_grant_is_what_the_protocol_says(keyring: Keyring, tokens: Tokens) -> None:
    grant_id, sid, user = uuid4(), uuid4(), uuid4()
    token = tokens.grant(grant_id, sid, user, "d_" + "a" * 16, "s" * 64, NOW, NOW + 3600)
    assert len(token) <= GRANT_MAX_BYTES
    header = jwt.get_unverified_header(token)
    assert header == {"alg": "RS256", "typ": "grant+jwt", "kid": keyring.grant.active(NOW).kid}
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims == {
        "iss": ISSUER,
        "aud": "d_" + "a" * 16,
        "sub": str(user),
        "sid": str(sid),
        "svc": "s" * 64,
        "jti": str(grant_id),
        "iat": NOW,
        "exp": NOW + 3600,
    }
    login_kids = {key["kid"] for key in tokens.jwks()["keys"]}
    assert header["kid"] not in login_kids


def test_a_grant_that_no_device_would_take_is_not_made(keyring: Keyring) -> None:
    tokens = Tokens(keyring, "https://" + "a" * 1_500)
    with pytest.raises(AssertionError, match="public_url"):
        tokens.grant(uuid4(), uuid4(), uuid4(), "d_" + "a" * 16, "web", NOW, NOW + 60)
