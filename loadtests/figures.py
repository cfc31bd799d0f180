"""What a run consists of: figures with every round's value, and what each kind of figure means.

A run's JSON: ``{"format", "commit", "taken", "machine", "parameters", "figures"}``; ``figures`` is section →
path → metric → ``{"median", "low", "high", "samples", "parts"?}``. Pure: no clock, no process, no file.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FORMAT = 2  # of the JSON; 1 had no samples, and other names
DIGITS = 5  # significant ones that are kept: more than any clock here is good for

TOWLINE = "towline"
DIRECT = "nginx direct"
DIRECT_TLS = "nginx direct, TLS"
PROXY = "nginx as proxy"
HAPROXY = "haproxy"
SSH = "ssh -R"
SNITUN = "snitun"


@dataclass(frozen=True, slots=True)
class Metric:
    """What is counted. `floor` is the relative change below which two runs of one build may differ anyway."""

    title: str
    unit: str
    less_is_better: bool
    digits: int
    floor: float = 0.05


METRICS: dict[str, Metric] = {
    "cpu_us": Metric("CPU-µs a request", "µs", True, 1),
    "requests_per_s": Metric("requests/s", "/s", False, 0, 0.15),
    "mb_s": Metric("MB/s", "MB/s", False, 0, 0.10),
    "cpu_ms_mb": Metric("CPU-ms a MB", "ms", True, 2),
    "p50_us": Metric("p50 µs", "µs", True, 0, 0.10),
    "p99_us": Metric("p99 µs", "µs", True, 0, 0.25),
    "added_p50_us": Metric("added p50 µs", "µs", True, 0, 0.10),
    "added_p99_us": Metric("added p99 µs", "µs", True, 0, 0.25),
    "mib": Metric("MiB", "MiB", True, 1, 0.30),
    "rss_mib": Metric("RSS MiB", "MiB", True, 0, 0.10),
    "kib_per_tunnel": Metric("KiB a tunnel", "KiB", True, 1),
    "cpu_ms_handshake": Metric("CPU-ms a handshake", "ms", True, 2),
    "handshakes_per_s": Metric("handshakes/s", "/s", False, 0, 0.15),
    "per_core_s": Metric("requests/s a core", "/s", False, 0),
    "logins_per_s": Metric("logins/s", "/s", False, 1, 0.15),
    "cpu_ms_login": Metric("CPU-ms a login", "ms", True, 1),
    "last_byte_ms": Metric("ms to the last byte", "ms", True, 0, 0.30),
    "message_us": Metric("CPU-µs a message", "µs", True, 1),
    "messages_per_s": Metric("messages/s", "/s", False, 0, 0.10),
    "stored_p50_ms": Metric("stored p50 ms", "ms", True, 0, 0.15),
    "stored_p99_ms": Metric("stored p99 ms", "ms", True, 0, 0.30),
    "accepted_p50_ms": Metric("accepted p50 ms", "ms", True, 0, 0.15),
    "accepted_p99_ms": Metric("accepted p99 ms", "ms", True, 0, 0.30),
    "errors": Metric("errors", "", True, 0, 0.0),
}


@dataclass(frozen=True, slots=True)
class Section:
    """One table: its title, its metrics in order, and what a reader must know of it."""

    title: str
    metrics: tuple[str, ...]
    note: str = ""


_COST = ("cpu_us", "requests_per_s", "errors")
_BULK = ("mb_s", "cpu_ms_mb")
SECTIONS: dict[str, Section] = {
    "c32": Section("1 KB, 32 connections", _COST),
    "c1": Section("1 KB, 1 connection", _COST),
    "tunnels32": Section(
        "1 KB over 32 tunnels, 1 request in flight each",
        _COST,
        "32 devices, one tunnel and one session each. *One process* holds all 32 agents, whose work is then "
        "batched as the server's is; *32 processes* are 32 agents that wake for each request, as devices do.",
    ),
    "64k": Section("64 KB, 8 connections", _COST),
    "bulk_down": Section("Bulk down, one stream", _BULK),
    "bulk_up": Section("Bulk up, one stream", _BULK),
    "under_bulk": Section(
        "Small request while a bulk download fills the same tunnel",
        ("p50_us", "p99_us"),
        "One 1 KB request each 2 ms beside an endless download in the same tunnel "
        "(ssh, snitun: the same connection).",
    ),
    "latency": Section(
        "Latency at low load",
        ("p50_us", "p99_us", "added_p50_us", "added_p99_us"),
        "Added: over the direct way to the same upstream, plain or TLS, in the same minute.",
    ),
    "stalled": Section(
        "Memory of 8 readers that stall in a 100 MB download",
        ("mib",),
        "RSS of all its processes beyond what they had before; the larger of two rounds, the first on fresh "
        "processes.",
    ),
    "idle": Section(
        "Idle tunnels",
        ("kib_per_tunnel", "rss_mib"),
        "The server's RSS beyond that with the first 400 tunnels; for sshd, a process a connection, it is "
        "PSS. Towline's and ssh's are encrypted; snitun's is AES without a TLS session.",
    ),
    "handshakes": Section(
        "Handshakes",
        ("cpu_ms_handshake", "handshakes_per_s"),
        "TCP, TLS, WebSocket, challenge, signature and hello, as the tunnels above were dialled. CPU is the "
        "server's and the gateway's; the rate is what the cores did with the dialling side beside them.",
    ),
    "connected": Section(
        "1 KB, 32 connections, while other tunnels are connected",
        ("cpu_us", "requests_per_s"),
    ),
    "gateway_reads": Section(
        "The gateway: authorised reads, 8 connections",
        ("cpu_us", "per_core_s", "requests_per_s", "errors"),
        "CPU is the gateway's and PostgreSQL's; a core is shared by the two. Every request looks "
        "up the login or the API token behind it, and the role at the device's site.",
    ),
    "gateway_logins": Section(
        "The gateway: logins",
        ("logins_per_s", "cpu_ms_login"),
        "Argon2id with 64 MiB, three passes, two checks at once; six addresses log in beside each other.",
    ),
    "gateway_sessions": Section("The gateway: sessions, one after the other", ("p50_us", "p99_us")),
    "gateway_cut": Section(
        "The gateway: revocation to the last byte",
        ("last_byte_ms",),
        "From the call that ends a session to the end of a download in it; the spread's end is the worst.",
    ),
    "messages": Section(
        "Messages: from devices to rows",
        ("message_us", "messages_per_s", "errors"),
        "As fast as it goes: MQTT QoS 1 by TLS and certificates, 200 devices with 64 messages under way "
        "each, one bridge, Kafka with acks=all, a consumer apart, PostgreSQL that syncs; from the first "
        "message until the last one's row. Embedded: `towline up`, 20 devices. CPU of all parts, brokers "
        "included; that of the devices, on the same cores, is not in it. An error is a message that was "
        "lost or stored twice. At most three rounds of 10 s, embedded of 5 s, one after the other.",
    ),
    "messages_way": Section(
        "Messages: how long the way is",
        (
            *("stored_p50_ms", "stored_p99_ms", "accepted_p50_ms", "accepted_p99_ms"),
            *("messages_per_s", "errors"),
        ),
        "So many messages a second, each sent by itself as it is made. Stored: until the commit of its "
        "row, as PostgreSQL dates it (before the disk has it). Accepted: until the device may forget it. "
        "At most three rounds of 10 s with 1,000 a second and of 20 s with 12,000.",
    ),
    "messages_memory": Section(
        "Messages: memory while they come",
        ("rss_mib",),
        "RSS each second of all the runs above; the samples stand in `performance.json` in the order of "
        "time. What PostgreSQL's processes share counts once.",
    ),
    "commands": Section(
        "Commands: from the request to what the device answered",
        ("p50_us", "p99_us", "errors"),
        "`ping` with `wait`, one after the other: API, broker, a real agent, broker, bridge, log, "
        "consumer, API. At most three rounds of 100.",
    ),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one path: a sample a round, and the medians of its parts (server, agent …)."""

    samples: tuple[float, ...]
    parts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError("a figure needs a sample")

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        return min(self.samples)

    @property
    def high(self) -> float:
        return max(self.samples)

    def to_json(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "median": rounded(self.median),
            "low": rounded(self.low),
            "high": rounded(self.high),
            "samples": [rounded(value) for value in self.samples],
        }
        if self.parts:
            made["parts"] = {name: rounded(value) for name, value in self.parts.items()}
        return made

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Figure:
        return cls(tuple(float(v) for v in value["samples"]), dict(value.get("parts", {})))


