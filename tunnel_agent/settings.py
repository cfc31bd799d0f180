"""The agent's configuration file; `runtime.settings` reads and checks it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from runtime.addresses import is_address, parse_address
from runtime.settings import between, setting
from tunnel_agent.messages.settings import MessagesSettings
from tunnel_agent.policy.reconnect import MAX_CONNECTIONS
from tunnel_agent.urls import tunnel_url_problem
from tunnel_protocol import Limits

MAX_SERVICES = 64  # HELLO names at most so many (specification, section 5)
_LIMITS = Limits()  # the specification's numbers for a Linux device (section 11)
_SERVICE_NAME = re.compile(r"[a-z0-9_-]{1,64}")


def _is_service_address(value: str) -> str | None:
    try:
        address = parse_address(value)
    except ValueError as error:
        return str(error)
    return None if address.port else "must name a port other than 0"


def _are_services(value: dict[str, Any]) -> str | None:
    if not 0 < len(value) <= MAX_SERVICES:
        return f"must hold 1 to {MAX_SERVICES} tables"
    wrong = next((name for name in value if not _SERVICE_NAME.fullmatch(name)), None)
    return f"names are 1 to 64 of a-z 0-9 _ - ({wrong!r} is none)" if wrong is not None else None


def _are_tunnel_urls(value: tuple[str, ...]) -> str | None:
    return next((problem for problem in map(tunnel_url_problem, value) if problem), None)


@dataclass(frozen=True)
class ServiceSettings:
    """One local TCP service that sessions may reach; nothing that is not listed here can be reached."""

    address: str = setting("Where the service listens, host:port.", check=_is_service_address)
    kind: Literal["web", "tcp"] = setting(
        "`web` for HTTP and WebSocket, `tcp` for anything else.", default="web"
    )
    host: Literal["rewrite", "preserve"] = setting(
        "`rewrite` gives the service its own address as Host and Origin (what most device pages "
        "expect), `preserve` the visitor's.",
        default="rewrite",
    )
    forwarded_headers: bool = setting(
        "Whether X-Forwarded-* headers are added. Some products answer 400 to them from an unknown proxy.",
        default=False,
    )
    support: bool = setting(
        "Whether support may reach it, when the owner consents at the gateway. `false` is the device's own "
        "no, which no consent and no server overrules.",
        default=True,
    )


@dataclass(frozen=True)
class LimitSettings:
    """Memory and latency of the tunnel; the defaults are measured for a Linux device."""

    max_streams: int = setting(
        "Streams at once on one connection.", default=_LIMITS.max_streams, check=between(1, 4096)
    )
    max_frame: int = setting(
        "Largest DATA payload taken, bytes.", default=_LIMITS.max_frame, check=between(256, 65_535)
    )
    max_message: int = setting(
        "Largest WebSocket message taken, bytes.",
        default=_LIMITS.max_message,
        check=between(66_000, 16 << 20),
    )
    stream_window: int = setting(
        "Bytes a visitor may have under way to a service at first.",
        default=_LIMITS.stream_window,
        check=between(4096, 16 << 20),
    )
    stream_window_max: int = setting(
        "Up to where that window grows on a fast path, bytes.",
        default=_LIMITS.stream_window_max,
        check=between(4096, 64 << 20),
    )
    window_budget: int = setting(
        "Sum of what windows may grow by on one connection, bytes: the bound of its memory.",
        default=_LIMITS.window_budget,
        check=between(64 << 10, 256 << 20),
    )
    connection_window: int = setting(
        "Bytes in flight towards the device over all streams; more costs everyone's latency.",
        default=_LIMITS.connection_window,
        check=between(16 << 10, 64 << 20),
    )
    keepalive_ms: int = setting(
        "Silence after which the peer is asked for a sign of life. A metered link takes more.",
        default=_LIMITS.keepalive_ms,
        check=between(4000, 300_000),
    )


@dataclass(frozen=True)
class AgentSettings:
    """The whole file."""

    state_dir: Path = setting(
        "Directory of the identity that enrolment wrote (key, certificate, pinned root)."
    )
    services: dict[str, ServiceSettings] = setting("Local services by name.", check=_are_services)
    server_urls: tuple[str, ...] = setting(
        "Tunnel servers, wss://host[:port]/tunnel. Empty: those that enrolment gave.",
        default=(),
        check=_are_tunnel_urls,
    )
    connections: int = setting(
        "Tunnels held at once, at least: each known server gets one (up to "
        f"{MAX_CONNECTIONS} servers), and what is left goes around among them; a single server gets all.",
        default=2,
        check=between(1, MAX_CONNECTIONS),
    )
    connect_timeout_s: float = setting(
        "How long a local service may take to accept a connection, seconds.",
        default=5.0,
        check=between(0.1, 60),
    )
    dial_timeout_s: float = setting(
        "How long a tunnel server may take for TCP, TLS and the WebSocket handshake, seconds.",
        default=15.0,
        check=between(1, 120),
    )
    drain_timeout_s: float = setting(
        "How long streams may finish after SIGTERM, seconds.", default=3.0, check=between(0, 60)
    )
    ops_listen: str | None = setting(
        "Operators' listener (/metrics, /livez, /readyz), host:port, on loopback or a private network; "
        "none: there is no listener.",
        default=None,
        check=is_address,
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "Least level that is logged.", default="info"
    )
    limits: LimitSettings = field(
        default_factory=LimitSettings,
        metadata={"doc": "Windows and sizes; change them only with a measurement."},
    )
    messages: MessagesSettings = field(
        default_factory=MessagesSettings,
        metadata={"doc": "Readings, health and commands over MQTT."},
    )
