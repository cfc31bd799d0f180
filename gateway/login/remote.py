"""HTTP to a provider, which may be slow, away or hostile: bounded bytes, no redirects, nothing packed."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client

from gateway.login.client_key import ASSERTION_TYPE
from gateway.login.errors import ProviderAwayError, ProviderError, ProviderSilentError

# The largest key sets in the field have about 20 KB, metadata 5 KB, token answers with many claims 10 KB.
BODY_MAX = 256 * 1024
CONNECTIONS = httpx2.Limits(max_connections=20, max_keepalive_connections=2, keepalive_expiry=30.0)

# Their lines name addresses of the provider at "info" for each request; the gateway logs what came of it.
for _name in ("httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class BoundedTransport(httpx2.AsyncBaseTransport):
    """Reads every answer whole, up to BODY_MAX bytes, and takes none that would have to be unpacked."""

    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport(limits=CONNECTIONS, trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["accept-encoding"] = "identity"
        response = await self._inner.handle_async_request(request)
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ProviderError("an answer is packed, which nobody asked for")
            body = bytearray()
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            async for part in response.stream:
                body += part
                if len(body) > BODY_MAX:
                    raise ProviderError(f"an answer has more than {BODY_MAX} bytes")
        finally:
            await response.aclose()
        return httpx2.Response(response.status_code, headers=_kept(response.headers), content=bytes(body))

    async def aclose(self) -> None:
        await self._inner.aclose()


def _kept(headers: httpx2.Headers) -> dict[str, str]:
    return {"content-type": headers.get("content-type", "")}


class Remote:
    """The way to one provider. Close it with `close`."""

    def __init__(self, client_id: str, client_secret: str | None, timeout_s: float) -> None:
        self._client_id = client_id
        self._timeout_s = timeout_s  # of each step; the caller bounds the whole
        self._timeouts = {"timeout": httpx2.Timeout(timeout_s).as_dict()}
        self._secret = client_secret
        self._transport = BoundedTransport()

    def __repr__(self) -> str:
        return f"<Remote of client {self._client_id}>"

    async def close(self) -> None:
        await self._transport.aclose()

    def client(self, redirect_uri: str, authentication: str = "client_secret_basic") -> AsyncOAuth2Client:
        """Authlib's client for one login: it keeps the token that it got. Not to be closed."""
        return AsyncOAuth2Client(
            self._client_id,
            self._secret,
            token_endpoint_auth_method=authentication,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            transport=self._transport,
            trust_env=False,
            timeout=self._timeout_s,
        )

    async def get(self, what: str, url: str, bearer: str | None = None) -> dict[str, Any]:
        """The JSON object at `url`. ProviderAwayError, or ProviderError when it is none."""
        headers = {"accept": "application/json", "host": httpx2.URL(url).netloc.decode("ascii")}
        if bearer is not None:
            headers["authorization"] = f"Bearer {bearer}"
        async with _translated(what):
            response = await self._transport.handle_async_request(
                httpx2.Request("GET", url, headers=headers, extensions=self._timeouts)
            )
        if response.status_code != httpx2.codes.OK:
            raise ProviderAwayError(f"{what}: status {response.status_code}")
        return _object(what, response.content)

    async def trade(
        self, code: str, verifier: str, *, assertion: str | None = None, **at: str
    ) -> Mapping[str, Any]:
        """The token endpoint's answer to the code. `at`: token_endpoint, redirect_uri, authentication.
        `assertion`: who we are, signed, in place of the secret.
        """
        client = self.client(at["redirect_uri"], "none" if assertion is not None else at["authentication"])
        signed = (
            {}
            if assertion is None
            else {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
        )
        async with _translated("token endpoint"):
            answer: Awaitable[Mapping[str, Any]] = client.fetch_token(
                at["token_endpoint"],
                grant_type="authorization_code",
                code=code,
                code_verifier=verifier,
                **signed,
            )
            return await answer


@asynccontextmanager
async def _translated(what: str) -> AsyncIterator[None]:
    """What goes wrong becomes one of ours, without the provider's own words."""
    try:
        yield
    except OAuthError as error:
        raise ProviderError(f"{what}: {error_code(error.error)}") from None
    except httpx2.HTTPStatusError as error:
        raise ProviderAwayError(f"{what}: status {error.response.status_code}") from None
    except (httpx2.HTTPError, OSError) as error:
        raise ProviderSilentError(f"{what}: {type(error).__name__}") from None
    except (ValueError, TypeError, KeyError, httpx2.InvalidURL):
        # Authlib reads the answer's members without looking first.
        raise ProviderError(f"{what}: not what OAuth answers") from None


def error_code(text: object) -> str:
    """An OAuth error code as it may stand in a log: it comes from outside."""
    known = isinstance(text, str) and len(text) <= 64 and text.replace("_", "").isalnum() and text.isascii()
    return str(text) if known else "an error without a code"


def _object(what: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ProviderError(f"{what}: no JSON") from error
    if not isinstance(value, dict):
        raise ProviderError(f"{what}: no JSON object")
    return value
