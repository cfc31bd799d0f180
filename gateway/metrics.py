"""The gateway's metrics."""

from __future__ import annotations

from dataclasses import dataclass

from device_protocol.errors import Reason
from gateway.policy.links import LinkRefusal
from runtime.metrics import Counter, Family, Gauge, Histogram, Registry

# From an index look-up to an Argon2 check under load.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# From a few rows to a batch that waits for locks.
_BATCH_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)

# From a device that answers at once to one that slept until its ttl.
_COMMAND_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0, 86_400.0)

# From a page that is closed at once to an app that is left open over night.
_OPEN_SECONDS = (1.0, 10.0, 60.0, 600.0, 3600.0, 36_000.0)


@dataclass(frozen=True, slots=True)
class GatewayMetrics:
    """Kept objects: a look-up by name happens once."""

    requests: Family[Counter]
    request_seconds: Histogram
    websockets: Gauge
    websockets_closed: Family[Counter]
    websocket_seconds: Histogram
    websocket_messages: Family[Counter]
    event_streams: Gauge
    event_streams_refused: Family[Counter]
    request_log_left_out: Counter
    store_unavailable: Counter
    logins: Family[Counter]
    links: Family[Counter]
    breaker_open: Family[Gauge]
    breaker_opened: Family[Counter]
    breaker_refused: Family[Counter]
    feed_readers: Gauge
    feed_head: Gauge
    audit_head_signed: Gauge
    audit_heads_away: Gauge
    audit_heads_failed: Counter
    audit_broken: Gauge
    commands: Family[Counter]
    configurations: Family[Counter]
    command_seconds: Histogram
    downlink_connected: Gauge
    log_lag: Family[Gauge]
    log_age_seconds: Family[Gauge]
    log_away: Gauge
    log_stuck: Gauge
    log_full: Counter
    messages: Family[Counter]
    missing: Counter
    batch_seconds: Histogram
    history_rows: Counter
    dead_letters: Family[Counter]
    dead_letters_left_out: Counter
    parts_ahead_days: Gauge
    database_bytes: Gauge


