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
ALGORITHMS = ("RS256", "ES256", "PS256", "RS384", "ES384", "PS384", "RS512", "ES512", "PS512")
# What a provider that does not say must be able to do (Discovery section 3).
_ALGORITHM_OF_ALL = ("RS256",)
_CLIENT_AUTHENTICATIONS = ("client_secret_basic", "client_secret_post")
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
    """How the token endpoint learns our secret."""
    says_issuer: bool
    """Every answer of its carries `iss` (RFC 9207): one without is not its own."""


def read_metadata(document: object, url: str) -> Metadata:
    """What the document at `url` says. ProviderError when it must not or cannot be used."""
    if not isinstance(document, dict):
        raise ProviderError("the metadata is no JSON object")
    issuer = _text(document, "issuer")
    # Discovery section 4.3. Without it one provider could speak for another.
    if issuer.rstrip("/") != url.removesuffix(WELL_KNOWN).rstrip("/"):
        raise ProviderError("the metadata names another issuer")
    plain = urlsplit(url).scheme == "http"  # the settings allow that on loopback alone
    authentications = _texts(document, "token_endpoint_auth_methods_supported", ("client_secret_basic",))
    found = [method for method in _CLIENT_AUTHENTICATIONS if method in authentications]
    if not found:
        raise ProviderError("the token endpoint takes no client secret")
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
