"""Which node speaks: the common name of the client certificate that the internal CA signed."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import Depends, Request
from starlette.types import Receive, Scope, Send

from gateway.connection import BoundedProtocol

_SCOPE_KEY = "towline_node"


class NodeProtocol(BoundedProtocol):
    """Puts the connection's node name into every request's scope (uvicorn does not tell the peer)."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        node = common_name(transport.get_extra_info("peercert"))
        inner = self.app

        async def named(scope: Scope, receive: Receive, send: Send) -> None:
            scope[_SCOPE_KEY] = node
            await inner(cast(Any, scope), cast(Any, receive), cast(Any, send))

        self.app = cast(Any, named)


def common_name(certificate: Any) -> str:
    """The CN of a certificate as `SSLSocket.getpeercert` gives it; "" when there is none."""
    for part in (certificate or {}).get("subject", ()):
        for name, value in part:
            if name == "commonName":
                return str(value)
    return ""


async def node_of(request: Request) -> str:
    """The verified node name. (Not a plain function: the framework would ask it in another thread.)"""
    return str(request.scope[_SCOPE_KEY])


Node = Annotated[str, Depends(node_of)]


def server_context(certificate: Path, key: Path, client_ca: Path) -> ssl.SSLContext:
    """TLS 1.3, client certificate demanded, only the internal CA trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    return context
