"""Public keys and health."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from gateway.api.credentials import ANYBODY, acts
from gateway.parts import GatewayParts, Parts

# Verifiers may keep the keys this long; a rotation publishes the new key at least as long before its use.
JWKS_MAX_AGE_S = 300

router = APIRouter(tags=["health"])


@router.get("/.well-known/jwks.json", openapi_extra=acts(ANYBODY))
async def jwks(response: Response, parts: Parts) -> dict[str, Any]:
    """The login keys (RFC 7517): they sign access and link tokens."""
    response.headers["cache-control"] = f"public, max-age={JWKS_MAX_AGE_S}"
    return parts.tokens.jwks()


@router.get("/livez", openapi_extra=acts(ANYBODY))
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", openapi_extra=acts(ANYBODY))
async def readyz(parts: Parts) -> JSONResponse:
    """503 names the dependencies that fail."""
    failed = failed_checks(parts)
    return JSONResponse({"ready": not failed, "failed": failed}, 503 if failed else 200)


def failed_checks(parts: GatewayParts) -> list[str]:
    """Names of what does not work: schema, postgres, redis, administrator (is not written yet)."""
    failed = {guard.name for guard in parts.guards if not guard.is_closed}
    if not parts.feed.is_fresh():
        failed.add("postgres" if parts.database.prepared else "schema")
    elif not parts.administered.is_set():
        failed.add("administrator")
    return sorted(failed)
