"""Who a provider says it is: the ID token, verified (OpenID Connect Core 3.1.3.7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from gateway.login.errors import ProviderError
from gateway.login.metadata import Metadata
from gateway.login.signatures import NEW_NAME, OLD_NAME, Signatures

# Two machines on NTP differ by far less.
LEEWAY_S = 30
TOKEN_MAX_BYTES = 16 * 1024  # with a picture's URL and a hundred groups about 8 KB
KEYS_MAX = 64  # providers publish two to six
RSA_BITS_MIN = 2048
_BITS_OF_A_CHARACTER = 6  # base64url
SUBJECT_MAX = 255  # Core section 2


class UnknownKeyError(ProviderError):
    """No key of the set signed it: the provider may have a newer set."""


def read_keys(document: Mapping[str, Any]) -> KeySet:
    """The keys of a JWKS that may verify a signature, without others. ProviderError for none."""
    keys = document.get("keys")
    if not isinstance(keys, list):
        raise ProviderError("keys: no list")
    usable = [key for key in keys[:KEYS_MAX] if isinstance(key, dict) and _verifies(key)]
    try:
        found = [key for key in KeySet.import_key_set({"keys": usable}) if _strong(key)]
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise ProviderError("keys: none that can be used") from error
    if not found:
        raise ProviderError("keys: all too short")
    return KeySet(found)


def _verifies(key: Mapping[str, Any]) -> bool:
    operations = key.get("key_ops", ["verify"])
    known = key.get("kty") in {"RSA", "EC"} or (key.get("kty"), key.get("crv")) == ("OKP", NEW_NAME)
    public = known and "d" not in key
    if key.get("kty") == "RSA" and len(str(key.get("n"))) * _BITS_OF_A_CHARACTER < RSA_BITS_MIN:
        return False
    return (
        public and key.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    )


def _strong(key: Any) -> bool:
    return bool(key.key_type != "RSA" or key.public_key.key_size >= RSA_BITS_MIN)


def verified(
    token: object,
    keys: KeySet,
    metadata: Metadata,
    *,
    client_id: str,
    nonce: str,
    access_token: object,
    now: float,
) -> dict[str, Any]:
    """The claims. UnknownKeyError when another key may help; ProviderError otherwise."""
    if not isinstance(token, str) or not token.isascii() or len(token) > TOKEN_MAX_BYTES:
        raise ProviderError("ID token: missing or too long")
    registry = Signatures(algorithms=metadata.algorithms, strict_check_header=False)
    try:
        read = jwt.decode(token, keys, registry=registry)
    except (InvalidKeyIdError, BadSignatureError) as error:
        raise UnknownKeyError(f"ID token: {error.error}") from error
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProviderError(f"ID token: {getattr(error, 'error', 'malformed')}") from error
    # Authlib knows by the older name alone how `at_hash` is made, and would refuse a good one.
    header = {**read.header, "alg": OLD_NAME} if read.header["alg"] == NEW_NAME else read.header
    claims = CodeIDToken(
        read.claims,
        header,
        {
            "iss": {"essential": True, "value": metadata.issuer},
            "aud": {"essential": True, "values": [client_id]},
        },
        {"nonce": nonce, "client_id": client_id, "access_token": access_token},
    )
    try:
        claims.validate(now=int(now), leeway=LEEWAY_S)
    except JoseError as error:
        raise ProviderError(f"ID token: {error.error} {getattr(error, 'claim', '')}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ProviderError("ID token: a claim has the wrong type") from error
    check_subject(claims.get("sub"))
    return dict(read.claims)


def check_subject(subject: object) -> str:
    """ProviderError unless it is what Core section 2 says: 1…255 characters of ASCII."""
    good = isinstance(subject, str) and 1 <= len(subject) <= SUBJECT_MAX
    if not (good and str(subject).isascii() and str(subject).isprintable()):
        raise ProviderError("ID token: sub")
    return str(subject)
