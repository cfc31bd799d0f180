"""Who speaks: the name and the role in the client certificate that the internal CA signed."""

from __future__ import annotations

import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import Depends, Request
from starlette.types import Receive, Scope, Send

from gateway.connection import BoundedProtocol
from gateway.errors import Problem
from gateway.policy.peers import Peer, PeerRole, peer_of

_SCOPE_KEY = "towline_peer"


class PeerProtocol(BoundedProtocol):
    """Puts the connection's peer into every request's scope (uvicorn does not tell it)."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        peer = peer_of((transport.get_extra_info("peercert") or {}).get("subject", ()))
        inner = self.app

        async def named(scope: Scope, receive: Receive, send: Send) -> None:
            scope[_SCOPE_KEY] = peer
            await inner(cast(Any, scope), cast(Any, receive), cast(Any, send))

        self.app = cast(Any, named)


# Not plain functions: the framework would ask them in another thread.


async def node_of(request: Request) -> str:
    """The verified name of a tunnel server node. Problem for any other peer."""
    return _name_of(request, PeerRole.NODE)


async def ingest_of(request: Request) -> str:
    """The verified name of an ingest process. Problem for any other peer."""
    return _name_of(request, PeerRole.INGEST)


async def any_peer(request: Request) -> None:
    """Problem for a peer of no kind that is known."""
    _name_of(request, *PeerRole)


def _name_of(request: Request, *roles: PeerRole) -> str:
    peer: Peer = request.scope[_SCOPE_KEY]
    if peer.role not in roles:
        raise Problem(HTTPStatus.FORBIDDEN, "wrong_peer", "Your certificate is for something else.")
    return peer.name


Node = Annotated[str, Depends(node_of)]
Ingest = Annotated[str, Depends(ingest_of)]


def server_context(certificate: Path, key: Path, client_ca: Path) -> ssl.SSLContext:
    """TLS 1.3, client certificate demanded, only the internal CA trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    return context
