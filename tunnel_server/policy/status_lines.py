"""Status lines in canonical form: the device's own reason phrase says nothing a browser uses."""

from __future__ import annotations

from http import HTTPStatus

_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
}


def status_line(status: int) -> bytes:
    """The line with its CRLF; an unregistered status has an empty phrase (RFC 9112 section 4)."""
    return _LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
