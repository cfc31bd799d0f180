"""A provider's metadata (OpenID Connect Discovery 1.0): what we use of it, checked before any use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gateway.login.errors import ProviderError
from gateway.login.settings import WELL_KNOWN
from runtime.addresses import is_loopback

# Signatures with a public key that the provider publishes; never "none", never one made with our secret.
ALGORITHMS = (
    *("RS256", "ES256", "PS256", "RS384", "ES384", "PS384", "RS512", "ES512", "PS512"),
    # One algorithm: RFC 9864 renamed it, providers still use the older name.
    *("EdDSA", "Ed25519"),
)
# What a provider that does not say must be able to do (Discovery section 3).
_ALGORITHM_OF_ALL = ("RS256",)
BY_SECRET = ("client_secret_basic", "client_secret_post")
_ASSERTION_ALGORITHMS = "token_endpoint_auth_signing_alg_values_supported"
URL_MAX = 2048  # what every browser and server takes


@dataclass(frozen=True, slots=True)
class Metadata:
    """One provider, as it describes itself. `userinfo_endpoint` None: it has none."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    algorithms: tuple[str, ...]
    """Signatures of its ID tokens that we accept."""
    client_authentication: str
    """How the token endpoint learns who we are."""
    assertion_algorithms: tuple[str, ...] | None
    """Signatures that it takes of us; None: it does not say."""
    says_issuer: bool
    """Every answer of its carries `iss` (RFC 9207): one without is not its own."""


def read_metadata(document: object, url: str, authentications: tuple[str, ...] = BY_SECRET) -> Metadata:
    """What the document at `url` says. ProviderError when it must not or cannot be used.

    `authentications`: how we can prove who we are, the best first.
    """
    if not isinstance(document, dict):
        raise ProviderError("the metadata is no JSON object")
    issuer = _text(document, "issuer")
    if "{" in issuer:
        raise ProviderError("the metadata is of many tenants: use one tenant's own")
    # Discovery section 4.3. Without it one provider could speak for another.
    if issuer.rstrip("/") != url.removesuffix(WELL_KNOWN).rstrip("/"):
        raise ProviderError("the metadata names another issuer")
    plain = urlsplit(url).scheme == "http"  # the settings allow that on loopback alone
    taken = _texts(document, "token_endpoint_auth_methods_supported", ("client_secret_basic",))
    found = [method for method in authentications if method in taken]
    if not found:
        raise ProviderError(f"the token endpoint takes no {' or '.join(authentications)}")
    offered = _texts(document, "id_token_signing_alg_values_supported", _ALGORITHM_OF_ALL)
    algorithms = tuple(name for name in ALGORITHMS if name in offered)
    if not algorithms:
        raise ProviderError("no signature that it offers is safe")
    return Metadata(
        issuer=issuer,
        authorization_endpoint=_endpoint(document, "authorization_endpoint", plain),
        token_endpoint=_endpoint(document, "token_endpoint", plain),
        jwks_uri=_endpoint(document, "jwks_uri", plain),
        userinfo_endpoint=(
            _endpoint(document, "userinfo_endpoint", plain) if "userinfo_endpoint" in document else None
        ),
        algorithms=algorithms,
        client_authentication=found[0],
        assertion_algorithms=(
            _texts(document, _ASSERTION_ALGORITHMS, ()) if _ASSERTION_ALGORITHMS in document else None
        ),
        says_issuer=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= URL_MAX:
        raise ProviderError(f"{name} is missing, too long or no text")
    return value


def _texts(document: Mapping[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    values = document.get(name)
    if values is None:
        return default
    if not isinstance(values, list):
        raise ProviderError(f"{name} is no list")
    return tuple(value for value in values if isinstance(value, str))


def _endpoint(document: Mapping[str, Any], name: str, plain: bool) -> str:
    value = _text(document, name)
    try:
        parts = urlsplit(value)
        host = parts.hostname
    except ValueError as error:
        raise ProviderError(f"{name} is no URL") from error
    safe = parts.scheme == "https" or (plain and parts.scheme == "http" and is_loopback(host))
    printable = value.isascii() and value.isprintable() and " " not in value
    if not (safe and host and printable) or parts.username is not None or parts.fragment:
        raise ProviderError(f"{name} must be an https:// URL")
    return value
