"""What one sets about a provider whose people may log in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from runtime.addresses import is_loopback
from runtime.settings import not_empty, setting

WELL_KNOWN = "/.well-known/openid-configuration"
# A page with more buttons than these helps nobody; each also keeps a connection and keys.
PROVIDERS_MAX = 16

# It stands in the redirect URI that is registered with the provider.
_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 3.3
_DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
# Entra's doors for many tenants. Their metadata names no issuer but a pattern for one, and whoever runs a
# tenant of their own comes in by them.
_OF_MANY_TENANTS = re.compile(r"/(common|organizations|consumers)(/v2\.0)?" + re.escape(WELL_KNOWN))


def are_providers(value: Mapping[str, object]) -> str | None:
    """Check for `runtime.settings.setting`."""
    if len(value) > PROVIDERS_MAX:
        return f"must have at most {PROVIDERS_MAX} providers"
    if any(_ID.fullmatch(name) is None for name in value):
        return "must name each provider with at most 32 small letters, digits and dashes"
    return None


def _is_metadata_url(value: str) -> str | None:
    parts = urlsplit(value)
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
    bare = parts.hostname and not (parts.username or parts.query or parts.fragment)
    if not (safe and bare and parts.path.endswith(WELL_KNOWN)):
        return f"must be an https:// URL that ends with {WELL_KNOWN} (http:// on loopback alone)"
    if _OF_MANY_TENANTS.fullmatch(parts.path):
        return "must be one tenant's own (…/TENANT-ID/v2.0/…): give each tenant a table of its own"
    return None


def _are_scopes(value: tuple[str, ...]) -> str | None:
    if "openid" not in value or any(_SCOPE.fullmatch(scope) is None for scope in value):
        return 'must be a list of scopes with "openid" among them'
    return None


def _are_domains(value: tuple[str, ...]) -> str | None:
    if any(_DOMAIN.fullmatch(domain) is None for domain in value):
        return "must be a list of domains in small letters, such as example.com"
    return None


@dataclass(frozen=True)
class Preset:
    """A well-known provider: what need not be set."""

    name: str
    metadata_url: str


PRESETS = {"google": Preset("Google", f"https://accounts.google.com{WELL_KNOWN}")}


@dataclass(frozen=True)
class ProviderSettings:
    """One provider. The table's key is its id: `login_providers.google`."""

    client_id: str = setting("The gateway's client id at the provider.", check=not_empty)
    client_secret_file: Path | None = setting(
        "File with the client secret and nothing else; read at every start. The secret goes to the provider's"
        " token endpoint alone. Either this or client_key_file.",
        default=None,
    )
    client_key_file: Path | None = setting(
        "In place of a secret: file with a private key (PEM; RSA from 2048 bits, P-256, P-384, P-521 or"
        " Ed25519) by which the gateway proves who it is (`private_key_jwt`); read at every start. The"
        " provider knows its public half.",
        default=None,
    )
    preset: Literal["google"] | None = setting(
        "A well-known provider: gives name and metadata_url. With it, email_domains means the organisation"
        " (`hd`) that Google vouches for.",
        default=None,
    )
    name: str | None = setting(
        "Name on the button of the login page; left out: the preset's, or the id.", default=None
    )
    metadata_url: str | None = setting(
        f"The provider's metadata, https://…{WELL_KNOWN}. Its issuer must be this URL without that end.",
        default=None,
        check=_is_metadata_url,
    )
    scopes: tuple[str, ...] = setting(
        "Scopes to ask for.", default=("openid", "email", "profile"), check=_are_scopes
    )
    email_domains: tuple[str, ...] = setting(
        "Only people whose verified e-mail address is of one of these domains; empty: everybody whom the"
        " provider knows.",
        default=(),
        check=_are_domains,
    )
    sign_up: bool = setting(
        "Whether somebody new gets an account at their first login; false: only who has one.", default=True
    )

    def __post_init__(self) -> None:
        if (self.client_secret_file is None) == (self.client_key_file is None):
            raise ValueError("set either client_secret_file or client_key_file")
        if self.preset is None and self.metadata_url is None:
            raise ValueError("set either preset or metadata_url")
        if self.preset is not None and self.metadata_url is not None:
            raise ValueError("set only one of preset and metadata_url")

    def shown(self, provider_id: str) -> str:
        """The name on the button."""
        if self.name is not None:
            return self.name
        return PRESETS[self.preset].name if self.preset is not None else provider_id

    @property
    def metadata(self) -> str:
        """The metadata's URL."""
        if self.preset is not None:
            return PRESETS[self.preset].metadata_url
        assert self.metadata_url is not None  # __post_init__
        return self.metadata_url
