"""All settings of a tunnel server node; the reason for each limit stands beside it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.addresses import is_address, parse_address
from runtime.client_address import are_networks
from runtime.internal_http import is_internal_url
from runtime.settings import between, not_empty, readable_file, setting

LOOPBACK_DOMAIN = "localhost"


def is_domain(value: str) -> str | None:
    """Check: a lower-case DNS name without a trailing dot."""
    labels = value.split(".")
    right = all(part and part.replace("-", "").isalnum() and part == part.lower() for part in labels)
    return None if right and value.isascii() else "must be a lower-case domain name"


@dataclass(frozen=True, slots=True)
class VisitorLimits:
    """Bounds of the public HTTP listener; times in seconds, sizes in bytes."""

    connections: int = setting(
        "Visitor connections at once; each may hold a window of memory, so there must be an end.",
        default=10_000,
        check=between(1, 1_000_000),
    )
    connections_per_address: int = setting(
        "Visitor connections from one address that is no trusted proxy; an office behind NAT stays below.",
        default=512,
        check=between(1, 1_000_000),
    )
    head_s: float = setting(
        "From the first byte of a request to the end of its head; a browser sends it in one go.",
        default=10.0,
        check=between(0.05, 300),
    )
    head_bytes: int = setting(
        "Request line and headers; browsers and servers agree on 8-64 KiB.",
        default=65_536,
        check=between(1_024, 1_048_576),
    )
    headers: int = setting(
        "Header lines of a request; a browser sends about 20.", default=200, check=between(10, 2_000)
    )
    target_bytes: int = setting(
        "Request target; RFC 9110 section 4.1 asks for at least 8,000.",
        default=16_384,
        check=between(256, 65_536),
    )
    pipelined: int = setting(
        "Requests that may wait behind one on a connection; browsers send none.",
        default=64,
        check=between(1, 1_024),
    )
    idle_s: float = setting(
        "A connection without a request; longer than the usual 60 s of a proxy in front.",
        default=75.0,
        check=between(0.05, 3_600),
    )
    body_idle_s: float = setting(
        "An upload that sends nothing; a phone in a tunnel comes back sooner.",
        default=60.0,
        check=between(0.05, 3_600),
    )
    stall_s: float = setting(
        "A visitor that takes no byte of a waiting answer; a paused video player may wait minutes.",
        default=600.0,
        check=between(0.05, 86_400),
    )
    linger_s: float = setting(
        "Reading on after an early answer, so that it is read; a revoked upload still ends within 2 s.",
        default=1.0,
        check=between(0.0, 30),
    )
    write_high_bytes: int = setting(
        "Answer bytes kept for one visitor before the device's credit is held back.",
        default=65_536,
        check=between(4_096, 1_048_576),
    )
    link_post_bytes: int = setting(
        "Body of a link's POST; a link token is at most 4 KiB.", default=8_192, check=between(1_024, 65_536)
    )
    doors_per_session: int = setting(
        "Connections of one session through the TCP door at once. A program's pool, or a dozen of ssh, stays"
        " below; one session must not take all of the streams (256) that a device's other visitors need too.",
        default=32,
        check=between(1, 1_024),
    )
    resolves_per_s: float = setting(
        "Unknown cookies asked about at the gateway, per address; a person's browser asks once.",
        default=5.0,
        check=between(0.1, 10_000),
    )
    resolves_per_s_total: float = setting(
        "The same, all addresses together: after a restart every session asks once.",
        default=200.0,
        check=between(1, 100_000),
    )


@dataclass(frozen=True, slots=True)
class VisitorSettings:
    """The public HTTP/1.1 listener."""

    listen: str = setting("Address of the visitors' listener, host:port.", check=is_address)
    domain: str = setting("Sessions live on random labels below this domain.", check=is_domain)
    certificate: Path | None = setting(
        "PEM chain for *.domain; none: plain HTTP.", default=None, check=readable_file
    )
    key: Path | None = setting("PEM key of the certificate.", default=None, check=readable_file)
    behind_tls: bool = setting("A proxy in front ends TLS: the visitor's scheme is https.", default=False)
    trusted_proxies: tuple[str, ...] = setting(
        "Networks of the proxies in front, whose X-Forwarded-For (or PROXY header) is believed.",
        default=(),
        check=are_networks,
    )
    proxy_protocol: bool = setting(
        "Every connection comes from one of trusted_proxies and begins with its PROXY header (version 1 or"
        " 2), before TLS; any other is closed.",
        default=False,
    )
    limits: VisitorLimits = setting("Bounds of this listener.", default_factory=VisitorLimits)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.proxy_protocol and not self.trusted_proxies:
            raise ValueError("proxy_protocol needs trusted_proxies: anybody could send such a header")
        if self.scheme == "http" and not (self.domain == LOOPBACK_DOMAIN and _is_loopback(self.listen)):
            raise ValueError(
                "without TLS the domain must be localhost and listen a loopback address; "
                "give certificate and key, or behind_tls"
            )

    @property
    def scheme(self) -> Literal["http", "https"]:
        """What stands in the visitor's address bar."""
        return "https" if self.certificate is not None or self.behind_tls else "http"


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    """Bounds of one exchange with a device; times in seconds, sizes in bytes."""

    open_s: float = setting(
        "From OPEN to OPENED; the agent's own connect takes up to 10.", default=15.0, check=between(0.05, 300)
    )
    response_head_s: float = setting(
        "From the request to the head of the answer; long polls of 60 s are common.",
        default=120.0,
        check=between(0.05, 3_600),
    )
    response_idle_s: float = setting(
        "Silence inside an answer with a Content-Length; streams without one may be quiet for ever.",
        default=120.0,
        check=between(0.05, 3_600),
    )
    response_head_bytes: int = setting(
        "Status line and headers of an answer.", default=65_536, check=between(1_024, 1_048_576)
    )
    response_headers: int = setting("Header lines of an answer.", default=256, check=between(10, 2_000))
    informational: int = setting(
        "1xx answers before the real one; 100 and 103 come once each.", default=8, check=between(0, 100)
    )
    framing_bytes: int = setting(
        "Chunk extensions and trailers beyond 18 bytes for each byte of the body: they carry nothing.",
        default=16_384,
        check=between(256, 1_048_576),
    )
    idle_stream_s: float = setting(
        "An idle pooled stream; below the 5 s after which common servers close, plus one sweep.",
        default=4.0,
        check=between(0.05, 600),
    )
    idle_streams: int = setting(
        "Idle pooled streams of one session: as many as a proxy in front keeps requests in flight.",
        default=32,
        check=between(0, 256),
    )
    queue_s: float = setting(
        "Waiting for a stream at a device's max_streams.", default=10.0, check=between(0.05, 60)
    )
    queue_length: int = setting(
        "Requests that may wait for one device; each holds a visitor's connection.",
        default=128,
        check=between(1, 10_000),
    )


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """The devices' WSS listener."""

    listen: str = setting("Address of the devices' listener, host:port.", check=is_address)
    server_names: tuple[str, ...] = setting(
        "Names that devices dial; the first stands in for any other.", check=not_empty
    )
    certificate: Path | None = setting(
        "PEM chain of the listener; none: plain, loopback only.", default=None, check=readable_file
    )
    key: Path | None = setting("PEM key of the certificate.", default=None, check=readable_file)
    trusted_proxies: tuple[str, ...] = setting(
        "Networks of the proxies in front, whose X-Forwarded-For (or PROXY header) is believed.",
        default=(),
        check=are_networks,
    )
    proxy_protocol: bool = setting(
        "Every connection comes from one of trusted_proxies and begins with its PROXY header (version 1 or"
        " 2), before TLS; any other is closed.",
        default=False,
    )
    connections: int = setting(
        "Device connections at once, with a handshake in progress or done.",
        default=20_000,
        check=between(1, 1_000_000),
    )
    handshakes: int = setting(
        "Handshakes at once; more than this means a flood, and devices come back by themselves.",
        default=1_000,
        check=between(1, 100_000),
    )
    handshakes_per_address: int = setting(
        "The same of one address (of IPv6: one /64); a factory's devices behind one NAT wait for each other.",
        default=250,
        check=between(1, 100_000),
    )
    waiting_per_address: int = setting(
        "Connections of one address that wait for that, before TLS: a NAT's devices after a restart. One"
        " turned away costs more than one that waits, and comes back later each time.",
        default=6_000,
        check=between(0, 100_000),
    )
    connects_per_device: int = setting(
        "Tunnels of one device a minute; an agent whose tunnels end waits longer by itself.",
        default=60,
        check=between(2, 1_000_000),
    )
    handshake_s: float = setting(
        "TLS, WebSocket and AUTH together; the protocol gives AUTH 10 s.",
        default=10.0,
        check=between(0.5, 60),
    )
    keepalive_ms: int = setting(
        "Silence before a PING; with 4,000 a dead device is found within 10 s.",
        default=4_000,
        check=between(4_000, 300_000),
    )
    stream_window: int = setting(
        "First credit of a stream, bytes.", default=65_536, check=between(4_096, 1 << 22)
    )
    stream_window_max: int = setting(
        "A stream's credit grows up to this while it drains fast.",
        default=4 << 20,
        check=between(4_096, 1 << 26),
    )
    window_budget: int = setting(
        "Grown windows of one tunnel together: its memory at worst.",
        default=6 << 20,
        check=between(65_536, 1 << 30),
    )
    connection_window: int = setting(
        "Bytes in flight of one tunnel: small requests wait behind them. From near devices at most 512 KiB.",
        default=1 << 20,
        check=between(65_536, 1 << 26),
    )
    reconnect_spread_ms: int = setting(
        "retry_after of the GOAWAY at shutdown; devices spread over it.",
        default=2_000,
        check=between(0, 600_000),
    )
    key_list_spread_s: float = setting(
        "Tunnels are renewed over this long when the gateway has a new list of grant keys.",
        default=300.0,
        check=between(1, 86_400),
    )

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.proxy_protocol and not self.trusted_proxies:
            raise ValueError("proxy_protocol needs trusted_proxies: anybody could send such a header")
        if self.certificate is None and not _is_loopback(self.listen):
            raise ValueError("without certificate and key listen must be a loopback address")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The gateway's internal listener and the people's address of the gateway."""

    internal_url: str = setting("https:// address of the internal listener.", check=is_internal_url)
    public_url: str = setting("Where people log in; link pages go back there.", check=not_empty)
    ca: Path = setting("PEM of the internal CA that signed the gateway's certificate.", check=readable_file)
    certificate: Path = setting(
        "PEM of this node's client certificate; its CN is the node's name.", check=readable_file
    )
    key: Path = setting("PEM key of the client certificate.", check=readable_file)
    connections: int = setting(
        "Kept connections to the gateway; 5,000 returning devices are checked through them.",
        default=8,
        check=between(1, 256),
    )
    call_s: float = setting(
        "One call; a healthy gateway answers in milliseconds.", default=5.0, check=between(0.1, 60)
    )
    calls_waiting: int = setting(
        "Calls queued for a connection; more means that the gateway is down.",
        default=10_000,
        check=between(1, 1_000_000),
    )
    answer_bytes: int = setting(
        "Largest answer; a key list is a few KiB.", default=262_144, check=between(4_096, 1 << 24)
    )
    feed_silence_s: float = setting(
        "Revocation feed without a heartbeat: no new sessions (DESIGN 1).", default=5.0, check=between(1, 60)
    )
    revocation_grace_s: float = setting(
        "Feed silent this long: sessions end, since nobody could revoke them.",
        default=120.0,
        check=between(2, 86_400),
    )
    presence_s: float = setting(
        "Heartbeat of the presence reports; the gateway gives a node 12 s.",
        default=4.0,
        check=between(0.2, 10),
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """One tunnel server node."""

    node: str = setting("This node's name, as in its client certificate.", check=not_empty)
    ops_listen: str = setting("Operators' listener (/metrics, /livez, /readyz), host:port.", check=is_address)
    visitors: VisitorSettings = setting("The public HTTP listener.")
    tunnels: TunnelSettings = setting("The devices' listener.")
    gateway: GatewaySettings = setting("The control plane.")
    devices: DeviceLimits = setting("Bounds of an exchange with a device.", default_factory=DeviceLimits)
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "Least level that is logged.", default="info"
    )
    arrivals_s: float = setting(
        "A node that starts beside others takes visitors once their devices came to it too, or after this"
        " long; agents that missed it for minutes try again within 60.",
        default=60.0,
        check=between(0, 600),
    )
    drain_s: float = setting(
        "Exchanges in flight get this long after SIGTERM.", default=30.0, check=between(0, 600)
    )


def _is_loopback(listen: str) -> bool:
    host = parse_address(listen).host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
