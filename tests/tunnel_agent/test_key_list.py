"""The key list: only the pinned root may say which keys sign grants, and never go back."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.tunnel_agent.authority import KEY, NOW, OTHER_KEY, Authority, b64, es256
from tunnel_agent.policy.jws import MAX_KEY_LIST_BYTES, TokenRefused
from tunnel_agent.policy.key_list import MAX_KEYS, may_replace, verify_key_list

AUTHORITY = Authority()
ROOT = AUTHORITY.root.public_key()


def test_a_genuine_list() -> None:
    known = verify_key_list(AUTHORITY.key_list_text(7, [KEY.jwk(), OTHER_KEY.jwk()]), ROOT)
    assert (known.number, known.issued_at, sorted(known.keys)) == (7, int(NOW) - 3600, ["k1", "k2"])


def test_key_ops_with_verify_and_no_use_is_fine() -> None:
    verify_key_list(AUTHORITY.key_list_text(1, [KEY.jwk(use=None, alg=None, key_ops=["verify"])]), ROOT)


@pytest.mark.parametrize(("new", "known", "expected"), [(8, 7, True), (7, 7, False), (6, 7, False)])
def test_the_number_only_rises(new: int, known: int, expected: bool) -> None:
    assert may_replace(AUTHORITY.key_list(new), AUTHORITY.key_list(known)) is expected


BAD_LISTS = {
    "another root": Authority().key_list_text(2),
    "alg none": AUTHORITY.key_list_text(header={"alg": "none"}),
    "alg RS256": AUTHORITY.key_list_text(header={"alg": "RS256"}),
    "typ of a grant": AUTHORITY.key_list_text(header={"typ": "grant+jwt"}),
    "jwk in the header": AUTHORITY.key_list_text(header={"jwk": {}}),
    "no keys": AUTHORITY.key_list_text(payload={"keys": []}),
    "keys a table": AUTHORITY.key_list_text(payload={"keys": {"k1": KEY.jwk()}}),
    "too many keys": AUTHORITY.key_list_text(jwks=[KEY.jwk(kid=f"{i}") for i in range(MAX_KEYS + 1)]),
    "too long": AUTHORITY.key_list_text(payload={"note": "x" * MAX_KEY_LIST_BYTES}),
    "a kid twice": AUTHORITY.key_list_text(jwks=[KEY.jwk(), OTHER_KEY.jwk(kid="k1")]),
    "no n": AUTHORITY.key_list_text(payload={"n": None}),
    "n negative": AUTHORITY.key_list_text(payload={"n": -1}),
    "n a text": AUTHORITY.key_list_text(payload={"n": "9"}),
    "n true": AUTHORITY.key_list_text(payload={"n": True}),
    "a symmetric key": AUTHORITY.key_list_text(jwks=[{"kty": "oct", "kid": "k1", "k": "AAAA"}]),
    "use enc": AUTHORITY.key_list_text(jwks=[KEY.jwk(use="enc")]),
    "key_ops sign": AUTHORITY.key_list_text(jwks=[KEY.jwk(key_ops=["sign"])]),
    "key_ops a text": AUTHORITY.key_list_text(jwks=[KEY.jwk(key_ops="verify")]),
    "alg PS256": AUTHORITY.key_list_text(jwks=[KEY.jwk(alg="PS256")]),
    "a private member": AUTHORITY.key_list_text(jwks=[KEY.jwk(d="AAAA")]),
    "no kid": AUTHORITY.key_list_text(jwks=[KEY.jwk(kid=None)]),
    "exponent 3": AUTHORITY.key_list_text(jwks=[KEY.jwk(e="Aw")]),
    "modulus even": AUTHORITY.key_list_text(jwks=[KEY.jwk(n=b64(b"\xff" * 255 + b"\xfe"))]),
    "modulus with a leading zero": AUTHORITY.key_list_text(jwks=[KEY.jwk(n=b64(b"\0" + b"\xff" * 255))]),
    "modulus missing": AUTHORITY.key_list_text(jwks=[KEY.jwk(n=None)]),
    "DER signature": AUTHORITY.key_list_text().rsplit(b".", 1)[0] + b"." + b64(b"0" * 70).encode(),
    "empty": b"",
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_a_bad_list_is_refused(name: str) -> None:
    with pytest.raises(TokenRefused):
        verify_key_list(BAD_LISTS[name], ROOT)


def test_a_list_that_another_key_signed_is_refused() -> None:
    signed = AUTHORITY.key_list_text().rsplit(b".", 1)[0]
    stolen = es256(ec.generate_private_key(ec.SECP256R1()), signed)
    with pytest.raises(TokenRefused, match="signature"):
        verify_key_list(signed + b"." + b64(stolen).encode(), ROOT)
