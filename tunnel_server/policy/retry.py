"""When a request may go out again, and when it may use a stream that an earlier one used (DESIGN 3.7)."""

from __future__ import annotations

# RFC 9110 section 9.2.2, and the safe ones of RFC 4918 and RFC 10008.
IDEMPOTENT = frozenset(b"GET HEAD OPTIONS PUT DELETE PROPFIND SEARCH REPORT QUERY".split())
MAX_ATTEMPTS = 2  # the first and one more: a second failure is the device's, not the stale stream's


def may_use_pooled(method: bytes, *, has_body: bool) -> bool:
    """A pooled stream may be dead already; only what could be sent again may risk it."""
    return method in IDEMPOTENT and not has_body


def may_retry(method: bytes, *, attempts: int, response_started: bool, body_sent: bool) -> bool:
    """Whether a request whose stream died goes out once more, on a fresh stream."""
    return attempts < MAX_ATTEMPTS and not response_started and not body_sent and method in IDEMPOTENT