def gateway_metrics(registry: Registry) -> GatewayMetrics:
    return GatewayMetrics(
        requests=registry.counters(
            "towline_gateway_requests_total", "Requests answered.", ("listener", "status")
        ),
        request_seconds=registry.histogram(
            "towline_gateway_request_seconds", "Time to the answer's head.", buckets=_SECONDS
        ),
        websockets=registry.gauge("towline_gateway_websockets", "WebSockets that are open."),
        websockets_closed=registry.counters(
            "towline_gateway_websockets_closed_total",
            "WebSockets that ended, by the close code (RFC 6455, 7.4); 1006: cut; other: a client's own.",
            ("code",),
        ),
        websocket_seconds=registry.histogram(
            "towline_gateway_websocket_seconds", "How long WebSockets were open.", buckets=_OPEN_SECONDS
        ),
        websocket_messages=registry.counters(
            "towline_gateway_websocket_messages_total", "Messages: sent or received.", ("direction",)
        ),
        event_streams=registry.gauge(
            "towline_gateway_event_streams", "Followers of live events, by server-sent events and WebSocket."
        ),
        event_streams_refused=registry.counters(
            "towline_gateway_event_streams_refused_total",
            "Followers that were refused: person (they have as many as one may), full (the gateway has).",
            ("why",),
        ),
        request_log_left_out=registry.counter(
            "towline_gateway_request_log_left_out_total",
            "Entries of the log of support sessions that were not kept, as the consent's log was full.",
        ),
        store_unavailable=registry.counter(
            "towline_gateway_store_unavailable_total", "Requests refused because a store did not answer."
        ),
        logins=registry.counters(
            "towline_gateway_logins_total",
            "Login attempts: ok, wrong, limited, refused.",
            ("result",),
            known=("ok", "wrong", "limited", "refused"),
        ),
        links=registry.counters(
            "towline_gateway_links_redeemed_total",
            "Links presented by nodes: ok or the refusal.",
            ("result",),
            known=("ok", *LinkRefusal),
        ),
        breaker_open=registry.gauges(
            "towline_gateway_breaker_open",
            "1 while a dependency (postgres, redis …) does not answer and is not asked.",
            ("dependency",),
        ),
        breaker_opened=registry.counters(
            "towline_gateway_breaker_opened_total", "Times that a dependency was given up.", ("dependency",)
        ),
        breaker_refused=registry.counters(
            "towline_gateway_breaker_refused_total",
            "Calls refused because the breaker was open, or opened, or all connections were taken.",
            ("dependency",),
        ),
        feed_readers=registry.gauge("towline_gateway_feed_readers", "Nodes that follow the revocation feed."),
        feed_head=registry.gauge(
            "towline_gateway_feed_head", "Last revocation number that this gateway saw."
        ),
        audit_head_signed=registry.gauge(
            "towline_gateway_audit_head_signed",
            "Last event of the audit log whose head this gateway put into the second store.",
        ),
        audit_heads_away=registry.gauge(
            "towline_gateway_audit_heads_away", "1 while the second store lacks heads of the audit log."
        ),
        audit_heads_failed=registry.counter(
            "towline_gateway_audit_heads_failed_total",
            "Times that the second store did not take heads of the audit log.",
        ),
        audit_broken=registry.gauge(
            "towline_gateway_audit_broken",
            "1 when the audit log lacks what was signed: somebody changed it, or an old copy is back.",
        ),
        configurations=registry.counters(
            "towline_gateway_configurations_told_total",
            "Configurations published to devices: taken by the broker, or unheard (nobody listened).",
            ("outcome",),
        ),
        commands=registry.counters(
            "towline_gateway_commands_total",
            "Commands that ended, by the state: succeeded, failed, timed_out, expired.",
            ("state",),
            known=("succeeded", "failed", "timed_out", "expired"),
        ),
        command_seconds=registry.histogram(
            "towline_gateway_command_seconds", "From a command's making to its end.", buckets=_COMMAND_SECONDS
        ),
        downlink_connected=registry.gauge(
            "towline_gateway_downlink_connected", "1 while this gateway is connected to the devices' broker."
        ),
        log_lag=registry.gauges(
            "towline_gateway_log_lag", "Records in the log that no gateway has stored yet.", ("topic",)
        ),
        log_age_seconds=registry.gauges(
            "towline_gateway_log_age_seconds",
            "How far this gateway's reading of its parts is behind, in time; 0: not at all.",
            ("topic",),
        ),
        log_away=registry.gauge("towline_gateway_log_away", "1 while the log cannot be read."),
        log_full=registry.counter(
            "towline_gateway_log_full_total",
            "Appends that were turned away, as the embedded log holds all it may of what nobody has stored.",
        ),
        log_stuck=registry.gauge(
            "towline_gateway_log_stuck",
            "1 while Postgres answers and does not take a batch that no message is to blame for, or takes too"
            " long for a single one.",
        ),
        messages=registry.counters(
            "towline_gateway_messages_total",
            "Records of the log: stored, control (hello, ack), seen (repeats), gap (the device sends again),"
            " dead (letters), replayed (dead letters that were stored in the end).",
            ("outcome",),
            known=("stored", "control", "seen", "gap", "dead", "replayed"),
        ),
        missing=registry.counter(
            "towline_gateway_missing_total",
            "Times that messages which devices know to be accepted were not in the log: it lost them, or the"
            " database went back.",
        ),
        batch_seconds=registry.histogram(
            "towline_gateway_batch_seconds", "One batch of records, to its commit.", buckets=_BATCH_SECONDS
        ),
        history_rows=registry.counter("towline_gateway_history_rows_total", "Messages put into the history."),
        dead_letters=registry.counters(
            "towline_gateway_dead_letters_total",
            "Messages that were not taken, by the reason.",
            ("reason",),
            known=Reason,
        ),
        dead_letters_left_out=registry.counter(
            "towline_gateway_dead_letters_left_out_total",
            "Dead letters of which only the number is kept: their device or site has as many as may be.",
        ),
        parts_ahead_days=registry.gauge(
            "towline_gateway_parts_ahead_days", "Days to come for which the history has a partition."
        ),
        database_bytes=registry.gauge(
            "towline_gateway_database_bytes", "Of the whole database, on its disk; 0: not looked at yet."
        ),
    )
