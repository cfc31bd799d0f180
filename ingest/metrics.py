"""What ingest counts; names are documented by their help texts (runtime.metrics)."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from device_protocol.errors import Reason
from ingest.refusals import What
from runtime.metrics import Registry

# Seconds. The log in a database near by takes some milliseconds, a failover of Kafka's many seconds.
APPEND_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters as attributes, so that the hot path looks nothing up."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.messages = registry.counters(
            "towline_ingest_messages_total",
            "Messages that came for this bridge, by kind (none: on no topic) and way (mqtt, http).",
            ["kind", "via"],
        )
        self.seen = registry.counter(
            "towline_ingest_seen_total", "Messages that were taken before; their devices are told so again."
        )
        self.gaps = registry.counter(
            "towline_ingest_gaps_total",
            "Messages not taken because one before them is missing; their devices send again. Steady growth:"
            " the broker loses or reorders, or two bridges take the same devices.",
        )
        self.dead_letters = registry.counters(
            "towline_ingest_dead_letters_total",
            "Messages that nobody can read, by reason.",
            ["reason"],
            known=Reason,
        )
        self.append_seconds = registry.histogram(
            "towline_ingest_append_seconds",
            "From the first try of an append to the log's answer.",
            buckets=APPEND_BUCKETS,
        )
        self.append_failed = registry.counter(
            "towline_ingest_append_failed_total",
            "Appends that the log did not confirm; they are tried again.",
        )
        self.given_up = registry.counter(
            "towline_ingest_given_up_total",
            "Messages given up because the log failed for too long; their devices send them again.",
        )
        left = registry.counters(
            "towline_ingest_left_total",
            "Messages not taken, which their devices send again: rate (the device says more than"
            " device_messages_s or device_bytes_s), part (its part of the log is sick).",
            ["why"],
        )
        self.left_rate = left.labels("rate")
        self.left_sick = left.labels("part")
        self.accepted = registry.counter(
            "towline_ingest_accepted_total", "Times a device was told what is kept for good."
        )
        self.refused = registry.counters(
            "towline_ingest_broker_refused_total",
            "Times a device was not let publish, subscribe or leave a will where it may not; by what.",
            ["what"],
            known=get_args(What),
        )
        self.kicks = registry.counters(
            "towline_ingest_kicks_total",
            "Revoked devices that were shut out of the broker: done (each thrice), or failed (tried again).",
            ["outcome"],
            known=("done", "failed"),
        )
        self.connections_lost = registry.counter(
            "towline_ingest_broker_connections_lost_total",
            "Connections to the broker that ended or never stood.",
        )

    def watch(self, name: str, doc: str, read: Callable[[], float]) -> None:
        """A gauge that is read at each scrape."""
        self.registry.gauge(name, doc, read=read)
