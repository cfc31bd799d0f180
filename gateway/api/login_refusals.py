"""What is counted and kept of a login that was refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from uuid import UUID

from fastapi import Request

from gateway.api.limits import address_of
from gateway.errors import Problem
from gateway.parts import GatewayParts
from gateway.refused_logins import Refusal, Way


def note_refused(
    parts: GatewayParts,
    request: Request,
    way: Way,
    reason: str,
    *,
    result: Literal["wrong", "limited", "refused"],
    account: UUID | None = None,
    provider: str | None = None,
    why: str | None = None,
) -> None:
    """Count it as `result` in the metrics, and keep it for the audit log. Asks no store: every refusal costs
    the same, whoever it is about.
    """
    parts.metrics.logins.labels(result).inc()
    parts.refused_logins.note(Refusal(way, reason, address_of(request), account, provider, why))


@contextmanager
def noting_limited(
    parts: GatewayParts, request: Request, way: Way, provider: str | None = None
) -> Iterator[None]:
    """Around a rate limit: a try that it stops is a refused login."""
    try:
        yield
    except Problem as problem:
        note_refused(parts, request, way, problem.code, result="limited", provider=provider)
        raise
