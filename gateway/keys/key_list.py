"""The grant key list that devices verify with, and since when each of its keys is public.

A device holds the list of its last HELLO. A key that signed before every device has it would cut live devices
off, so a new key is published at once and signs only after a wait.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.errors import KeyFileError
from gateway.keys.files import write_private
from gateway.keys.published import put_dates, read_dates
from gateway.keys.signing import KeySet, ec_thumbprint, kids, sign_es256

KEY_LIST_TYP = "keys+jwt"
# Nodes hand a new list to their devices within minutes, but a device may have been off, or a node cut off.
GRANT_KEY_WAIT_S = 86_400
# A node's HELLO is at most 2,040 bytes (protocol, section 5), and its other fields take some 70. That leaves
# room for two keys of 2048 bits: the one that signs, and the next or the last one.
KEY_LIST_MAX_BYTES = 1_900


def publish(
    directory: Path, root: ec.EllipticCurvePrivateKey, grant: KeySet, now: float, wait_s: float, *, keep: bool
) -> tuple[str, KeySet]:
    """(the list's text, the keys with the times from which each signs). `now` in Unix seconds.

    The stored list stays while it names exactly our keys; otherwise a new one takes the next number. `keep`
    False writes nothing: who only looks must not start a key's wait.
    """
    path = directory / "key_list.jws"
    stored = _stored(path, root)
    text, claims = stored or ("", {"n": 0, "iat": int(now), "keys": []})
    known = dict.fromkeys(kids(claims["keys"]), float(claims["iat"])) | read_dates(directory, "grant")
    listed = set(kids(claims["keys"]))
    if json.dumps(claims["keys"]) != json.dumps(grant.jwks()):
        text = _signed(directory, root, grant, int(claims["n"]) + 1, now)
        if keep:
            write_private(path, text.encode("ascii"))
    # A key that was taken out and comes back waits anew: devices may have forgotten it.
    known = {kid: at for kid, at in known.items() if kid in listed}
    return text, put_dates(directory, "grant", grant, known, now, wait_s, keep=keep)


def _stored(path: Path, root: ec.EllipticCurvePrivateKey) -> tuple[str, dict[str, Any]] | None:
    if not path.exists():
        return None
    text = path.read_text("ascii")
    try:
        claims = jwt.decode(text, root.public_key(), algorithms=["ES256"], options={"verify_iat": False})
    except jwt.InvalidTokenError as error:
        raise KeyFileError(f"{path}: is not signed by device_root.pem") from error
    return text, claims


def _signed(directory: Path, root: ec.EllipticCurvePrivateKey, grant: KeySet, number: int, now: float) -> str:
    claims = {"n": number, "iat": int(now), "keys": grant.jwks()}
    if len({key.kid for key in grant.keys}) != len(grant.keys):
        raise KeyFileError(f"{directory}: two grant key files hold the same key")
    text = sign_es256(root, KEY_LIST_TYP, claims, ec_thumbprint(root.public_key()))
    if len(text) > KEY_LIST_MAX_BYTES:
        raise KeyFileError(
            f"{directory}: the list of {len(grant.keys)} grant keys has {len(text)} bytes; devices take"
            f" {KEY_LIST_MAX_BYTES} (two keys of 2048 bits): remove the oldest grant-*.pem"
        )
    return text
