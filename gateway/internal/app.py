"""The internal application."""

from __future__ import annotations

from starlette.types import ASGIApp

from gateway.api.app import new_app
from gateway.api.edge import Edge
from gateway.internal import elsewhere, routes
from gateway.parts import GatewayParts

# A full report of 50,000 tunnels with their services is about 12 MB.
INTERNAL_BODY_MAX = 16 * 1024 * 1024


def internal_app(parts: GatewayParts) -> ASGIApp:
    """What nodes may ask. Whoever gets here has shown a certificate of the internal CA."""
    app = new_app(parts, "Towline gateway, internal")
    app.include_router(routes.router)
    app.include_router(elsewhere.router)
    return Edge(app, listener="internal", metrics=parts.metrics, body_max=INTERNAL_BODY_MAX, secure=True)
