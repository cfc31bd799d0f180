"""An identity that a real broker takes, and a gateway that says where the broker is."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from device_protocol.topics import Kind, Topic
from testbed.mosquitto import Mosquitto
from testbed.ports import LOOPBACK
from tests.tunnel_agent.authority import DEVICE, Authority
from tests.tunnel_agent.gateway_double import NONCE, GatewayDouble, Json
from tunnel_agent.certificate import read_certificate
from tunnel_agent.identity import Identity, IdentityStore

TOPIC = Topic("o_test", "s_one", "linux", DEVICE, Kind.HELLO)


class Gateway(GatewayDouble):
    """Also answers where the broker is, to who can sign for it."""

    def __init__(self, broker: Mosquitto) -> None:
        super().__init__(Authority(time.time()))
        self.prefix = TOPIC.prefix
        self.asked = 0
        self.mqtt: Json | None = {
            "url": f"mqtts://{LOOPBACK}:{broker.port}",
            "ca": broker.internal.pem(),
            "password": None,
        }

    def respond(self, path: str, body: Json, authorization: str) -> tuple[int, Json | bytes]:
        if path != f"/v1/devices/{DEVICE}/connection" or path in self.answers:
            return super().respond(path, body, authorization)
        self.asked += 1
        signature = base64.urlsafe_b64decode(str(body["signature"]) + "==")
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        assert self.public is not None
        signed = b"towline-connection-v1" + NONCE + DEVICE.encode()
        self.public.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))
        return 200, {"prefix": self.prefix, "mqtt": self.mqtt}


def enrolled(broker: Mosquitto, gateway: Gateway, state_dir: Path, urls: tuple[str, ...] = ()) -> Identity:
    """Its certificate is of the broker's device CA; all of it is on disk."""
    identity = gateway.authority.identity(urls)
    public = identity.key._private.public_key()
    pem = broker.devices.issue_device(public, DEVICE, time.time()).certificate_pem().decode()
    gateway.public = public
    identity = replace(identity, gateway_url=gateway.url, certificate=read_certificate(pem, identity.key))
    IdentityStore(state_dir).save(identity)
    return identity
