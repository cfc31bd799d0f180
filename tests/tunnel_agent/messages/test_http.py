"""A device whose broker cannot be reached: what it says goes over HTTPS, and back once there is a broker."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from device_protocol.envelope import Envelope, decode
from device_protocol.numbers import Line, Number, Place
from device_protocol.topics import Kind
from testbed.mosquitto import Mosquitto
from testbed.ports import LOOPBACK
from tests.tunnel_agent.gateway_double import Json
from tests.tunnel_agent.messages.device import TOPIC, Gateway, enrolled
from tests.tunnel_agent.messages.pipeline import Pipeline
from tests.tunnel_agent.messages.test_session import PATIENCE_S, Device, Start, offer, told, until
from tunnel_agent.messages import http_sender
from tunnel_agent.messages.http_sender import BODY_MAX, _Way
from tunnel_agent.messages.policy import sending
from tunnel_agent.policy import reconnect

PATH = "/v1/telemetry"


class OtherWay(Gateway):
    """Takes messages too: a bridge's line behind a token that may end."""

    def __init__(self, broker: Mosquitto) -> None:
        super().__init__(broker)
        self.token = "one.two.three"
        self.line = Line()
        self.taken: list[Envelope] = []
        self.posts = 0
        self.strange = 0
        """With a token that is over."""
        self.sizes: list[int] = []
        self.status: int | None = None
        """Instead of taking anything."""
        self.deaf = False
        """Takes, and tells nothing of it."""
        self.offers = True

    def respond(self, path: str, body: Json, authorization: str) -> tuple[int, Json | bytes]:
        if path == PATH and path not in self.answers:
            return self._post(body, authorization)
        status, answer = super().respond(path, body, authorization)
        if path.endswith("/connection") and isinstance(answer, dict):
            have = self.line.have
            telemetry = {
                "url": f"{self.url}{PATH}",
                "token": self.token,
                "expires_in": 900,
                "known": {"boot": have.boot, "seq": have.seq},
            }
            answer = {**answer, "telemetry": telemetry if self.offers else None}
        return status, answer

    def _post(self, body: Any, authorization: str) -> tuple[int, Json | bytes]:
        self.posts += 1
        if authorization != f"Bearer {self.token}":
            self.strange += 1
            return 401, {"code": "bad_device_token"}
        if self.status is not None:
            return self.status, {"code": "ingest_unavailable"}
        self.sizes.append(len(json.dumps(body, ensure_ascii=False).encode()))
        assert 1 <= len(body["messages"]) <= 64
        for one in body["messages"]:
            self._take(decode(Kind(one["kind"]), one["message"].encode()))
        have = self.line.have
        return 200, {"accepted": None if self.deaf else {"boot": have.boot, "seq": have.seq}, "refused": []}

    def _take(self, envelope: Envelope) -> None:
        standing = envelope.standing
        assert standing is not None
        if self.line.offer(standing.number, standing.before, standing.floor).place is Place.TAKE:
            self.taken.append(envelope)

    @property
    def said(self) -> list[int]:
        return [envelope.payload["n"] for envelope in self.taken if envelope.kind is Kind.EVENT]