Paths = dict[str, dict[str, Figure]]  # path → metric → figure
Figures = dict[str, Paths]  # section → paths


def figures_of(run: Mapping[str, Any]) -> Figures:
    """The figures of a run's JSON; ValueError for another format."""
    if run.get("format") != FORMAT:
        raise ValueError(f"the run is of format {run.get('format', 1)}, not {FORMAT}")
    return {
        section: {
            path: {metric: Figure.from_json(value) for metric, value in metrics.items()}
            for path, metrics in paths.items()
        }
        for section, paths in run["figures"].items()
    }


def figures_to_json(figures: Figures) -> dict[str, Any]:
    return {
        section: {
            path: {metric: figure.to_json() for metric, figure in metrics.items()}
            for path, metrics in paths.items()
        }
        for section, paths in figures.items()
    }


def each(figures: Figures) -> Iterator[tuple[str, str, str, Figure]]:
    """(section, path, metric, figure), sections and metrics in the catalogue's order."""
    for section, known in SECTIONS.items():
        for path, metrics in figures.get(section, {}).items():
            for metric in known.metrics:
                if metric in metrics:
                    yield section, path, metric, metrics[metric]


def find(figures: Figures, section: str, path: str, metric: str) -> Figure | None:
    return figures.get(section, {}).get(path, {}).get(metric)


def rounded(value: float) -> float:
    """To DIGITS significant digits."""
    return float(f"{value:.{DIGITS}g}")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0–1) of the values lie; nearest rank, the largest for 1."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def medians(of: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each key over rounds that all have the same keys."""
    return {key: statistics.median(one[key] for one in of) for key in of[0]}
