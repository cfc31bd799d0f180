"""A provider that says what a test wants: a real HTTP server with a key of its own, honest by default."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

CLIENT_ID = "towline-client"
CLIENT_SECRET = "client-secret-that-nobody-may-see-7f3a"
WELL_KNOWN = "/.well-known/openid-configuration"

# Made once: the tests are about what is signed, not about the key.
KEY = RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})
OTHER_KEY = RSAKey.generate_key(2048, {"kid": "second", "use": "sig"})
EC_KEY = ECKey.generate_key("P-256", {"kid": "curve", "use": "sig"})
SHORT_KEY_KID = "short"

Reply = tuple[int, Any]
"""Status and body; a body that is no bytes becomes JSON."""


@dataclass
class Code:
    """One authorization code that was given out."""

    asked: dict[str, str]
    claims: dict[str, Any]
    used: bool = False


@dataclass
class Received:
    """A request that the gateway made."""

    path: str
    form: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


class FreeProvider:
    """Runs from the start; `close` it. Times in its tokens come from `now`."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self.url = self.issuer + WELL_KNOWN
        self.now = now
        self.keys: list[Any] = [KEY]
        self.signing_key: Any = KEY
        self.algorithm = "RS256"
        self.metadata_changes: dict[str, Any] = {}
        self.replies: dict[str, Callable[[Received], Reply | None]] = {}
        """What a path answers instead; None: the connection is cut."""
        self.seal: Callable[[dict[str, Any]], str] = self.sign
        """Makes the ID token of its claims."""
        self.codes: dict[str, Code] = {}
        self.received: list[Received] = []
        self.given: list[dict[str, Any]] = []
        """What the token endpoint answered to good codes."""
        self.hanging = threading.Event()
        """Set it to let whoever hangs go."""
        self._thread = threading.Thread(target=self._server.serve_forever, name="free-provider", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.hanging.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked(self, path: str) -> int:
        """How often the gateway came there."""
        return sum(one.path == path for one in self.received)

    def agree(self, asked: dict[str, str], **claims: Any) -> str:
        """The person logged in and said yes to what the authorization request `asked`: the code. A claim that
        is None is left out of the ID token.
        """
        assert asked["client_id"] == CLIENT_ID
        code = secrets.token_urlsafe(24)
        self.codes[code] = Code(asked, claims)
        return code

    def claims_of(self, code: Code) -> dict[str, Any]:
        now = int(self.now())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": "subject-1",
            "iat": now,
            "exp": now + 300,
            "nonce": code.asked.get("nonce"),
            **code.claims,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, claims: dict[str, Any]) -> str:
        registry = JWSRegistry(algorithms=[self.algorithm])
        header = {"alg": self.algorithm, "kid": self.signing_key.kid}
        return jwt.encode(header, claims, self.signing_key, registry=registry)

    def answer(self, received: Received) -> Reply | None:
        self.received.append(received)
        special = self.replies.get(received.path)
        if special is not None:
            return special(received)
        if received.path == WELL_KNOWN:
            return 200, self.metadata()
        if received.path == "/keys":
            return 200, {"keys": [key.as_dict(private=False) for key in self.keys]}
        if received.path == "/token":
            return self.token(received)
        return 404, {"error": "not_found"}

    def metadata(self) -> dict[str, Any]:
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            "code_challenge_methods_supported": ["S256"],
            **self.metadata_changes,
        }
        return {name: value for name, value in document.items() if value is not None}

    def token(self, received: Received) -> Reply:
        """The token endpoint, as strict as OAuth 2.1 wants it."""
        form = received.form
        code = self.codes.get(form.get("code", ""))
        if not self.knows_client(received):
            return 401, {"error": "invalid_client"}
        if code is None or code.used or form.get("redirect_uri") != code.asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        code.used = True
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != code.asked.get("code_challenge"):
            return 400, {"error": "invalid_grant"}
        given = {
            "access_token": secrets.token_urlsafe(24),
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": self.seal(self.claims_of(code)),
        }
        self.given.append(given)
        return 200, given

    def knows_client(self, received: Received) -> bool:
        scheme, _, value = received.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        client, _, secret = base64.b64decode(value).decode().partition(":")
        return (unquote(client), unquote(secret)) == (CLIENT_ID, CLIENT_SECRET)


def hanging(provider: FreeProvider) -> Callable[[Received], Reply | None]:
    """Never answers, until the test lets it go."""

    def hang(received: Received) -> Reply | None:
        provider.hanging.wait(60.0)
        return None

    return hang


def _handler(provider: FreeProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_GET(self) -> None:
            self._reply(Received(self.path.partition("?")[0], headers=self._headers()))

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["content-length"])).decode()
            form = {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}
            self._reply(Received(self.path, form, self._headers()))

        def _headers(self) -> dict[str, str]:
            return {name.lower(): value for name, value in self.headers.items()}

        def _reply(self, received: Received) -> None:
            reply = provider.answer(received)
            if reply is None:
                self.close_connection = True
                return
            status, body = reply
            extra: dict[str, str] = {}
            if isinstance(body, tuple):
                body, extra = body
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            for name, value in extra.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the gateway had enough

        def log_message(self, format: str, *args: object) -> None:
            """Nothing to the test's output."""

    return Handler


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: str = "") -> str:
    """A token of any header, with whatever for a signature."""
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in (header, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), signature])


def wall() -> float:
    return time.time()
