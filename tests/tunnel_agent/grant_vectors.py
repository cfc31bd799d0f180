"""Writes docs/protocol/vectors/grants.json: `python -m tests.tunnel_agent.grant_vectors`.

The cases are this package's own; the codes are those that the agent's book gives. Keys are made anew each
time, and only their public halves are written.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.tunnel_agent.authority import DEVICE, KEY, NOW, OTHER_KEY, b64, claims, grant_id, token
from tests.tunnel_agent.test_grants import AUTHORITY, BODY, FORGERIES, GENUINE, GRANT_ID, MONO
from tests.tunnel_agent.test_key_list import AUTHORITY as LIST_AUTHORITY
from tests.tunnel_agent.test_key_list import BAD_LISTS as AGENT_BAD_LISTS
from tests.tunnel_agent.test_key_list import ROOT
from tunnel_agent.policy.grants import LEEWAY_S, ConnectionGrants, GrantBook, Refusal
from tunnel_agent.policy.key_list import verify_key_list

VECTORS: Final = Path(__file__).parents[2] / "docs" / "protocol" / "vectors" / "grants.json"
EARLIEST_S: Final = int(NOW) - 86400
MAX_LIST_BYTES: Final = 3000  # of a list in the vectors: what is only too long needs no place there
ABOUT: Final = (
    "Section 7: key lists as a device with that root takes or refuses them, and grants as a device with that"
    " id and the list of that index answers an OPEN for `service` at that time. A character of a token is a"
    " byte. `code` is REFUSED's, 0: it opens. `signed`: the signature holds under a listed key. `limit`:"
    " fine, but more than a device with small limits takes. Written by tests/tunnel_agent/grant_vectors.py."
)
Json = dict[str, Any]


def lists() -> list[tuple[str, bytes]]:
    return [
        ("one key", AUTHORITY.key_list_text(1)),
        ("two keys", AUTHORITY.key_list_text(2, [KEY.jwk(), OTHER_KEY.jwk()])),
        (
            "only the other key, key_ops and no use",
            AUTHORITY.key_list_text(3, [OTHER_KEY.jwk(use=None, alg=None, key_ops=["sign", "verify"])]),
        ),
        ("the highest number", AUTHORITY.key_list_text(2**53 - 1)),
    ]


def bad_lists() -> dict[str, bytes]:
    moduli = {
        "1,024 bits": b"\xff" * 128,
        "2,047 bits": b"\x7f" + b"\xff" * 255,
        "4,104 bits": b"\xff" * 513,
        "2,048 bits behind a zero": b"\0" + b"\xff" * 256,
    }
    text = LIST_AUTHORITY.key_list_text
    own = {
        "n as a fraction": text(payload={"n": 1.5}),
        "n too large": text(payload={"n": 2**53}),
        "no iat": text(payload={"iat": None}),
        "keys of null": text(payload={"keys": [None]}),
        "kid empty": text(jwks=[KEY.jwk(kid="")]),
        "kid a number": text(jwks=[KEY.jwk(kid=7)]),
        "exponent missing": text(jwks=[KEY.jwk(e=None)]),
        "modulus with padding": text(jwks=[KEY.jwk(n=b64(b"\xff" * 256) + "==")]),
        "modulus odd but standard base64": text(jwks=[KEY.jwk(n=b64(b"\xff" * 256).replace("_", "/"))]),
        "a key of another kind beside a fine one": text(jwks=[KEY.jwk(), {"kty": "EC", "kid": "k2"}]),
    }
    odd = {name: text(jwks=[KEY.jwk(n=b64(number))]) for name, number in moduli.items()}
    every = AGENT_BAD_LISTS | own | odd
    return {name: raw for name, raw in every.items() if len(raw) <= MAX_LIST_BYTES}


def limited_lists() -> dict[str, bytes]:
    text = LIST_AUTHORITY.key_list_text
    return {
        "longer than 2,040 bytes": text(payload={"note": "x" * 1200}),
        "a kid of 65 bytes": text(jwks=[KEY.jwk(kid="k" * 65)]),
    }


def padded() -> dict[str, bytes]:
    """Genuine but for their length: the longest that is allowed, and the first beyond it."""
    sent = [token(BODY | {"note": "x" * n}) for n in range(500, 800)]
    longest = max((each for each in sent if len(each) <= 1536), key=len)
    beyond = min((each for each in sent if len(each) > 1536), key=len)
    return {"as long as allowed": longest, "beyond what is allowed": beyond}


def changed_claims() -> dict[str, Json]:
    return {
        "act": {"act": {"sub": "engineer"}},
        "act null": {"act": None},
        "long sub": {"sub": "ü" * 256},
        "sub too long": {"sub": "u" * 257},
        "iss escaped": {"iss": "\u00e9\u4e2d\U0001f600"},
        "early by the leeway": {"iat": int(NOW) + LEEWAY_S},
        "too early": {"iat": int(NOW) + LEEWAY_S + 1},
        "late by the leeway": {"exp": int(NOW) - LEEWAY_S + 1, "iat": 1},
        "past the leeway": {"exp": int(NOW) - LEEWAY_S, "iat": 1},
        "a service of another kind": {"svc": "ssh"},
        "another claim": {"note": [{"deep": None}]},
        "iat negative": {"iat": -1},
        "exp a hundred years away": {"exp": int(NOW) + 100 * 365 * 86400},
    }


def tokens() -> list[Json]:
    rows = [row("genuine", GRANT_ID, GENUINE)]
    rows += [row(name, GRANT_ID, sent) for name, sent in FORGERIES.items()]
    for name, changes in changed_claims().items():
        body = claims() | changes
        rows.append(row(name, grant_id(body), token(body)))
    rows.append(row("ssh under the same id", GRANT_ID, token(BODY | {"svc": "ssh"})))
    rows += [row(name, GRANT_ID, sent) for name, sent in padded().items()]
    for wall in (-1, 0, EARLIEST_S - LEEWAY_S - 1, int(NOW) - LEEWAY_S - 1):
        rows.append(row(f"genuine at {wall}", GRANT_ID, GENUINE, wall_s=wall))
    for wall in (int(NOW) - LEEWAY_S, int(NOW) + 3600 + LEEWAY_S - 1, int(NOW) + 3600 + LEEWAY_S, 2**40):
        rows.append(row(f"genuine at {wall}", GRANT_ID, GENUINE, wall_s=wall))
    rows.append(row("forged, before the time is known", GRANT_ID, FORGERIES["claims changed, end"], wall_s=0))
    body = claims()
    other = token(body, OTHER_KEY)
    rows += [row(f"another key, list {index}", grant_id(body), other, index=index) for index in range(4)]
    rows += [row(f"the first key, list {index}", GRANT_ID, GENUINE, index=index) for index in range(1, 4)]
    rows.append(row("a service that was not asked for", GRANT_ID, GENUINE, service="ssh"))
    rows.append(row("no service", GRANT_ID, GENUINE, service=""))
    return rows


LISTS: Final = lists()


def row(
    name: str, frame_id: bytes, sent: bytes, *, wall_s: int = int(NOW), index: int = 0, service: str = "web"
) -> Json:
    book = GrantBook(
        DEVICE, verify_key_list(LISTS[index][1], AUTHORITY.root.public_key()), earliest=EARLIEST_S
    )
    connection = ConnectionGrants(book, DEVICE)
    connection.offer(frame_id, sent, wall_s, MONO)
    verdict = connection.open(DEVICE, service, frame_id, wall_s, MONO)
    return {
        "name": name,
        "grant_id": frame_id.hex(),
        "token": sent.decode("latin-1"),
        "list": index,
        "wall_s": wall_s,
        "service": service,
        "code": int(verdict.code) if isinstance(verdict, Refusal) else 0,
        "signed": _signed(sent, index),
    }


def _signed(sent: bytes, index: int) -> bool:
    """Whether what stands behind the last dot is a signature of what stands before it, by a listed key."""
    known = verify_key_list(LISTS[index][1], AUTHORITY.root.public_key())
    signed, _, signature = sent.rpartition(b".")
    return any(
        signature == b64(key.sign(signed)).encode() for key in (KEY, OTHER_KEY) if key.kid in known.keys
    )


def _root_signed(text: bytes) -> bool:
    signed, _, signature = text.rpartition(b".")
    raw = base64.urlsafe_b64decode(signature + b"=" * (-len(signature) % 4))
    if len(raw) != 64:
        return False
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    try:
        ROOT.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _bad(name: str, text: bytes, *, limit: bool) -> Json:
    return {"name": name, "text": text.decode(), "limit": limit, "signed": _root_signed(text)}


def whole() -> Json:
    root = AUTHORITY.root.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    other = ROOT.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    good = [
        {
            "name": name,
            "number": verify_key_list(text, AUTHORITY.root.public_key()).number,
            "text": text.decode(),
        }
        for name, text in LISTS
    ]
    bad = [_bad(name, text, limit=False) for name, text in bad_lists().items()]
    bad += [_bad(name, text, limit=True) for name, text in limited_lists().items()]
    return {
        "about": ABOUT,
        "device": DEVICE,
        "earliest_s": EARLIEST_S,
        "root": root.hex(),
        "lists": good,
        "bad_lists_root": other.hex(),
        "bad_lists": bad,
        "tokens": tokens(),
    }


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(whole(), indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
