"""One request to what is beside the agent: a device's own page or service. Blocks, so it runs in a thread."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from tunnel_agent.gateway_client import trust

ANSWER_MAX: Final = 16 << 10  # bytes: as much as a report may have


class LocalHttpError(Exception):
    """There was no answer, or not one of 200 or 204; the text says why. `body`: of the answer, if any.
    `soon`: it may be another answer a while later.
    """

    def __init__(self, why: str, body: bytes = b"", *, soon: bool = False) -> None:
        super().__init__(why)
        self.body = body
        self.soon = soon


def fetch(url: str, timeout_s: float, *, method: str = "GET", body: bytes | None = None) -> bytes:
    """The answer's body. `timeout_s` is for each step; redirects are not followed. `body` is JSON."""
    # Imported at the first call: an agent that asks nobody keeps these 2 MiB free.
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection: HTTPConnection
    if parts.scheme == "https":
        connection = HTTPSConnection(host, port, timeout=timeout_s, context=trust(None))
    else:
        connection = HTTPConnection(host, port, timeout=timeout_s)
    headers = {"Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, parts.path or "/", body=body, headers=headers)
        response = connection.getresponse()
        answer = response.read(ANSWER_MAX + 1)
    except (OSError, HTTPException) as error:
        raise LocalHttpError(str(error) or type(error).__name__, soon=True) from error
    finally:
        connection.close()
    if response.status not in (200, 204):
        raise LocalHttpError(f"answered {response.status}", answer, soon=response.status >= 500)
    if len(answer) > ANSWER_MAX:
        raise LocalHttpError(f"answered more than {ANSWER_MAX} bytes")
    return answer
