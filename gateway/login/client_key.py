"""The gateway's own key at a provider: it signs who asks at the token endpoint (`private_key_jwt`).

OpenID Connect Core section 9, RFC 7523.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.login.errors import ProviderError
from gateway.login.id_token import RSA_BITS_MIN
from gateway.login.signatures import NEW_NAME, OLD_NAME, Signatures
from gateway.randomness import new_secret
from runtime.settings import SettingsError

AUTHENTICATION: Final = "private_key_jwt"
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# It is made for the one request it goes with; the rest is for clocks that differ.
ASSERTION_S: Final = 60
_OF_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class ClientKey:
    """One private key. Safe to use by many logins at once."""

    def __init__(self, key: RSAKey | ECKey | OKPKey, algorithms: tuple[str, ...]) -> None:
        """`algorithms` are those that it can sign by, the best known first."""
        self._key = key
        self._algorithms = algorithms

    def __repr__(self) -> str:
        return f"<ClientKey {self._algorithms[0]}>"

    def assertion(self, client_id: str, issuer: str, offered: Sequence[str] | None, now: float) -> str:
        """The compact JWT for the one request that is made `now` (Unix seconds). ProviderError when the
        provider takes none of its signatures; `offered` None: it does not say which.

        Its audience is the provider's issuer and nothing else. With the token endpoint's address, which
        providers tell themselves, one provider could have us make what another one takes.
        """
        found = [name for name in self._algorithms if offered is None or name in offered]
        if not found:
            raise ProviderError(f"the token endpoint takes no {' or '.join(self._algorithms)}")
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": issuer,
            "jti": new_secret(),
            "iat": int(now),
            "exp": int(now) + ASSERTION_S,
        }
        # No `kid`: what a provider calls the key depends on how it was registered there (its own name, a hash
        # of one form or another), and one that finds nothing by it looks no further.
        header = {"alg": found[0], "typ": "JWT"}
        return jwt.encode(header, claims, self._key, registry=Signatures(algorithms=found[:1]))


def read_client_key(path: Path, name: str) -> ClientKey:
    """The file's key. SettingsError names the setting, never the content."""
    try:
        pem = path.read_bytes()
        key = load_pem_private_key(pem, password=None)
    except OSError as error:
        raise SettingsError(f"{name}: {path}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{name}: {path}: is no private key in PEM without a password") from error
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= RSA_BITS_MIN:
        return ClientKey(RSAKey.import_key(pem), ("RS256", "PS256"))
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _OF_CURVES:
        return ClientKey(ECKey.import_key(pem), (_OF_CURVES[key.curve.name],))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return ClientKey(OKPKey.import_key(pem), (OLD_NAME, NEW_NAME))
    raise SettingsError(
        f"{name}: {path}: must be RSA from {RSA_BITS_MIN} bits, P-256, P-384, P-521 or Ed25519"
    )