@pytest.fixture
def nobody() -> str:
    """An address where no broker is."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port: int = free.getsockname()[1]
    return f"mqtts://{LOOPBACK}:{port}"


@pytest.fixture
def gateway(mosquitto: Mosquitto, nobody: str) -> Any:
    double = OtherWay(mosquitto)
    assert double.mqtt is not None
    double.mqtt = {**double.mqtt, "url": nobody}
    yield double
    double.close()


@pytest.fixture
async def start(
    mosquitto: Mosquitto, gateway: OtherWay, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Start]:
    monkeypatch.setattr(sending, "PATIENCE_FIRST_S", PATIENCE_S)
    monkeypatch.setattr(reconnect, "MAX_BACKOFF_S", 2.0)
    monkeypatch.setattr(reconnect, "_SLOW", {reconnect.Ending.REFUSED: (0.2, 0.2)})
    monkeypatch.setattr(http_sender, "LOOK_S", 0.1)
    identity = enrolled(mosquitto, gateway, folder)
    async with AsyncExitStack() as stack:

        def make(**settings: object) -> Device:
            device = Device(identity, folder, {"http_after_s": 0.1} | settings)
            stack.push_async_callback(device.stop)
            return device

        yield make


def entries(device: Device) -> float:
    return device.sample("towline_agent_outbox_entries")


async def offered(device: Device, *ns: int) -> None:
    await until(lambda: device.side._session is not None)
    offer(device, *ns)


async def test_without_a_broker_it_is_said_over_https(start: Start, gateway: OtherWay) -> None:
    """From the first boot on: the answer to the asking tells what is known of it."""
    device = start()
    await offered(device, *range(1, 201))
    await until(lambda: gateway.said == list(range(1, 201)))
    await until(lambda: not entries(device))
    assert [envelope.number for envelope in gateway.taken] == [Number(1, n) for n in range(1, 202)]
    assert device.sample("towline_agent_messages_over_http") == 1
    assert device.sample("towline_agent_mqtt_connected") == 0
    assert device.side.problem is None
    before = gateway.posts
    await offered(device, 201)
    await until(lambda: gateway.said[-1] == 201)
    assert gateway.posts - before <= 2  # nothing is said again that was accepted


async def test_where_there_is_no_broker_at_all(start: Start, gateway: OtherWay) -> None:
    gateway.mqtt = None
    device = start()
    await offered(device, 1, 2)
    await until(lambda: gateway.said == [1, 2] and not entries(device))


async def test_it_leaves_the_outbox_only_when_it_is_accepted(start: Start, gateway: OtherWay) -> None:
    gateway.deaf = True
    device = start()
    await offered(device, *range(1, 40))
    await until(lambda: len(gateway.said) == 39 and gateway.posts >= 3)
    assert entries(device) == 40
    gateway.deaf = False
    await until(lambda: not entries(device))
    assert gateway.said == list(range(1, 40))


async def test_a_gateway_in_trouble_is_asked_again(start: Start, gateway: OtherWay) -> None:
    for status in (503, 500, 429, 403):
        gateway.status = status
        device = start()
        await offered(device, status)
        posts = gateway.posts
        await until(lambda: gateway.posts >= posts + 3)  # noqa: B023 - waited for here
        assert entries(device)
        gateway.status = None
        await until(lambda: not entries(device))  # noqa: B023
        assert gateway.said[-1] == status
        await device.stop()
    numbers = [envelope.number for envelope in gateway.taken]
    assert numbers == sorted(set(numbers))


async def test_a_token_that_is_over_is_asked_for_anew(start: Start, gateway: OtherWay) -> None:
    device = start()
    await offered(device, 1)
    await until(lambda: gateway.said == [1])
    gateway.token = "four.five.six"
    await offered(device, 2)
    await until(lambda: gateway.said == [1, 2] and not entries(device))
    assert gateway.strange == 1


async def test_the_broker_takes_over_once_it_is_there(
    start: Start, gateway: OtherWay, mosquitto: Mosquitto, pipeline: Pipeline
) -> None:
    device = start()
    await offered(device, *range(1, 11))
    await until(lambda: not entries(device) and gateway.said)
    pipeline.line = Line(gateway.line.have)
    gateway.mqtt = {
        "url": f"mqtts://{LOOPBACK}:{mosquitto.port}",
        "ca": mosquitto.internal.pem(),
        "password": None,
    }
    await until(lambda: device.sample("towline_agent_mqtt_connected"))
    await until(lambda: not device.sample("towline_agent_messages_over_http"))
    posts = gateway.posts
    await offered(device, *range(11, 21))
    await pipeline.until(lambda: len(told(pipeline)) == 10)
    assert gateway.posts == posts
    assert gateway.said + told(pipeline) == list(range(1, 21))


async def test_a_broker_that_goes_is_stood_in_for(
    start: Start, gateway: OtherWay, mosquitto: Mosquitto
) -> None:
    """And the one line holds: nothing twice, nothing out of its order."""
    there: Json = {
        "url": f"mqtts://{LOOPBACK}:{mosquitto.port}",
        "ca": mosquitto.internal.pem(),
        "password": None,
    }
    gateway.mqtt = there
    first = Pipeline(mosquitto, TOPIC)
    await first.start()
    device = start()
    await offered(device, 1, 2, 3)
    await first.until(lambda: len(told(first)) == 3)
    await until(lambda: not entries(device))
    gateway.line = Line(first.line.have)
    mosquitto.kill()
    try:
        await offered(device, 4, 5, 6)
        await until(lambda: gateway.said == [4, 5, 6] and not entries(device))
    finally:
        mosquitto.start()
    again = Pipeline(mosquitto, TOPIC)
    again.line = Line(gateway.line.have)
    await again.start()
    await until(lambda: device.sample("towline_agent_mqtt_connected"))
    await offered(device, 7)
    await again.until(lambda: told(again) == [7])
    await again.close()


@pytest.mark.parametrize("settings", [{"http_after_s": 0}, {"http_after_s": 3600}])
async def test_not_before_its_time(
    start: Start, gateway: OtherWay, settings: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    device = start(**settings)
    await offered(device, 1)
    tries: Callable[[], int] = lambda: sum(  # noqa: E731
        record.message == "no connection for messages" for record in caplog.records
    )
    await until(lambda: tries() >= 4)
    assert gateway.posts == 0


async def test_a_gateway_that_offers_none_is_no_fault(
    start: Start, gateway: OtherWay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    gateway.offers = False
    device = start()
    await until(lambda: "no way for messages" in [record.message for record in caplog.records])
    assert (gateway.posts, device.side.problem) == (0, None)


async def test_answers_that_are_none_end_nothing(start: Start, gateway: OtherWay) -> None:
    device = start()
    await offered(device, 1)
    await until(lambda: gateway.said == [1] and not entries(device))
    junks: list[Json | bytes] = [
        b"",
        b"[]",
        b"{}",
        {"accepted": 7, "refused": []},
        {"accepted": {"boot": -1, "seq": 2}, "refused": []},
        {"accepted": {"boot": True, "seq": 2}, "refused": []},
        {"accepted": None, "refused": [1, {}, {"id": 7, "reason": 8}, {"id": "x", "reason": "new"}]},
    ]
    for junk in junks:
        gateway.answers = {PATH: (200, junk)}
        posts = len(gateway.requests)
        await offered(device, 2)
        await until(lambda: sum(p == PATH for _, p, _ in gateway.requests[posts:]) >= 2)  # noqa: B023
    assert device.side.problem is None
    assert entries(device)
    gateway.answers = {}
    await until(lambda: not entries(device))
    assert gateway.said == [1] + [2] * 7


async def test_requests_stay_within_what_the_gateway_takes() -> None:
    """Any message fits, and no request is larger for having several."""
    way = _Way()
    texts = ["\\" * 11_000, "é" * 10_000, "plain", '"' * 10_000, *("x" * 1_000 for _ in range(100))]
    for seq, text in enumerate(texts, 1):
        members = {"id": "019a7afd-1e00-7001-8203-040506070809", "v": 1, "type": "event", "ts": 1, "up": 1}
        more = {"boot": 1, "seq": seq, "payload": {"t": text}, "floor": [0, 0], "prev": [0, 0]}
        if seq > 1:
            more["prev"] = [1, seq - 1]
        await way.send(Kind.EVENT, json.dumps(members | more, ensure_ascii=False).encode())
    said: list[str] = []
    while (body := await way.next(0.0)) is not None:
        messages = json.loads(body)["messages"]
        assert len(body) <= BODY_MAX + 64
        assert len(messages) <= 64
        said += [json.loads(one["message"])["payload"]["t"] for one in messages]
    assert said == texts
    await way.send(Kind.EVENT, json.dumps(members | more).encode())
    assert await asyncio.wait_for(way.next(5), 5) is not None
