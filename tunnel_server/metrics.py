"""What this node counts; names are documented by their help texts (runtime.metrics)."""

from __future__ import annotations

from collections.abc import Callable

from runtime.metrics import Counter, Registry
from tunnel_protocol.codes import CloseCode

# Seconds. A request through a near tunnel takes about a millisecond; long polls and streams go into the last.
DURATION_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Metrics:
    """Counters as attributes, so that the hot path looks nothing up."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        requests = registry.counters(
            "towline_requests_total", "Requests answered, by class of status.", ["class"]
        )
        self._by_class: list[Counter] = [
            requests.labels(name) for name in ("cut", "1xx", "2xx", "3xx", "4xx", "5xx")
        ]
        self.duration = registry.histogram(
            "towline_request_duration_seconds",
            "From the request's head to the end of its answer.",
            buckets=DURATION_BUCKETS,
        )
        self.own_answers = registry.counters(
            "towline_own_answers_total",
            "Answers this node gave itself instead of a device, by code.",
            ["code"],
        )
        self.bad_requests = registry.counter(
            "towline_bad_requests_total", "Requests that broke HTTP or a limit."
        )
        self.bad_answers = registry.counter(
            "towline_bad_answers_total", "Answers of devices that broke HTTP."
        )
        self.cut_answers = registry.counter(
            "towline_cut_answers_total", "Answers that ended early; the visitor's connection was cut."
        )
        self.foreign_origin = registry.counter(
            "towline_foreign_origin_total", "Requests refused because another site's page made them."
        )
        self.retries = registry.counter("towline_retries_total", "Requests sent again after a stream died.")
        self.visitors_refused = registry.counter(
            "towline_visitors_refused_total", "Visitor connections over a limit, or while draining."
        )
        self.proxies_refused = registry.counters(
            "towline_proxy_connections_refused_total",
            "Connections closed for want of a PROXY header: untrusted, bad_header, no_header; or, with and"
            " without proxies, too_many that are not through header, turn and TLS yet.",
            ["listener", "why"],
        )
        self.upgrades = registry.counter("towline_websockets_total", "WebSockets opened through tunnels.")
        self.links = registry.counters("towline_links_total", "Links presented, by outcome.", ["outcome"])
        self.sessions_ended = registry.counters(
            "towline_sessions_ended_total", "Sessions that ended on this node, by reason.", ["reason"]
        )
        self.handshakes = registry.counters(
            "towline_tunnel_handshakes_total",
            "Device handshakes, by outcome.",
            ["outcome"],
            known=("ready", *(code.name.lower() for code in CloseCode)),
        )
        self.devices_refused = registry.counters(
            "towline_device_connections_refused_total",
            "Device connections closed before their handshake: too_many_wait or waited_too_long (for the turn"
            " of their address), address_full (behind a proxy that ends TLS), node_full, draining.",
            ["why"],
        )
        self.tunnels_closed = registry.counters(
            "towline_tunnels_closed_total", "Tunnels that ended, by close code.", ["code"]
        )
        self.queued = registry.counter(
            "towline_queued_requests_total", "Requests that waited for a stream of their device."
        )
        self.log_entries = registry.counters(
            "towline_request_log_entries_total",
            "Entries of the log of support sessions: sent, dropped for want of room, refused by the gateway.",
            ["outcome"],
        )

    def request_ended(self, status: int, seconds: float) -> None:
        """One exchange is over; status 0: the visitor got no answer."""
        self._by_class[status // 100].value += 1
        self.duration.observe(seconds)

    def watch(self, name: str, doc: str, read: Callable[[], float]) -> None:
        """A gauge that is read at each scrape."""
        self.registry.gauge(name, doc, read=read)
