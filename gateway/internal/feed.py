"""The feed of revocations, for every kind of peer: what ended must end at each of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from gateway.errors import Problem
from gateway.parts import GatewayParts, Parts

router = APIRouter(prefix="/internal/v1", tags=["internal"])


@router.get("/revocations")
async def revocations(parts: Parts, after: Annotated[int, Query(ge=0, lt=2**63)] = 0) -> StreamingResponse:
    """The endless feed: hello, entries after `after`, a heartbeat each second; see the API page."""
    if not parts.feed.is_fresh():
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "store_unavailable",
            "The feed cannot be read now.",
            retry_after_s=1,
        )
    return StreamingResponse(_lines(parts, after), media_type="application/x-ndjson")


async def _lines(parts: GatewayParts, after: int) -> AsyncIterator[bytes]:
    parts.metrics.feed_readers.inc()
    try:
        async for line in parts.feed.follow(after):
            yield json.dumps(line, separators=(",", ":")).encode() + b"\n"
    finally:
        parts.metrics.feed_readers.dec()
