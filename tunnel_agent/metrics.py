"""What operators count on a device. Nothing here is touched for each byte or message: devices are small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runtime.metrics import Counter, Family, Registry


@dataclass(frozen=True, slots=True)
class AgentMetrics:
    """Kept objects: a look-up by name happens once."""

    tunnels_opened: Counter
    tunnels_ended: Family[Counter]
    grants: Family[Counter]
    streams_opened: Counter
    streams_refused: Family[Counter]


def agent_metrics(registry: Registry) -> AgentMetrics:
    """The counters of one agent."""
    return AgentMetrics(
        tunnels_opened=registry.counter("towline_agent_tunnels_opened_total", "Handshakes that succeeded."),
        tunnels_ended=registry.counters(
            "towline_agent_tunnels_ended_total",
            "Tunnels, or attempts at one, after which the agent dialled again: lost, goaway, refused, "
            "replaced, revoked.",
            ("ending",),
        ),
        grants=registry.counters(
            "towline_agent_grants_total", "Grants by what the device's own check said.", ("result",)
        ),
        streams_opened=registry.counter(
            "towline_agent_streams_opened_total", "Streams that a grant allowed, to a configured service."
        ),
        streams_refused=registry.counters(
            "towline_agent_streams_refused_total", "Streams refused, by the protocol's code.", ("code",)
        ),
    )


def watch_agent(
    registry: Registry,
    *,
    tunnels: Callable[[], int],
    streams: Callable[[], int],
    grants: Callable[[], int],
    certificate_until: Callable[[], float],
) -> None:
    """What is known anyway and only read at a scrape."""
    registry.gauge("towline_agent_tunnels", "Tunnels that are open.", read=tunnels)
    registry.gauge("towline_agent_streams", "Streams that are open.", read=streams)
    registry.gauge("towline_agent_grants", "Grants in force, or waiting for the time.", read=grants)
    registry.gauge(
        "towline_agent_certificate_expires_seconds",
        "End of the device's certificate, Unix seconds.",
        read=certificate_until,
    )
