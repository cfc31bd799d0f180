"""Devices come, go, fill up, and pretend."""

from __future__ import annotations

import asyncio
import time

import pytest

from runtime.tunnel_link import PAD
from tests.tunnel_server.conftest import DEVICE, Limits, Service, Stage, Visitor, running, settings
from tests.tunnel_server.doubles import DeviceKey, TestDevice, Upstream, answering
from tunnel_protocol import CloseCode, RefusedCode
from tunnel_server.settings import DeviceLimits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


async def holding(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each head only when ``reached`` is set."""
    while True:
        await upstream.head(reader)
        await upstream.reached.wait()
        writer.write(OK)


class Refused:
    """Owns a stream that the other side does not open."""

    def __init__(self) -> None:
        self.code: asyncio.Future[RefusedCode] = asyncio.get_running_loop().create_future()

    def refused(self, code: RefusedCode, message: str) -> None:
        self.code.set_result(code)


async def status(visitor: Visitor) -> int:
    return int((await visitor.response())[0].split()[1])


async def test_an_offline_device_is_503_with_a_readable_page(stage: Stage) -> None:
    visitor = await stage.visitor()
    visitor.get()
    head, body = await visitor.response()
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5\r\n" in head
    assert b"offline" in body


async def test_a_tunnel_that_breaks_cuts_what_it_carried_and_comes_back(stage: Stage) -> None:
    upstream = await stage.serve(holding)
    visitor = await stage.visitor()
    visitor.get("/", "Content-Length: 1", method="POST")
    visitor.send(b"x")
    await stage.until(lambda: upstream.received)
    await stage.devices[0].close()
    assert await status(visitor) == 503
    upstream.reached.set()
    await stage.device(stage.devices[0].target)
    visitor.get()
    assert (await visitor.response())[1] == b"hello"


async def test_a_get_moves_to_the_devices_other_tunnel(stage: Stage) -> None:
    upstream = await stage.serve(holding)
    first = stage.devices[0]
    visitor = await stage.visitor()
    visitor.get()
    await stage.until(lambda: upstream.received)
    await stage.device(first.target, instance=first.instance)
    await stage.until(lambda: len(stage.node.devices) == 2)
    await first.close()
    upstream.reached.set()
    assert (await visitor.response())[1] == b"hello"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (RefusedCode.UNREACHABLE, 502), (RefusedCode.UNKNOWN_SERVICE, 404), (RefusedCode.NO_TIME, 503),
        (RefusedCode.GRANT_INVALID, 403), (RefusedCode.GRANT_EXPIRED, 503), (RefusedCode.DRAINING, 503),
        (RefusedCode.TOO_MANY_STREAMS, 503), (RefusedCode.INTERNAL, 502),
    ],
)  # fmt: skip
async def test_a_refusal_becomes_a_page(stage: Stage, code: RefusedCode, expected: int) -> None:
    await stage.serve(answering(OK))
    stage.devices[0].refuse_with = code
    visitor = await stage.visitor()
    visitor.get()
    assert await status(visitor) == expected


async def test_a_service_that_the_device_does_not_offer_is_404(stage: Stage) -> None:
    await stage.serve(answering(OK), services=(Service("other"), Service("shell", kind="tcp")))
    visitor = await stage.visitor()
    visitor.get()
    assert await status(visitor) == 404
    assert stage.devices[0].opened == []


async def test_requests_queue_at_max_streams_and_idle_streams_give_way() -> None:
    async with running(settings(devices=DeviceLimits(queue_s=5))) as stage:
        upstream = await stage.serve(holding, limits=Limits(max_streams=2))
        upstream.reached.set()
        idle = await stage.visitor()
        idle.get()
        await idle.response()
        upstream.reached.clear()
        visitors = [await stage.visitor() for _ in range(5)]
        for visitor in visitors:
            visitor.get()
        await stage.until(lambda: upstream.received.count(b"GET") == 3)
        assert stage.node.devices.tunnels()[0].in_use == 2
        upstream.reached.set()
        assert [await status(visitor) for visitor in visitors] == [200] * 5


async def test_waiting_for_a_stream_has_an_end() -> None:
    async with running(settings(devices=DeviceLimits(queue_s=1.5, queue_length=1))) as stage:
        upstream = await stage.serve(holding, limits=Limits(max_streams=1))
        first, second, third = [await stage.visitor() for _ in range(3)]
        first.get()
        await stage.until(lambda: upstream.received)
        second.get()
        await stage.until(lambda: stage.node.metrics.queued.value == 1)
        third.get()
        assert await status(third) == 503
        assert await status(second) == 503
        upstream.reached.set()
        assert await status(first) == 200


async def test_the_newest_instance_replaces_the_older_one(stage: Stage) -> None:
    await stage.serve(answering(OK))
    first = stage.devices[0]
    await stage.device(first.target, instance=first.instance)
    await stage.until(lambda: len(stage.node.devices) == 2)
    await stage.device(first.target)
    async with asyncio.timeout(5):
        lost = await first.ended
    assert lost.code is CloseCode.REPLACED
    assert len(stage.node.devices) == 1


async def test_the_gateway_hears_of_a_clone_before_it_hears_that_the_other_went(stage: Stage) -> None:
    """Else it never sees two instances at once, and the owner is never told."""
    await stage.serve(answering(OK))
    first = stage.devices[0]
    await stage.until(lambda: any(report["events"] for report in stage.gateway.reports))
    second = await stage.device(first.target)

    def events() -> list[tuple[str, str]]:
        told = (event for report in stage.gateway.reports for event in report["events"])
        return [(event["instance"], event["state"]) for event in told]

    gone = (first.instance.hex(), "disconnected")
    await stage.until(lambda: gone in events())
    assert events().index((second.instance.hex(), "connected")) < events().index(gone)


async def test_the_feed_replaces_an_instance_of_another_node(stage: Stage) -> None:
    await stage.serve(answering(OK))
    stage.gateway.publish("replaced", DEVICE, keep="00" * 16)
    async with asyncio.timeout(5):
        lost = await stage.devices[0].ended
    assert lost.code is CloseCode.REPLACED


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("wrong key", CloseCode.AUTH_FAILED), ("unknown device", CloseCode.AUTH_FAILED),
        ("revoked", CloseCode.REVOKED), ("gateway down", CloseCode.TRY_LATER),
    ],
)  # fmt: skip
async def test_who_does_not_prove_its_key_stays_out(stage: Stage, case: str, code: CloseCode) -> None:
    key, device_id = stage.key, DEVICE
    if case == "wrong key":
        key = DeviceKey()
    elif case == "unknown device":
        device_id = "d_bbbbbbbbbbbbbbbb"
    elif case == "revoked":
        stage.gateway.revoked_devices.add(DEVICE)
    else:
        stage.gateway.down = True
    device = TestDevice(key, ("127.0.0.1", 1), device_id=device_id)
    stage.devices.append(device)
    await device.dial(stage.node.tunnels.address.port)
    async with asyncio.timeout(5):
        lost = await device.ended
    assert lost.code is code
    assert len(stage.node.devices) == 0


async def test_a_revocation_also_ends_a_handshake_whose_check_came_before_it(stage: Stage) -> None:
    stage.gateway.checking = asyncio.Event()
    device = TestDevice(stage.key, ("127.0.0.1", 1))
    stage.devices.append(device)
    await device.dial(stage.node.tunnels.address.port)
    async with asyncio.timeout(5):
        await stage.gateway.checking.wait()
        stage.gateway.publish("device", DEVICE)
        lost = await device.ended
    stage.gateway.may_answer.set()
    assert lost.code is CloseCode.REVOKED
    assert len(stage.node.devices) == 0


async def test_garbage_closes_its_own_tunnel_with_a_code_and_nothing_else(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tunnel_server.tunnels")
    upstream = await stage.serve(holding)
    first = stage.devices[0]
    visitor = await stage.visitor()
    visitor.get()
    await stage.until(lambda: upstream.received)
    second = await stage.device(first.target, instance=first.instance)
    await stage.until(lambda: len(stage.node.devices) == 2)
    assert second.link is not None
    second.link.send(bytearray(PAD + b"\xff" * 64))
    async with asyncio.timeout(5):
        lost = await second.ended
    assert (lost.fault, lost.code) == ("peer", CloseCode.PROTOCOL_ERROR)
    said = next(record for record in caplog.records if record.getMessage() == "tunnel closed")
    assert (said.__dict__["code"], said.__dict__["device"]) == ("protocol_error", DEVICE)
    upstream.reached.set()
    assert (await visitor.response())[1] == b"hello"


async def test_a_device_opens_no_streams(stage: Stage) -> None:
    await stage.serve(answering(OK))
    owner = Refused()
    stage.devices[0].connection.peer_max_streams = 1  # a device that does not keep to what the node said
    stage.devices[0].connection.open_stream(DEVICE, "web", bytes(16), owner)
    async with asyncio.timeout(5):
        assert await owner.code is RefusedCode.TOO_MANY_STREAMS
    visitor = await stage.visitor()
    visitor.get()
    assert await status(visitor) == 200


async def test_presence_is_reported_with_connects_and_disconnects(stage: Stage) -> None:
    await stage.serve(answering(OK))
    reports = stage.gateway.reports
    assert reports[0]["full"] is True
    await stage.until(lambda: any(report["events"] for report in reports))
    event = next(report["events"][0] for report in reports if report["events"])
    assert (event["device_id"], event["state"]) == (DEVICE, "connected")
    assert event["instance"] == stage.devices[0].instance.hex()
    assert event["services"] == [{"name": "web", "kind": "web"}]
    # Once the round trip is known, again: it is the same connection since the same moment.
    await stage.until(lambda: any(e["rtt_ms"] is not None for r in reports for e in r["events"]))
    again = next(e for r in reports for e in r["events"] if e["rtt_ms"] is not None)
    assert again | {"rtt_ms": event["rtt_ms"]} == event
    await stage.devices[0].close()
    await stage.until(lambda: any(e["state"] == "disconnected" for r in reports for e in r["events"]))


async def test_a_full_report_names_when_a_device_came(stage: Stage) -> None:
    await stage.serve(answering(OK))
    reports = stage.gateway.reports
    await stage.until(lambda: any(report["events"] for report in reports))
    came = next(report["events"][0]["at"] for report in reports if report["events"])
    stage.gateway.down = True  # a report that fails makes the next one full
    await stage.until(lambda: stage.gateway.failed_reports)
    known = len(reports)
    stage.gateway.down = False
    await stage.until(lambda: any(report["full"] for report in reports[known:]))
    full = next(report for report in reports[known:] if report["full"])
    assert [event["at"] for event in full["events"]] == [came]


async def test_a_gateway_that_does_not_know_this_node_is_told_everything_at_once(stage: Stage) -> None:
    await stage.serve(answering(OK))
    reports = stage.gateway.reports
    await stage.until(lambda: any(e["rtt_ms"] is not None for r in reports for e in r["events"]))
    known = len(reports)
    stage.gateway.wants_full = True
    await stage.until(lambda: any(report["full"] for report in reports[known:]))
    full = next(report for report in reports[known:] if report["full"])
    assert [event["device_id"] for event in full["events"]] == [DEVICE]


async def test_drain_finishes_what_is_in_flight(stage: Stage) -> None:
    upstream = await stage.serve(holding)
    visitor, idle = await stage.visitor(), await stage.visitor()
    visitor.get()
    await stage.until(lambda: upstream.received)
    stage.stopped = True
    stopping = asyncio.get_running_loop().create_task(stage.node.stop())
    assert await idle.rest() == b""
    upstream.reached.set()
    head, body = await visitor.response()
    assert b"\r\nConnection: close\r\n" in head
    assert body == b"hello"
    async with asyncio.timeout(5):
        await stopping
    assert (await stage.devices[0].ended).code is CloseCode.NORMAL


async def test_an_idle_node_stops_within_two_seconds(stage: Stage) -> None:
    await stage.serve(answering(OK))
    visitor = await stage.visitor()
    visitor.get()
    await visitor.response()
    started = time.monotonic()
    stage.stopped = True
    await stage.node.stop()
    assert time.monotonic() - started < 2


async def test_devices_that_come_and_go_do_not_hurry_reports_to_a_gateway_that_is_down() -> None:
    async with running(settings(gateway={"presence_s": 0.3})) as stage:
        stage.gateway.down = True
        await stage.until(lambda: stage.gateway.failed_reports == 1)
        started, event = time.monotonic(), {"device_id": DEVICE, "state": "connected"}

        def tried_again() -> bool:
            stage.node.presence.report(event)
            return stage.gateway.failed_reports >= 4

        await stage.until(tried_again)
        assert time.monotonic() - started >= 0.85
        stage.gateway.down = False
        known = len(stage.gateway.reports)
        await stage.until(lambda: len(stage.gateway.reports) > known)
        assert stage.gateway.reports[known]["full"] is True
