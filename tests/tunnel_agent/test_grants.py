"""Forged, stale and misused grants: none may open anything."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from uuid import uuid4

import pytest

from tests.tunnel_agent.authority import (
    DEVICE,
    KEY,
    NOW,
    OTHER_KEY,
    Authority,
    GrantKey,
    b64,
    claims,
    grant_id,
    part,
    token,
)
from tunnel_agent.policy.grants import (
    LEEWAY_S,
    MAX_GRANTS,
    MAX_PENDING,
    NO_GRANT,
    NO_TIME,
    REVOKED,
    ConnectionGrants,
    Grant,
    GrantBook,
    Refusal,
    Revocation,
)
from tunnel_agent.policy.revoked import MAX_UNSEEN, UNKNOWN_S
from tunnel_protocol import RefusedCode

MONO = 1000.0
SERVER = "wss://one/tunnel"
AUTHORITY = Authority()
BODY = claims()
GRANT_ID = grant_id(BODY)


def new_book() -> GrantBook:
    return GrantBook(DEVICE, AUTHORITY.key_list(), earliest=NOW - 86400)


def _hs256() -> bytes:
    """Signed with the public key's bytes as an HMAC secret: the classic confusion of algorithms."""
    public = json.dumps(KEY.jwk()).encode()
    signed = f"{part({'alg': 'HS256', 'typ': 'grant+jwt', 'kid': 'k1'})}.{part(BODY)}".encode()
    return signed + b"." + b64(hmac.digest(public, signed, sha256)).encode()


def _swap(genuine: bytes, **changes: object) -> bytes:
    """Other claims under a genuine signature."""
    head, _, signature = genuine.split(b".")
    return b".".join((head, part(BODY | changes).encode(), signature))


