"""How a process reaches the log where it is Kafka: the same words for who writes and who reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.addresses import is_address, is_loopback, parse_address
from runtime.settings import not_empty, readable_file, setting


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """What a service's own table of the log has beside its `kind`."""

    servers: tuple[str, ...] = setting("Kafka's brokers, host:port each.", default=())
    prefix: str = setting(
        "Of Kafka's topics: PREFIX.up, PREFIX.control, PREFIX.dead.", default="towline", check=not_empty
    )
    ca: Path | None = setting(
        "PEM of the CA that signed Kafka's certificates; left out: plain.", default=None, check=readable_file
    )
    certificate: Path | None = setting(
        "PEM of our client certificate for Kafka.", default=None, check=readable_file
    )
    key: Path | None = setting("PEM key of that certificate.", default=None, check=readable_file)

    @property
    def is_plain_abroad(self) -> bool:
        """Whether what devices say goes to another machine for anybody on the way to read and change."""
        return self.ca is None and not all(is_loopback(parse_address(server).host) for server in self.servers)

    def check(self, kind: str) -> None:
        """ValueError for what does not go together."""
        if kind == "kafka" and not self.servers:
            raise ValueError("kafka needs its servers")
        for server in self.servers:
            problem = is_address(server)
            if problem is not None:
                raise ValueError(f"servers: {server!r} {problem}")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.certificate is not None and self.ca is None:
            raise ValueError("a client certificate needs the ca: without it nothing is encrypted")
