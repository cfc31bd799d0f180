"""The internal application."""

from __future__ import annotations

from fastapi import Depends
from starlette.types import ASGIApp

from gateway.api.app import new_app
from gateway.api.edge import Edge
from gateway.internal import brokers, dead_letters, elsewhere, feed, log, routes
from gateway.internal.peer import any_peer, ingest_of, node_of
from gateway.parts import GatewayParts

# A full report of 50,000 tunnels with their services is about 12 MB.
INTERNAL_BODY_MAX = 16 * 1024 * 1024

# Each with who may ask: a route cannot forget it.
ROUTERS = (
    (routes.router, node_of),
    (elsewhere.router, node_of),
    (feed.router, any_peer),
    (brokers.router, ingest_of),
    (log.router, ingest_of),
    (dead_letters.router, ingest_of),
)


def internal_app(parts: GatewayParts) -> ASGIApp:
    """What peers may ask: each has shown a certificate of the internal CA, and what that is for decides."""
    app = new_app(parts, "Towline gateway, internal")
    for router, asked in ROUTERS:
        app.include_router(router, dependencies=[Depends(asked)])
    return Edge(app, listener="internal", metrics=parts.metrics, body_max=INTERNAL_BODY_MAX, secure=True)