def _loose_bits(genuine: bytes) -> bytes:
    """The last character of the signature with a stray low bit: decodes to the same bytes elsewhere."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return genuine[:-1] + bytes([alphabet[alphabet.index(genuine[-1:]) ^ 1]])


def _raw_payload(text: str) -> bytes:
    signed = f"{part({'alg': 'RS256', 'typ': 'grant+jwt', 'kid': 'k1'})}.{b64(text.encode())}".encode()
    return signed + b"." + b64(KEY.sign(signed)).encode()


GENUINE = token(BODY)
DOUBLED = json.dumps(BODY)[:-1] + f', "aud": "{DEVICE}"}}'

FORGERIES = {
    "alg none": token(BODY, alg="none"),
    "alg none, no signature": token(BODY, alg="none").rsplit(b".", 1)[0] + b".",
    "alg None": token(BODY, alg="None"),
    "HS256 with the public key": _hs256(),
    "RS384 named": token(BODY, alg="RS384"),
    "PS256 named": token(BODY, alg="PS256"),
    "ES256 named": token(BODY, alg="ES256"),
    "alg a list": token(BODY, alg=["RS256"]),
    "no alg": token(BODY, alg=None),
    "jku": token(BODY, jku="https://evil.test/jwks.json"),
    "jwk": token(BODY, OTHER_KEY, jwk=OTHER_KEY.jwk(), kid="k1"),
    "x5u": token(BODY, x5u="https://evil.test/cert.pem"),
    "x5c": token(BODY, x5c=["MII"]),
    "crit": token(BODY, crit=["exp"]),
    "b64": token(BODY, b64=False),
    "zip": token(BODY, zip="DEF"),
    "cty": token(BODY, cty="JWT"),
    "no kid": token(BODY, kid=None),
    "kid a path": token(BODY, kid="../../dev/null"),
    "kid SQL": token(BODY, kid="' OR 1=1 --"),
    "kid a list": token(BODY, kid=["k1"]),
    "kid empty": token(BODY, kid=""),
    "kid of a key that is not listed": token(BODY, OTHER_KEY),
    "another key under a listed kid": token(BODY, OTHER_KEY, kid="k1"),
    "typ link": token(BODY, typ="link+jwt"),
    "typ at": token(BODY, typ="at+jwt"),
    "typ JWT": token(BODY, typ="JWT"),
    "typ in capitals": token(BODY, typ="GRANT+JWT"),
    "no typ": token(BODY, typ=None),
    "another device": token(BODY | {"aud": "d_other"}),
    "aud a list": token(BODY | {"aud": [DEVICE]}),
    "aud with a space": token(BODY | {"aud": DEVICE + " "}),
    "no aud": token(claims(jti=BODY["jti"], aud=None)),
    "jti of another grant": token(BODY | {"jti": str(uuid4())}),
    "jti in capitals": token(BODY | {"jti": str(BODY["jti"]).upper()}),
    "jti in braces": token(BODY | {"jti": f"{{{BODY['jti']}}}"}),
    "no jti": token(claims(jti=None)),
    "sid no UUID": token(BODY | {"sid": "1"}),
    "no svc": token(claims(jti=BODY["jti"], svc=None)),
    "svc empty": token(BODY | {"svc": ""}),
    "no sub": token(claims(jti=BODY["jti"], sub=None)),
    "no iss": token(claims(jti=BODY["jti"], iss=None)),
    "no iat": token(claims(jti=BODY["jti"], iat=None)),
    "no exp": token(claims(jti=BODY["jti"], exp=None)),
    "exp a float": token(BODY | {"exp": NOW + 3600.5}),
    "exp a text": token(BODY | {"exp": str(int(NOW) + 3600)}),
    "exp true": token(BODY | {"exp": True}),
    "exp NaN": token(BODY | {"exp": float("nan")}),
    "exp infinite": token(BODY | {"exp": float("inf")}),
    "exp huge": token(BODY | {"exp": 2**60}),
    "exp before iat": token(BODY | {"iat": int(NOW), "exp": int(NOW)}),
    "expired": token(BODY | {"iat": int(NOW) - 7200, "exp": int(NOW) - LEEWAY_S - 1}),
    "claims changed, service": _swap(GENUINE, svc="ssh"),
    "claims changed, end": _swap(GENUINE, exp=int(NOW) + 360000),
    "signature cut": GENUINE[:-4],
    "signature empty": GENUINE.rsplit(b".", 1)[0] + b".",
    "signature of zeros": GENUINE.rsplit(b".", 1)[0] + b"." + b64(bytes(256)).encode(),
    "stray bits in the signature": _loose_bits(GENUINE),
    "padding": GENUINE + b"==",
    "standard base64": GENUINE.replace(b"-", b"+").replace(b"_", b"/") + b"+",
    "white space": GENUINE + b"\n",
    "a space inside": GENUINE[:20] + b" " + GENUINE[20:],
    "two parts": GENUINE.rsplit(b".", 1)[0],
    "four parts": GENUINE + b".x",
    "five parts, as JWE": b".".join([GENUINE, b"x", b"y"]),
    "empty": b"",
    "dots": b"..",
    "garbage": bytes(range(256)),
    "too long": token(BODY | {"note": "x" * 1600}),
    "payload a list": token([BODY]),
    "payload a text": token("grant"),
    "payload deep": _raw_payload("[" * 900),
    "payload UTF-16": _raw_payload("\ufeff{}"),
    "a claim twice": _raw_payload(DOUBLED),
}


def test_the_genuine_grant_is_accepted() -> None:
    grant = new_book().offer(GRANT_ID, GENUINE, NOW, MONO)
    assert isinstance(grant, Grant)
    assert (grant.service, grant.session, grant.acting) == ("web", BODY["sid"], False)
    assert grant.ends_at == MONO + 3600 + LEEWAY_S


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_refused(name: str) -> None:
    book = new_book()
    connection = ConnectionGrants(book, DEVICE)
    assert isinstance(connection.offer(GRANT_ID, FORGERIES[name], NOW, MONO), Refusal)
    assert isinstance(connection.open(DEVICE, "web", GRANT_ID, NOW, MONO), Refusal)
    assert len(book) == 0


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_displaces_no_genuine_grant(name: str) -> None:
    connection = ConnectionGrants(new_book(), DEVICE)
    connection.offer(GRANT_ID, GENUINE, NOW, MONO)
    connection.offer(GRANT_ID, FORGERIES[name], NOW, MONO)
    grant = connection.open(DEVICE, "web", GRANT_ID, NOW, MONO)
    assert isinstance(grant, Grant)
    assert grant.ends_at == MONO + 3600 + LEEWAY_S


def test_every_byte_of_a_token_counts() -> None:
    book = new_book()
    for position in range(len(GENUINE)):
        changed = bytearray(GENUINE)
        changed[position] ^= 1
        assert isinstance(book.offer(GRANT_ID, bytes(changed), NOW, MONO), Refusal), position


def test_act_marks_support() -> None:
    body = claims(act={"sub": "engineer"})
    grant = new_book().offer(grant_id(body), token(body), NOW, MONO)
    assert isinstance(grant, Grant)
    assert grant.acting


@pytest.mark.parametrize(
    ("device", "service", "code"),
    [
        (DEVICE, "ssh", RefusedCode.GRANT_INVALID),
        ("d_other", "web", RefusedCode.GRANT_INVALID),
        (DEVICE, "", RefusedCode.GRANT_INVALID),
    ],
)
def test_a_grant_opens_only_what_it_names(device: str, service: str, code: RefusedCode) -> None:
    connection = ConnectionGrants(new_book(), DEVICE)
    connection.offer(GRANT_ID, GENUINE, NOW, MONO)
    refusal = connection.open(device, service, GRANT_ID, NOW, MONO)
    assert isinstance(refusal, Refusal)
    assert refusal.code is code


def test_a_grant_is_known_to_its_connection_alone() -> None:
    book = new_book()
    first, second = ConnectionGrants(book, DEVICE), ConnectionGrants(book, DEVICE)
    first.offer(GRANT_ID, GENUINE, NOW, MONO)
    assert second.open(DEVICE, "web", GRANT_ID, NOW, MONO) is NO_GRANT
    second.offer(GRANT_ID, GENUINE, NOW, MONO)
    assert isinstance(second.open(DEVICE, "web", GRANT_ID, NOW, MONO), Grant)
    assert len(book) == 1


def test_revoked_holds_on_every_connection_and_for_every_repeat() -> None:
    book = new_book()
    first, second = ConnectionGrants(book, DEVICE), ConnectionGrants(book, DEVICE)
    for connection in (first, second):
        connection.offer(GRANT_ID, GENUINE, NOW, MONO)
    assert book.revoke(GRANT_ID, MONO, SERVER) is Revocation.ENDED
    for connection in (first, second):
        assert connection.open(DEVICE, "web", GRANT_ID, NOW, MONO) is REVOKED
        assert connection.offer(GRANT_ID, GENUINE, NOW, MONO) is REVOKED
    book.expire(MONO + 3600)  # the grant itself would still hold
    assert book.offer(GRANT_ID, GENUINE, NOW + 3600, MONO + 3600) is REVOKED


def test_a_revocation_may_come_before_the_grant() -> None:
    book = new_book()
    assert book.revoke(GRANT_ID, MONO, SERVER) is Revocation.NEWS
    assert book.revoke(GRANT_ID, MONO, SERVER) is Revocation.KNOWN
    assert book.offer(GRANT_ID, GENUINE, NOW, MONO) is REVOKED


def test_a_grant_ends_and_is_forgotten() -> None:
    book = new_book()
    connection = ConnectionGrants(book, DEVICE)
    connection.offer(GRANT_ID, GENUINE, NOW, MONO)
    end = book.next_expiry()
    assert end == MONO + 3600 + LEEWAY_S
    assert book.expire(end - 1) == []
    expired = connection.open(DEVICE, "web", GRANT_ID, NOW, end)
    assert isinstance(expired, Refusal)
    assert expired.code is RefusedCode.GRANT_EXPIRED
    assert book.expire(end) == [GRANT_ID]
    assert book.next_expiry() is None


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, 365 * 86400.0])
def test_a_clock_that_is_set_changes_nothing_accepted(jump: float) -> None:
    connection = ConnectionGrants(new_book(), DEVICE)
    connection.offer(GRANT_ID, GENUINE, NOW, MONO)
    assert isinstance(connection.open(DEVICE, "web", GRANT_ID, NOW + jump, MONO + 10), Grant)


def test_a_device_without_the_time_waits_with_its_grants() -> None:
    connection = ConnectionGrants(new_book(), DEVICE)
    assert connection.offer(GRANT_ID, GENUINE, 1000.0, MONO) is NO_TIME
    assert connection.open(DEVICE, "web", GRANT_ID, 1000.0, MONO + 1) is NO_TIME
    assert isinstance(connection.open(DEVICE, "web", GRANT_ID, NOW, MONO + 2), Grant)


def test_a_device_whose_clock_is_behind_waits_with_a_grant_of_its_future() -> None:
    connection = ConnectionGrants(new_book(), DEVICE)
    behind = NOW - 3600.0
    early = token(BODY | {"iat": int(NOW)})
    assert connection.offer(GRANT_ID, early, behind, MONO) is NO_TIME
    assert connection.open(DEVICE, "web", GRANT_ID, behind, MONO + 1) is NO_TIME
    assert isinstance(connection.open(DEVICE, "web", GRANT_ID, NOW - LEEWAY_S, MONO + 2), Grant)


def test_a_forgery_that_waited_for_the_time_is_refused() -> None:
    connection = ConnectionGrants(new_book(), DEVICE)
    assert connection.offer(GRANT_ID, FORGERIES["claims changed, end"], 1000.0, MONO) is NO_TIME
    refusal = connection.open(DEVICE, "web", GRANT_ID, NOW, MONO)
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusedCode.GRANT_INVALID


def test_a_withdrawn_key_ends_its_grants_and_a_kept_one_does_not() -> None:
    book = GrantBook(DEVICE, AUTHORITY.key_list(1, KEY, OTHER_KEY), earliest=0)
    kept, withdrawn = claims(), claims()
    book.offer(grant_id(kept), token(kept, OTHER_KEY), NOW, MONO)
    book.offer(grant_id(withdrawn), token(withdrawn, KEY), NOW, MONO)
    assert book.replace_keys(AUTHORITY.key_list(2, OTHER_KEY)) == [grant_id(withdrawn)]
    assert len(book) == 1
    assert isinstance(book.offer(grant_id(withdrawn), token(withdrawn, KEY), NOW, MONO), Refusal)


def test_memory_is_bounded_whatever_a_server_sends() -> None:
    book = new_book()
    connection = ConnectionGrants(book, DEVICE)
    for index in range(2 * MAX_UNSEEN):
        book.revoke(index.to_bytes(16, "big"), MONO + index, SERVER)
        connection.offer(index.to_bytes(16, "little"), b"junk", NOW, MONO)
    for index in range(2 * MAX_PENDING):
        connection.offer(index.to_bytes(16, "little"), GENUINE, 1000.0, MONO)
    assert len(book.revoked) <= MAX_UNSEEN
    assert len(book._pending) <= MAX_PENDING
    assert len(connection._refused) + len(connection._known) <= 2 * MAX_GRANTS


def test_only_so_many_grants_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel_agent.policy.grants.MAX_GRANTS", 3)
    book = new_book()
    connection = ConnectionGrants(book, DEVICE)
    bodies = [claims() for _ in range(4)]
    verdicts = [connection.offer(grant_id(body), token(body), NOW, MONO) for body in bodies]
    assert [isinstance(verdict, Grant) for verdict in verdicts] == [True, True, True, False]
    book.revoke(grant_id(bodies[0]), MONO, SERVER)
    assert isinstance(connection.offer(grant_id(bodies[3]), token(bodies[3]), NOW, MONO), Grant)


def test_a_small_key_signs_nothing() -> None:
    weak = GrantKey("weak", bits=1024)
    with pytest.raises(Exception, match="wrong size"):
        AUTHORITY.key_list(2, weak)


def test_a_hostile_node_pushes_out_nothing_that_an_honest_one_told() -> None:
    """It holds a grant whose end only the other node told the device; then it invents ids."""
    book = new_book()
    book.revoke(GRANT_ID, MONO, "wss://honest/tunnel")
    for index in range(2 * MAX_UNSEEN):
        book.revoke(index.to_bytes(16, "big"), MONO, "wss://hostile/tunnel")
    assert ConnectionGrants(book, DEVICE).offer(GRANT_ID, GENUINE, NOW, MONO) is REVOKED
    book.expire(MONO + UNKNOWN_S + 1)
    assert len(book.revoked) == 0


def test_invented_revocations_push_out_no_real_one() -> None:
    book = new_book()
    book.offer(GRANT_ID, GENUINE, NOW, MONO)
    book.revoke(GRANT_ID, MONO, SERVER)
    for index in range(MAX_UNSEEN + 1):
        book.revoke(index.to_bytes(16, "big"), MONO, SERVER)
    assert book.offer(GRANT_ID, GENUINE, NOW, MONO) is REVOKED
