"""All settings of ingest; the reason for each limit stands beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from device_protocol.envelope import READ_MAX
from runtime.addresses import is_address, is_loopback, parse_address
from runtime.broker_settings import BrokerSettings as CommonBrokerSettings
from runtime.event_log.settings import KafkaSettings
from runtime.internal_http import is_internal_url
from runtime.settings import between, readable_file, setting


@dataclass(frozen=True, slots=True)
class BrokerSettings(CommonBrokerSettings):
    """The MQTT broker that devices publish to, as ingest reaches it."""

    keepalive_s: int = setting(
        "Silence after which each side takes the other for dead; brokers add half of it.",
        default=20,
        check=between(5, 300),
    )
    connect_s: float = setting(
        "From the dial to the granted subscriptions; a healthy broker takes milliseconds.",
        default=10.0,
        check=between(0.5, 60),
    )


@dataclass(frozen=True, slots=True)
class LogSettings(KafkaSettings):
    """Where messages are kept until the gateway has stored them."""

    kind: Literal["gateway", "kafka"] = setting(
        "kafka, or the log in the gateway's database (its internal listener: table gateway).",
        default="gateway",
    )

    def __post_init__(self) -> None:
        self.check(self.kind)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The gateway's internal listener."""

    internal_url: str = setting("https:// address of the internal listener.", check=is_internal_url)
    ca: Path = setting("PEM of the internal CA that signed the gateway's certificate.", check=readable_file)
    certificate: Path = setting(
        "PEM of our client certificate, issued for the role ingest.", check=readable_file
    )
    key: Path = setting("PEM key of the client certificate.", check=readable_file)
    connections: int = setting(
        "Kept connections; the parts of the log are written side by side.", default=8, check=between(1, 64)
    )
    call_s: float = setting(
        "One call; a healthy gateway answers in milliseconds.", default=5.0, check=between(0.1, 60)
    )


@dataclass(frozen=True, slots=True)
class EmbeddedBrokerSettings:
    """A broker inside this process, for a single machine: devices log in with passwords from the gateway."""

    listen: str = setting("Address of its MQTT listener, host:port; plain: loopback alone.", check=is_address)
    gateway_password_file: Path = setting(
        "File that holds the password of the name gateway, which sends commands.", check=readable_file
    )

    def __post_init__(self) -> None:
        if not is_loopback(parse_address(self.listen).host):
            raise ValueError("listen must be a loopback address: the embedded broker has no TLS")


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """Shuts revoked devices out of the Mosquitto that runs on this machine, one keeper a broker: writes its
    revocation list, and takes their connections over through `broker.url`, where any client id may be taken.
    """

    crl_file: Path = setting("The broker's `crlfile`. We write beside it and rename.")
    pid_file: Path | None = setting(
        "The broker's `pid_file`; we must be allowed to signal it. Left out: the broker follows its list by"
        " itself (infra/mosquitto/serve.sh).",
        default=None,
    )
    log_file: Path | None = setting(
        "The broker's log, written at `log_type debug`: what it refuses to devices then goes into the"
        " gateway's audit log. It writes several lines for each message: left out where that is too much.",
        default=None,
    )


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where gateways hand over what devices say over HTTPS, for who can reach no broker. Never public."""

    listen: str = setting("Address of the listener (mTLS), host:port.", check=is_address)
    ca: Path = setting("PEM of the internal CA: a gateway's certificate comes from it.", check=readable_file)
    certificate: Path = setting(
        "PEM of our server certificate by that CA, for the name in the gateway's `ingest_urls`.",
        check=readable_file,
    )
    key: Path = setting("PEM key of that certificate.", check=readable_file)


@dataclass(frozen=True, slots=True)
class Settings:
    """One bridge from the broker to the log."""

    ops_listen: str = setting("Operators' listener (/metrics, /livez, /readyz), host:port.", check=is_address)
    broker: BrokerSettings = setting("The broker that is listened to.")
    log: LogSettings = setting("Where messages go.", default_factory=LogSettings)
    gateway: GatewaySettings | None = setting(
        "The gateway's internal listener; needed for its log and for the embedded broker.", default=None
    )
    embedded_broker: EmbeddedBrokerSettings | None = setting(
        "Run a broker in this process; `broker.url` then names its listener.", default=None
    )
    keeper: KeeperSettings | None = setting(
        "Keep revoked devices out of a Mosquitto; the embedded broker needs no such table.", default=None
    )
    http: HttpSettings | None = setting(
        "Take what devices say over HTTPS, from the gateway; left out: what the broker brings alone.",
        default=None,
    )
    bridge: int = setting("Which of the bridges this is, from 0.", default=0, check=between(0, 63))
    bridges: int = setting(
        "How many bridges share the devices, by a hash of their ids; the same number at each.",
        default=1,
        check=between(1, 64),
    )
    bytes_max: int = setting(
        "Bytes of messages that wait for the log; above it nothing is read from the broker.",
        default=32 << 20,
        check=between(1 << 20, 1 << 30),
    )
    lines_max: int = setting(
        "Devices whose place is remembered; one that is not begins again where it says it stands.",
        default=200_000,
        check=between(1_000, 10_000_000),
    )
    device_messages_s: int = setting(
        "What one device may say, messages a second: more than one needs that catches up, so that none takes"
        " the others' room. What is over it is not accepted: the device keeps it, and sends it again later.",
        default=500,
        check=between(1, 100_000),
    )
    device_bytes_s: int = setting(
        "The same in bytes a second.", default=1 << 20, check=between(1 << 10, 1 << 30)
    )
    device_burst_s: float = setting(
        "So many seconds' worth of both a device may say at once, and a message of 32 KiB at least.",
        default=4.0,
        check=between(1, 3600),
    )
    accept_every_ms: int = setting(
        "A device hears `accepted` at most once in this time.", default=50, check=between(1, 10_000)
    )
    append_s: float = setting(
        "The log fails for so long: what waits for that part is given up unacknowledged, and the connection"
        " to the broker dropped, so that devices keep what they have. Longer than a failover of Kafka's.",
        default=10.0,
        check=between(0.5, 120),
    )
    drain_s: float = setting(
        "What waits for the log gets this long after SIGTERM; what is left, devices send again.",
        default=5.0,
        check=between(0, 60),
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "Least level that is logged.", default="info"
    )

    def __post_init__(self) -> None:
        if self.bridge >= self.bridges:
            raise ValueError("bridge must be less than bridges")
        if self.device_bytes_s * self.device_burst_s < READ_MAX:
            # Its device would send it again for ever, and nothing behind it.
            raise ValueError(
                f"device_bytes_s times device_burst_s must be at least {READ_MAX}, the bytes of one message"
            )
        if self.keeper is not None and (self.gateway is None or self.embedded_broker is not None):
            raise ValueError("keeper is for a Mosquitto, and needs the table gateway")
        if self.gateway is None and (self.log.kind == "gateway" or self.embedded_broker is not None):
            raise ValueError("the gateway's log and the embedded broker need the table gateway")
