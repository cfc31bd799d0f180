"""How a device wants one of its services addressed, as told in its HELLO (tag 9)."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel_protocol import Service


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """One service. ``host_line`` is the Host header to send and ``origin`` its origin, both None to keep the
    visitor's own; ``own_hosts`` are the authorities under which the service may name itself in Location.
    """

    name: str
    kind: str
    host_line: bytes | None
    origin: bytes | None
    forwarded: bool
    own_hosts: tuple[bytes, ...]


def service_options(service: Service) -> ServiceOptions:
    """Without a told upstream nothing can be rewritten to."""
    upstream = service.upstream.lower()
    bare = upstream.removesuffix(":80")  # browsers leave the default port out of Host and Origin
    rewrites = service.host == "rewrite" and bool(upstream)
    return ServiceOptions(
        name=service.name,
        kind=service.kind,
        host_line=b"Host: %b\r\n" % bare.encode() if rewrites else None,
        origin=b"http://" + bare.encode() if rewrites else None,
        forwarded=service.forwarded,
        own_hosts=tuple(sorted({upstream.encode(), bare.encode()})) if upstream else (),
    )
