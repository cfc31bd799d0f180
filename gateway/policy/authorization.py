"""Reading an authorization request (RFC 6749, section 4.1.1; PKCE: RFC 7636; OAuth 2.1), strictly."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from gateway.policy.clients import NativeClient

# A request has about 400 characters; a client's state is the only part that grows. The way over the login,
# ours or a provider's, must bring all of it back: policy/return_path.py.
QUERY_MAX = 2000
_QUERY = re.compile(r"[\x21-\x5b\x5d-\x7e]*")
STATE_MAX = 1024
_FIELDS_MAX = 32
_STATE = re.compile(rf"[\x20-\x7e]{{1,{STATE_MAX}}}")  # VSCHAR and blank: RFC 6749, appendix A.5
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256, base64url
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


class BadRequestError(ValueError):
    """Nobody may be redirected: it is not known to whom. The text is for the person at the browser."""


class RefusedError(ValueError):
    """Told to the client by redirection."""

    def __init__(self, error: str, description: str, redirect_uri: str, state: str | None) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.redirect_uri = redirect_uri
        self.state = state


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A request that holds: only the person's yes is missing."""

    client_id: str
    client: NativeClient
    redirect_uri: str
    code_challenge: str
    state: str | None


def fields_of(encoded: str) -> dict[str, str]:
    """A query or form as its fields; ones without a value count as left out (RFC 6749, section 3.1).

    ValueError when it cannot be read or a field is there twice.
    """
    if not encoded:
        return {}
    pairs = parse_qsl(
        encoded, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_FIELDS_MAX
    )
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is there twice")
    return {name: value for name, value in fields.items() if value}


def read_request(query: str, clients: Mapping[str, NativeClient]) -> AuthorizationRequest:
    """BadRequestError before the client and its redirect URI are known, RefusedError after that."""
    try:
        fields = fields_of(query) if len(query) <= QUERY_MAX and _QUERY.fullmatch(query) else {}
    except ValueError as error:
        raise BadRequestError("The app's request cannot be read.") from error
    client_id, redirect_uri = fields.get("client_id", ""), fields.get("redirect_uri", "")
    client = clients.get(client_id)
    if client is None:
        raise BadRequestError("This app is not registered here.")
    if not client.takes(redirect_uri):
        raise BadRequestError("The app wants the answer sent to an address that is not registered for it.")
    state = fields.get("state")
    wrong = _wrong(fields)
    if wrong is not None:
        raise RefusedError(*wrong, redirect_uri, state if state and _STATE.fullmatch(state) else None)
    return AuthorizationRequest(client_id, client, redirect_uri, fields["code_challenge"], state)


def _wrong(fields: Mapping[str, str]) -> tuple[str, str] | None:
    """(error, description), or None for a request that holds."""
    state = fields.get("state")
    if state is not None and not _STATE.fullmatch(state):
        return "invalid_request", f"state must have at most {STATE_MAX} printable ASCII characters"
    if fields.get("response_type") is None:
        return "invalid_request", "response_type is missing"
    if fields["response_type"] != "code":
        return "unsupported_response_type", "response_type must be code"
    if fields.get("response_mode", "query") != "query":
        return "invalid_request", "response_mode must be query"
    if "request" in fields or "request_uri" in fields:
        return "invalid_request", "request objects are not supported"
    if fields.get("code_challenge_method") != "S256":
        return "invalid_request", "code_challenge_method must be S256"
    if not _CHALLENGE.fullmatch(fields.get("code_challenge", "")):
        return "invalid_request", "code_challenge must be the base64url of a SHA-256"
    if "scope" in fields:
        return "invalid_scope", "leave scope out: an app acts as the person who allows it"
    return None


def answer_uri(redirect_uri: str, **parameters: str | None) -> str:
    """`redirect_uri` with the parameters that are not None in its query; what it has of its own stays."""
    query = urlencode({name: value for name, value in parameters.items() if value is not None})
    return f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{query}"


def verifier_fits(verifier: str, challenge: str) -> bool:
    """RFC 7636, section 4.6, for S256."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    found = base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
    return hmac.compare_digest(found, challenge)
