"""Where the broker is and as whom to talk to it, and what the other way is where it cannot be reached: the
gateway says, against the device's signature.
"""

from __future__ import annotations

import base64
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from device_protocol.errors import BadTopicError
from device_protocol.numbers import NUMBER_MAX, Number
from device_protocol.topics import Kind, Topic, parse_topic
from tunnel_agent.errors import AgentError
from tunnel_agent.gateway_client import GatewayClient, trust
from tunnel_agent.identity import Identity
from tunnel_agent.renewal import read_nonce
from tunnel_agent.urls import gateway_url_problem, is_loopback

_PURPOSE: Final = b"towline-connection-v1"  # keeps this signature apart from the others of the same key
TOKEN: Final = re.compile(r"[A-Za-z0-9._-]{1,4096}")  # three parts in base64url
MQTTS_PORT: Final = 8883
MQTT_PORT: Final = 1883


class ConnectionAnswerError(AgentError):
    """The gateway's answer cannot be used, or this installation takes no messages."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """`password` None: the broker asks for the device's certificate. `tls` False: on this machine alone."""

    topic: Topic
    """The device's topics, of whatever kind."""
    host: str
    port: int
    tls: bool
    ca: str | None
    """PEM; None: the system's roots."""
    password: str | None = field(repr=False)

    def context(self, state_dir: Path) -> ssl.SSLContext | None:
        """With the device's own certificate, as it is on disk now."""
        if not self.tls:
            return None
        context = trust(self.ca)
        context.load_cert_chain(state_dir / "device.crt", state_dir / "device.key")
        return context


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """Where messages are taken over HTTPS. `known`: the highest number that was ever taken of this device."""

    origin: str
    path: str
    token: str = field(repr=False)
    lasts_s: float
    known: Number


@dataclass(frozen=True, slots=True)
class Directions:
    """At least one of the two is there."""

    broker: BrokerAddress | None
    http: HttpAddress | None


def ask(identity: Identity, client: GatewayClient) -> Directions:
    """Ask once; blocks; raises an AgentError. A password that was given before ends."""
    path = f"/v1/devices/{identity.device_id}"
    nonce_text = client.post(f"{path}/certificate/challenge", {}).get("nonce")
    signed = _PURPOSE + read_nonce(nonce_text) + identity.device_id.encode("ascii")
    signature = base64.urlsafe_b64encode(identity.key.sign(signed)).rstrip(b"=").decode("ascii")
    return read_answer(
        client.post(f"{path}/connection", {"nonce": nonce_text, "signature": signature}), identity
    )


def read_answer(answer: dict[str, object], identity: Identity) -> Directions:
    """Check it as a whole; ConnectionAnswerError."""
    topic = topic_of(answer.get("prefix"), identity)
    mqtt, telemetry = answer.get("mqtt"), answer.get("telemetry")
    if mqtt is None and telemetry is None:
        raise ConnectionAnswerError("the gateway takes no messages")
    return Directions(
        None if mqtt is None else _broker(mqtt, topic), None if telemetry is None else _http(telemetry)
    )


def _http(told: object) -> HttpAddress:
    if not isinstance(told, dict):
        raise ConnectionAnswerError("the gateway's answer is none")
    url, token, lasts_s, known = (told.get(name) for name in ("url", "token", "expires_in", "known"))
    if not isinstance(url, str) or gateway_url_problem(url) is not None:
        raise ConnectionAnswerError(
            "the address for messages must be https:// (http:// only to this machine)"
        )
    if not isinstance(token, str) or TOKEN.fullmatch(token) is None or not isinstance(lasts_s, int):
        raise ConnectionAnswerError("the gateway's answer holds no token for messages")
    if not isinstance(known, dict):
        raise ConnectionAnswerError("the gateway's answer does not say what it knows")
    parts = urlsplit(url)
    return HttpAddress(f"{parts.scheme}://{parts.netloc}", parts.path, token, lasts_s, read_number(known))


def read_number(told: dict[str, object]) -> Number:
    """{"boot": b, "seq": n}; ConnectionAnswerError."""
    boot, seq = told.get("boot"), told.get("seq")
    if (
        type(boot) is not int
        or type(seq) is not int
        or not 0 <= min(boot, seq) <= max(boot, seq) <= NUMBER_MAX
    ):
        raise ConnectionAnswerError("told a number that is none")
    return Number(boot, seq)


def _broker(mqtt: object, topic: Topic) -> BrokerAddress:
    if not isinstance(mqtt, dict):
        raise ConnectionAnswerError("the gateway's answer names no broker")
    ca, password = mqtt.get("ca"), mqtt.get("password")
    if not isinstance(ca, str | None) or not isinstance(password, str | None):
        raise ConnectionAnswerError("the gateway's answer is none")
    host, port, tls = _address(mqtt.get("url"))
    return BrokerAddress(topic, host, port, tls, ca, password)


def topic_of(prefix: object, identity: Identity) -> Topic:
    """Of a prefix that somebody told; ConnectionAnswerError unless it is this device's."""
    try:
        topic = parse_topic(f"{prefix}/{Kind.HELLO}")
    except BadTopicError as error:
        raise ConnectionAnswerError("the prefix told for the topics is none") from error
    if topic.device != identity.device_id:
        raise ConnectionAnswerError("the prefix told for the topics is another device's")
    return topic


def _address(url: object) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConnectionAnswerError("the broker's address is none") from None
    tls = parts.scheme == "mqtts"
    if not host or parts.scheme not in ("mqtt", "mqtts") or not (tls or is_loopback(host)):
        raise ConnectionAnswerError("the broker's address must be mqtts:// (mqtt:// only to this machine)")
    return host, port or (MQTTS_PORT if tls else MQTT_PORT), tls
