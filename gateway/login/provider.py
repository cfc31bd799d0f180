"""One provider as the gateway knows it: its metadata and keys, kept for a while; the talk of a login."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from joserfc.jwk import KeySet

from gateway.guard import Fault, Guard
from gateway.login.client_key import AUTHENTICATION, ClientKey
from gateway.login.errors import ProviderError, ProviderSilentError
from gateway.login.id_token import UnknownKeyError, check_subject, read_keys, verified
from gateway.login.metadata import BY_SECRET, Metadata, read_metadata
from gateway.login.remote import Remote
from gateway.login.settings import ProviderSettings
from gateway.metrics import GatewayMetrics
from gateway.policy.breaker import Rules
from runtime.clock import Clock

# Providers change their metadata in weeks and announce keys days before use; a withdrawn key must go soon.
KEPT_S = 3600.0
# A person waits at a white page. Providers answer in 0.1 s; across the world and loaded in one.
DEADLINE_S = 5.0
# After one hang nobody else waits: all are refused at once, and after this pause one of them tries.
RULES = Rules(failures=3, open_s=1.0, open_max_s=15.0)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one login sends to the provider, of our own making."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str


class Provider:
    """Safe to use by many logins at once. Close it with `close`."""

    def __init__(
        self,
        provider_id: str,
        settings: ProviderSettings,
        secret: str | ClientKey,
        clock: Clock,
        metrics: GatewayMetrics,
    ) -> None:
        self.id = provider_id
        self.settings = settings
        self.name = settings.shown(provider_id)
        self._key = secret if isinstance(secret, ClientKey) else None
        self._remote = Remote(settings.client_id, secret if isinstance(secret, str) else None, DEADLINE_S)
        self._guard = Guard(
            f"login provider {provider_id}",
            metrics,
            # An answer with an error is one: a person can provoke it, and must not keep others out.
            fault=lambda error: Fault.FAILED if isinstance(error, ProviderSilentError) else Fault.NONE,
            refuse=ProviderSilentError,
            rules=RULES,
        )
        self._metadata = _Kept(clock, self._load_metadata)
        self._keys = _Kept(clock, self._load_keys)

    def __repr__(self) -> str:
        return f"<Provider {self.id}: {self.settings.metadata}>"

    async def close(self) -> None:
        await self._remote.close()

    async def metadata(self) -> Metadata:
        """What the provider says about itself. ProviderAwayError, ProviderError."""
        return await self._metadata.get()

    async def address(self, attempt: Attempt) -> str:
        """Where the browser goes to log in."""
        metadata = await self.metadata()
        client = self._remote.client(attempt.redirect_uri)
        url, _ = client.create_authorization_url(
            metadata.authorization_endpoint,
            state=attempt.state,
            code_verifier=attempt.verifier,
            nonce=attempt.nonce,
            scope=" ".join(self.settings.scopes),
            response_type="code",
        )
        return str(url)

    async def claims(self, code: str, attempt: Attempt, now: float) -> Mapping[str, Any]:
        """The verified claims for the code that the browser brought. ProviderAwayError, ProviderError."""
        metadata = await self.metadata()
        assertion = None
        if self._key is not None:
            assertion = self._key.assertion(
                self.settings.client_id, metadata.issuer, metadata.assertion_algorithms, now
            )
        async with self._guard.call(patience_s=DEADLINE_S):
            tokens = await self._remote.trade(
                code,
                attempt.verifier,
                token_endpoint=metadata.token_endpoint,
                redirect_uri=attempt.redirect_uri,
                authentication=metadata.client_authentication,
                assertion=assertion,
            )
        claims = await self._verified(tokens, metadata, attempt.nonce, now)
        return await self._with_userinfo(claims, tokens, metadata)

    async def _verified(
        self, tokens: Mapping[str, Any], metadata: Metadata, nonce: str, now: float
    ) -> dict[str, Any]:
        def verify(keys: KeySet) -> dict[str, Any]:
            return verified(
                tokens.get("id_token"),
                keys,
                metadata,
                client_id=self.settings.client_id,
                nonce=nonce,
                access_token=tokens.get("access_token"),
                now=now,
            )

        known = await self._keys.get()
        try:
            return verify(known)
        except UnknownKeyError:
            newer = await self._keys.newer_than(known)
            if newer is known:
                raise
            return verify(newer)

    async def _with_userinfo(
        self, claims: dict[str, Any], tokens: Mapping[str, Any], metadata: Metadata
    ) -> Mapping[str, Any]:
        """Providers may keep the e-mail address and names out of the ID token (Core 5.4)."""
        access_token = tokens.get("access_token")
        wanted = "email" in self.settings.scopes and "email" not in claims
        if not (wanted and metadata.userinfo_endpoint and isinstance(access_token, str)):
            return claims
        async with self._guard.call(patience_s=DEADLINE_S):
            more = await self._remote.get("userinfo", metadata.userinfo_endpoint, bearer=access_token)
        if check_subject(more.get("sub")) != claims["sub"]:
            raise ProviderError("userinfo is about somebody else")  # Core 5.3.2
        return {**more, **claims}

    async def _load_metadata(self) -> Metadata:
        url = self.settings.metadata
        async with self._guard.call(patience_s=DEADLINE_S):
            document = await self._remote.get("metadata", url)
        return read_metadata(document, url, BY_SECRET if self._key is None else (AUTHENTICATION,))

    async def _load_keys(self) -> KeySet:
        metadata = await self._metadata.get()
        async with self._guard.call(patience_s=DEADLINE_S):
            document = await self._remote.get("keys", metadata.jwks_uri)
        return read_keys(document)


class _Kept(Generic[T]):
    """A value of the provider's, fetched once for all who wait, kept KEPT_S."""

    def __init__(self, clock: Clock, load: Callable[[], Awaitable[T]]) -> None:
        self._clock = clock
        self._load = load
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._until = 0.0

    async def get(self) -> T:
        async with self._lock:
            if self._value is None or self._clock.monotonic() >= self._until:
                await self._fetch()
            assert self._value is not None
            return self._value

    async def newer_than(self, known: T) -> T:
        """The value after `known`: fetched now unless somebody else did meanwhile."""
        async with self._lock:
            if self._value is known:
                await self._fetch()
            assert self._value is not None
            return self._value

    async def _fetch(self) -> None:
        self._value = await self._load()
        self._until = self._clock.monotonic() + KEPT_S
