"""One login by a provider, from the button to the claims: what is remembered, and whose answer counts."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.login.errors import DeniedError, ProviderError, StateError
from gateway.login.provider import Attempt, Provider
from gateway.login.remote import error_code
from gateway.randomness import digest, new_secret
from gateway.shortlived.interface import ShortLived

# Somebody looks for a password and a second factor; ten minutes later they went away.
STATE_TTL_S = 600.0
KIND = "provider_login"
# Codes have 20 to 500 characters; longer ones are none.
CODE_MAX = 2048


@dataclass(frozen=True, slots=True)
class Answer:
    """What the browser brings back from the provider; a parameter that comes twice is None."""

    state: str | None
    code: str | None
    error: str | None
    issuer: str | None
    """RFC 9207's `iss`; None: not sent."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the provider vouches for."""

    issuer: str
    claims: Mapping[str, Any]

    @property
    def subject(self) -> str:
        return str(self.claims["sub"])

    @property
    def email(self) -> str | None:
        """As the provider says it; who typed it is told by `email_verified` alone."""
        value = self.claims.get("email")
        usable = isinstance(value, str) and 3 <= len(value) <= EMAIL_MAX and value.isprintable()
        return value if usable else None

    @property
    def email_verified(self) -> bool:
        return self.email is not None and self.claims.get("email_verified") is True


EMAIL_MAX = 254  # RFC 5321


class Flow:
    """Logins by all providers of one gateway."""

    def __init__(self, shortlived: ShortLived, public_url: str) -> None:
        self._shortlived = shortlived
        self._public_url = public_url

    async def begin(self, provider: Provider, browser: str, return_path: str) -> str:
        """Remember a new login of this browser (`browser`: the secret in its cookie); where to send it."""
        attempt = Attempt(new_secret(), new_secret(), new_secret(), self.redirect_uri(provider))
        address = await provider.address(attempt)
        kept = {
            "provider": provider.id,
            "nonce": attempt.nonce,
            "verifier": attempt.verifier,
            "browser": digest(browser).hex(),
            "return_path": return_path,
        }
        await self._shortlived.put(KIND, attempt.state, json.dumps(kept).encode(), STATE_TTL_S)
        return address

    async def finish(
        self, provider: Provider, browser: str | None, answer: Answer, now: float
    ) -> tuple[Person, str]:
        """Whom the provider vouches for, and the path to go to. LoginError: nobody; the state is used up."""
        kept, state = await self._take_back(provider, browser, answer)
        metadata = await provider.metadata()
        # RFC 9207: an answer of another provider than the one that was asked is a mix-up.
        if answer.issuer != metadata.issuer and (answer.issuer is not None or metadata.says_issuer):
            raise ProviderError("the answer names another issuer, or none")
        if answer.error is not None:
            raise DeniedError(error_code(answer.error))
        if not answer.code or len(answer.code) > CODE_MAX:
            raise ProviderError("the answer has no code")
        attempt = Attempt(state, kept["nonce"], kept["verifier"], self.redirect_uri(provider))
        claims = await provider.claims(answer.code, attempt, now)
        return Person(metadata.issuer, claims), kept["return_path"]

    async def _take_back(
        self, provider: Provider, browser: str | None, answer: Answer
    ) -> tuple[dict[str, str], str]:
        if not answer.state or not browser:
            raise StateError("no state, or no cookie")
        value = await self._shortlived.burn(KIND, answer.state)
        if value is None:
            raise StateError("an unknown, used or old state")
        kept: dict[str, str] = json.loads(value)
        if not hmac.compare_digest(kept["browser"], digest(browser).hex()):
            raise StateError("another browser's state")
        # Each provider has a redirect URI of its own: a code that one gave is never shown to another.
        if kept["provider"] != provider.id:
            raise StateError("another provider's state")
        return kept, answer.state

    def redirect_uri(self, provider: Provider) -> str:
        """What is registered with the provider, to the letter."""
        return f"{self._public_url}/login/from/{provider.id}"
