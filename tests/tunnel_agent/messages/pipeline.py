"""The other side of a device's messages, as far as a device can tell: takes them in line, and answers."""

from __future__ import annotations

import time
from typing import Any

from device_protocol.bodies import (
    CONFIG_TYPE,
    Accepted,
    Ack,
    Command,
    Desired,
    Gone,
    Hello,
    HelloAnswer,
    Refused,
    Reported,
)
from device_protocol.envelope import Envelope, decode
from device_protocol.errors import Reason
from device_protocol.ids import RANDOM_BYTES, uuid7
from device_protocol.numbers import Line, Number, Place
from device_protocol.topics import UP, Kind, Topic, parse_topic
from runtime.mqtt_link import MqttLink, MqttMessage, MqttOptions
from runtime.tasks import TaskOwner
from testbed.mosquitto import Mosquitto
from testbed.ports import LOOPBACK
from tests.tunnel_agent.node import Changing

FAR_MS = 4_000_000_000_000


class Pipeline(Changing):
    """A bridge, a consumer and a gateway in one, at a real broker."""

    def __init__(self, broker: Mosquitto, topic: Topic) -> None:
        super().__init__()
        self.topic = topic
        self.prefix = topic.prefix
        self.line = Line()
        self.taken: list[Envelope] = []
        self.raw: list[bytes] = []
        self.topics: set[str] = set()
        self.hellos: list[Hello] = []
        self.gone: list[Gone] = []
        self.acks: list[Ack] = []
        self.accepts = True  # False: nothing is answered
        self.greets = True
        self.refuses: Reason | None = None
        self._broker = broker
        self._tasks = TaskOwner("pipeline")
        self._bridge: MqttLink
        self._gateway: MqttLink
        self._n = 0

    async def start(self) -> None:
        self._bridge = await self._link("ingest", self._hear)
        self._gateway = await self._link("gateway", lambda _: None)
        await self._bridge.subscribe([f"+/+/+/{self.topic.device}/{kind}" for kind in sorted(UP)])

    async def close(self) -> None:
        await self._tasks.close(5)
        await self._bridge.close()
        await self._gateway.close()

    async def _link(self, name: str, hear: Any) -> MqttLink:
        port, context = self._broker.internal_port, self._broker.service(name)
        return await MqttLink.connect(MqttOptions(LOOPBACK, port, name, tls=context, username=name), hear)

    def send(self, what: str, /, *, n: int = 0, **params: Any) -> str:
        """A command; `n`: that of before."""
        self._n += 1
        command = uuid7(1, (n or 1000 + self._n).to_bytes(RANDOM_BYTES, "big"))
        self._tell(self._gateway, Kind.CMD, Command(command, what, params, 60_000, FAR_MS, 10_000).dump())
        return command

    def configure(self, version: int, body: dict[str, Any]) -> Desired:
        """Tell it a configuration; its name is made up."""
        desired = Desired(version, body, f"{version:064x}")
        self._tell(self._gateway, Kind.CONFIG, desired.dump())
        return desired

    def reports(self) -> list[Reported]:
        """What it said of its configuration, in the order of its numbers."""
        return [
            Reported.parse(envelope.payload)
            for envelope in self.of(Kind.STATE)
            if envelope.type == CONFIG_TYPE
        ]

    def tell_accepted(self, number: Number) -> None:
        self._tell(self._bridge, Kind.ACCEPTED, Accepted(number).dump())

    async def answer(self, command: str) -> Ack:
        def final() -> list[Ack]:
            return [ack for ack in self.acks if ack.command == command and ack.stage != "received"]

        await self.until(final)
        return final()[-1]

    def numbers(self) -> list[Number]:
        return [envelope.number for envelope in self.taken]

    def of(self, kind: Kind) -> list[Envelope]:
        return [envelope for envelope in self.taken if envelope.kind is kind]

    def _hear(self, message: MqttMessage) -> None:
        kind = parse_topic(message.topic).kind
        self.topics.add(message.topic)
        self.raw.append(message.payload)
        envelope = decode(kind, message.payload)  # a device that breaks the protocol ends the test
        if kind is Kind.HELLO:
            self._hear_hello(Hello.parse(envelope.payload))
        elif kind is Kind.ACK:
            self.acks.append(Ack.parse(envelope.payload))
        elif self.refuses is not None:
            self._tell(self._bridge, Kind.ACCEPTED, Refused(self.refuses, envelope.id).dump())
        elif self.accepts:
            self._take(envelope)
        self._bridge.acknowledge(message.packet_id)
        self.changed()

    def _hear_hello(self, hello: Hello | Gone) -> None:
        if isinstance(hello, Gone):
            self.gone.append(hello)
            return
        self.hellos.append(hello)
        if self.greets:
            answer = HelloAnswer(hello.boot, self.line.have, int(time.time() * 1000), self.prefix)
            self._tell(self._bridge, Kind.ACCEPTED, answer.dump())

    def _take(self, envelope: Envelope) -> None:
        standing = envelope.standing
        assert standing is not None
        place = self.line.offer(standing.number, standing.before, standing.floor).place
        if place is Place.TAKE:
            self.taken.append(envelope)
        if place is not Place.GAP:
            self.tell_accepted(self.line.have)

    def _tell(self, link: MqttLink, kind: Kind, payload: bytes) -> None:
        topic = str(self.topic.of(kind))
        self._tasks.start(link.send(topic, payload, qos=0 if kind is Kind.ACCEPTED else 1), kind.value)
