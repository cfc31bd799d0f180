"""What operators count of the message side."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.metrics import Counter, Family, Gauge, Registry


@dataclass(frozen=True, slots=True)
class MessageMetrics:
    """Kept objects; set where the things happen."""

    outbox_entries: Gauge
    outbox_bytes: Gauge
    outbox_dropped: Gauge
    outbox_refused: Gauge
    accepted: Counter
    connected: Gauge
    over_http: Gauge
    commands: Family[Counter]
    configuration: Gauge


def message_metrics(registry: Registry) -> MessageMetrics:
    """Those of one agent."""
    return MessageMetrics(
        outbox_entries=registry.gauge(
            "towline_agent_outbox_entries", "Messages on disk that are not accepted yet."
        ),
        outbox_bytes=registry.gauge("towline_agent_outbox_bytes", "Disk that the outbox takes."),
        outbox_dropped=registry.gauge(
            "towline_agent_outbox_dropped",
            "Messages let go for want of room, since the outbox was made: a restart does not begin anew.",
        ),
        outbox_refused=registry.gauge(
            "towline_agent_outbox_refused",
            "Messages that the pipeline, or the protocol, would not take, since the outbox was made.",
        ),
        accepted=registry.counter(
            "towline_agent_messages_accepted_total", "Messages that the pipeline said it keeps."
        ),
        connected=registry.gauge("towline_agent_mqtt_connected", "1 while a broker is connected."),
        over_http=registry.gauge(
            "towline_agent_messages_over_http",
            "1 while messages go over HTTPS, as no broker can be reached; no command comes meanwhile.",
        ),
        commands=registry.counters(
            "towline_agent_commands_total", "Commands by outcome: succeeded, failed, refused.", ("outcome",)
        ),
        configuration=registry.gauge(
            "towline_agent_configuration_version", "Of the configuration that it runs with; 0: none."
        ),
    )
