"""The gateway's grant keys as a device may trust them: a numbered list, signed by the device root that
it pinned at enrolment.

The list comes through a tunnel server, which is not trusted: only the root's signature and the rising
number count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tunnel_agent.policy import jws
from tunnel_agent.policy.jws import TokenRefused, UnverifiedJws

MAX_KEYS = 32  # a rotation holds two or three; more is no list of ours
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 4096  # a larger key only makes every verification slow
_COORDINATE_BYTES = 32  # P-256: signature is r ‖ s
_MAX_NUMBER = 2**53  # integers of JSON (RFC 8259, section 6)
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# RFC 8017 allows any odd exponent ≥ 3; everyone uses this one, and a signature under e = 3 has a history.
_EXPONENT = 65537

_PADDING = padding.PKCS1v15()
_HASH = SHA256()


@dataclass(frozen=True, slots=True)
class KeyList:
    """A verified list. `issued_at` is in Unix seconds and a lower bound of the true time, since the root
    signed it.
    """

    number: int
    issued_at: int
    keys: Mapping[str, rsa.RSAPublicKey]
    text: bytes


def verify_key_list(text: bytes, root: ec.EllipticCurvePublicKey) -> KeyList:
    """Check the root's signature and every key's form; raises TokenRefused. Whether the number rises is
    `may_replace`'s.
    """
    token = jws.parse(text, alg="ES256", typ="keys+jwt", max_bytes=jws.MAX_KEY_LIST_BYTES)
    _verify_es256(token, root)
    jwks = token.payload.get("keys")
    if not isinstance(jwks, list) or not 0 < len(jwks) <= MAX_KEYS:
        raise TokenRefused(f"keys is not a list of 1 to {MAX_KEYS}")
    keys: dict[str, rsa.RSAPublicKey] = {}
    for jwk in jwks:
        kid, key = _rsa_key(jwk)
        if kid in keys:
            raise TokenRefused("a kid stands twice")
        keys[kid] = key
    return KeyList(_whole(token.payload, "n"), _whole(token.payload, "iat"), keys, bytes(text))


def may_replace(new: KeyList, known: KeyList) -> bool:
    """True for a higher number. The same number again is no news; a lower one is an old list, perhaps
    with a stolen key.
    """
    return new.number > known.number


def verify_rs256(token: UnverifiedJws, keys: Mapping[str, rsa.RSAPublicKey]) -> None:
    """Check an RS256 signature by the key that `kid` names in `keys`; raises TokenRefused."""
    if token.kid is None:
        raise TokenRefused("no kid")
    key = keys.get(token.kid)
    if key is None:
        raise TokenRefused("kid is not in the key list")
    try:
        key.verify(token.signature, token.signing_input, _PADDING, _HASH)
    except InvalidSignature as error:
        raise TokenRefused("signature does not hold") from error


def _verify_es256(token: UnverifiedJws, root: ec.EllipticCurvePublicKey) -> None:
    if len(token.signature) != 2 * _COORDINATE_BYTES:
        raise TokenRefused("signature has a wrong length")
    r = int.from_bytes(token.signature[:_COORDINATE_BYTES], "big")
    s = int.from_bytes(token.signature[_COORDINATE_BYTES:], "big")
    try:
        root.verify(encode_dss_signature(r, s), token.signing_input, ec.ECDSA(_HASH))
    except InvalidSignature as error:
        raise TokenRefused("signature does not hold") from error


def _rsa_key(jwk: object) -> tuple[str, rsa.RSAPublicKey]:
    if not isinstance(jwk, dict) or jwk.get("kty") != "RSA":
        raise TokenRefused("a key is not an RSA key")
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not kid:
        raise TokenRefused("a key has no kid")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise TokenRefused("a key holds private members")
    if jwk.get("alg", "RS256") != "RS256":
        raise TokenRefused("a key is for another alg")
    if jwk.get("use", "sig") != "sig":
        raise TokenRefused("a key's use is not sig")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise TokenRefused("a key's key_ops do not hold verify")
    modulus = jws.base64url_uint(jwk.get("n"), "n")
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS or not modulus & 1:
        raise TokenRefused("a key's modulus has a wrong size")
    if jws.base64url_uint(jwk.get("e"), "e") != _EXPONENT:
        raise TokenRefused("a key's exponent is not 65537")
    return kid, rsa.RSAPublicNumbers(_EXPONENT, modulus).public_key()


def _whole(payload: dict[str, object], name: str) -> int:
    value = payload.get(name)
    if type(value) is not int or not 0 <= value < _MAX_NUMBER:
        raise TokenRefused(f"{name} is not a whole number")
    return value
