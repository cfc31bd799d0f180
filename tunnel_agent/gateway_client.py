"""JSON calls to the gateway by `http.client`: they are rare, blocking, and run outside the event loop's
thread.

An HTTP client library would cost more memory than the rest of the agent.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from tunnel_agent.errors import GatewayRefused, GatewayUnreachable

CALL_TIMEOUT_S = 15.0  # for each step: connect, TLS, each read
MAX_ANSWER_BYTES = 256 << 10  # certificates, CAs and a key list are some 10 KiB


def trust(ca_pem: str | None) -> ssl.SSLContext:
    """A verifying client context: only `ca_pem` when there is one, else the system's roots."""
    context = ssl.create_default_context(cadata=ca_pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class GatewayClient:
    """Calls one gateway. Redirects are not followed: a secret in a body would go wherever they point."""

    def __init__(self, url: str, ca_pem: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._ca_pem = ca_pem

    def __repr__(self) -> str:
        return f"<GatewayClient {self.url}>"

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        """POST a JSON object; raises GatewayRefused or GatewayUnreachable."""
        return self._call("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def say(self, path: str, raw: bytes, *, bearer: str) -> dict[str, object]:
        """POST JSON as it is, with a Bearer secret; raises GatewayRefused or GatewayUnreachable."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {bearer}"}
        return self._call("POST", path, raw, headers)

    def get(self, path: str, *, bearer: str) -> dict[str, object]:
        """GET with a Bearer secret; raises GatewayRefused or GatewayUnreachable."""
        return self._call("GET", path, None, {"Authorization": f"Bearer {bearer}"})

    def _call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> dict[str, object]:
        # Imported at the first call: an agent that need not renew for months keeps these 2 MiB free.
        from http.client import HTTPConnection, HTTPException, HTTPSConnection

        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            context = trust(self._ca_pem)
            connection: HTTPConnection = HTTPSConnection(host, port, timeout=CALL_TIMEOUT_S, context=context)
        else:
            connection = HTTPConnection(host, port, timeout=CALL_TIMEOUT_S)
        try:
            connection.request(method, parts.path + path, body, {"Accept": "application/json", **headers})
            response = connection.getresponse()
            raw = response.read(MAX_ANSWER_BYTES + 1)
        except (OSError, HTTPException) as error:
            raise GatewayUnreachable(f"no answer from {self.url}: {_reason(error)}") from error
        finally:
            connection.close()
        return _answer(response.status, raw, self.url)


def _answer(status: int, raw: bytes, url: str) -> dict[str, object]:
    try:
        value = json.loads(raw) if len(raw) <= MAX_ANSWER_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if 200 <= status < 300 and isinstance(value, dict):
        return value
    problem = value if isinstance(value, dict) else {}
    if status >= 500:
        raise GatewayUnreachable(f"{url} answered {status}: {_text(problem, 'detail') or 'it is in trouble'}")
    if 200 <= status < 300:
        raise GatewayRefused(status, "", f"{url} does not answer as a gateway does")
    detail = _text(problem, "detail") or _text(problem, "title") or f"{url} answered without a reason"
    raise GatewayRefused(status, _text(problem, "code"), detail)


def _text(problem: Mapping[str, object], name: str) -> str:
    value = problem.get(name)
    return value[:300] if isinstance(value, str) else ""


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    return str(error) or type(error).__name__
