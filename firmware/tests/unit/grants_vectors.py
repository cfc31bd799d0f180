"""Writes grants_vectors.h from the agent's own cases, with the codes that the agent's book gives.

Run with the repository's root on PYTHONPATH; keys are made anew each time.
"""

from __future__ import annotations

import sys

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.tunnel_agent import test_grants as grants
from tests.tunnel_agent import test_key_list as lists
from tests.tunnel_agent.authority import KEY, NOW, OTHER_KEY, b64, claims, grant_id, token
from tunnel_agent.policy.grants import ConnectionGrants, Refusal


def code(sent: bytes, frame_id: bytes = grants.GRANT_ID) -> int:
    verdict = ConnectionGrants(grants.new_book(), grants.DEVICE).offer(frame_id, sent, NOW, grants.MONO)
    return int(verdict.code) if isinstance(verdict, Refusal) else 0


def spelt(raw: bytes) -> str:
    if all(0x20 <= byte < 0x7F and byte not in b'"\\?' for byte in raw):
        return raw.decode()
    return "".join(f"\\x{byte:02x}" for byte in raw)


def data(raw: bytes) -> str:
    lines = [raw[i : i + 104] for i in range(0, len(raw), 104)] or [b""]
    return '"' + '"\n    "'.join(map(spelt, lines)) + '"'


def row(name: str, frame_id: bytes, sent: bytes, verdict: int) -> str:
    return f'    {{"{name}", {data(frame_id)}, {data(sent)}, {len(sent)}, {verdict}}},\n'


def grant_rows() -> str:
    rows = [row("genuine", grants.GRANT_ID, grants.GENUINE, code(grants.GENUINE))]
    rows += [row(name, grants.GRANT_ID, sent, code(sent)) for name, sent in grants.FORGERIES.items()]
    for name, changes in {
        "act": {"act": {"sub": "engineer"}},
        "act null": {"act": None},
        "long sub": {"sub": "ü" * 256},
        "sub too long": {"sub": "u" * 257},
        "early by the leeway": {"iat": int(NOW) + 30},
        "too early": {"iat": int(NOW) + 31},
        "late by the leeway": {"exp": int(NOW) - 29, "iat": 1},
        "a service of another kind": {"svc": "ssh"},
        "another claim": {"note": [{"deep": None}]},
    }.items():
        body = claims() | changes
        rows.append(row(name, grant_id(body), token(body), code(token(body), grant_id(body))))
    same = grants.BODY | {"svc": "ssh"}
    rows.append(row("ssh under the same id", grants.GRANT_ID, token(same), code(token(same))))
    rows += [row(name, grants.GRANT_ID, sent, code(sent)) for name, sent in padded().items()]
    for name, key in {"another listed key": OTHER_KEY}.items():
        body = claims()
        rows.append(row(name, grant_id(body), token(body, key), -1))
    return "".join(rows)


def padded() -> dict[str, bytes]:
    """Genuine but for their length: the longest that is allowed, and the first beyond it."""
    sent = [token(grants.BODY | {"note": "x" * n}) for n in range(500, 800)]
    longest = max((each for each in sent if len(each) <= 1536), key=len)
    beyond = min((each for each in sent if len(each) > 1536), key=len)
    return {"as long as allowed": longest, "beyond what is allowed": beyond}


def odd_keys() -> dict[str, bytes]:
    moduli = {
        "1,024 bits": b"\xff" * 128,
        "2,047 bits": b"\x7f" + b"\xff" * 255,
        "4,104 bits": b"\xff" * 513,
        "2,048 bits behind a zero": b"\0" + b"\xff" * 256,
    }
    return {name: lists.AUTHORITY.key_list_text(jwks=[KEY.jwk(n=b64(n))]) for name, n in moduli.items()}


def main() -> None:
    authority, root = grants.AUTHORITY, grants.AUTHORITY.root.public_key()
    point = root.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    list_point = lists.ROOT.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    good = [
        authority.key_list_text(1),
        authority.key_list_text(2, [KEY.jwk(), OTHER_KEY.jwk()]),
        authority.key_list_text(3, [OTHER_KEY.jwk(use=None, alg=None, key_ops=["sign", "verify"])]),
        authority.key_list_text(2**53 - 1),
    ]
    out = ["/* Made by grants_vectors.py. */\n"]
    out.append(f"#define NOW_S INT64_C({int(NOW)})\n#define DEVICE {grants.DEVICE!r}\n".replace("'", '"'))
    out.append(f"static const char ROOT[] = {data(point)};\nstatic const char LIST_ROOT[] = {data(list_point)};\n")
    out.append("static const struct { const char *text; size_t n; } LISTS[] = {\n")
    out += [f"    {{{data(text)}, {len(text)}}},\n" for text in good]
    out.append("};\nstatic const struct { const char *name, *text; size_t n; } BAD_LISTS[] = {\n")
    for name, text in (lists.BAD_LISTS | odd_keys()).items():
        begin = text[:4000]  # the device's limit is half of it
        out.append(f'    {{"{name}", {data(begin)}, {len(begin)}}},\n')
    out.append("};\nstatic const struct { const char *name, *id, *token; size_t n; int code; } TOKENS[] = {\n")
    out += [grant_rows(), "};\n"]
    sys.stdout.write("".join(out))


main()
