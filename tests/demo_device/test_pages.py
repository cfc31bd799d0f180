"""What the demo device answers, and how it takes bad requests."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from random import Random

import pytest

from demo_device import bulk, uploads
from demo_device.feed import QUEUE_MESSAGES, Feed
from demo_device.greenhouse import DAY_S, VENT_DEFAULT, Greenhouse, remark
from demo_device.uploads import Uploads
from tests.demo_device.conftest import Client, Demo


@pytest.mark.parametrize("path", ["/", "/app.js", "/style.css", "/favicon.svg"])
async def test_the_page_has_no_inline_code_and_a_strict_policy(client: Client, path: str) -> None:
    answer = await client.request(f"GET {path} HTTP/1.1")
    assert answer.status == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    if path == "/":
        text = answer.body.decode()
        assert text.count("<script") == text.count('<script src="')
        assert "style=" not in text
        assert " onclick" not in text


async def test_many_requests_on_one_connection(client: Client) -> None:
    for _ in range(3):
        assert (await client.request("GET /api/preferences HTTP/1.1")).status == 200
    head = await client.request("HEAD /download/1MB.bin HTTP/1.1")
    assert head.headers["content-length"] == "1000000"
    assert (await client.request("GET /nothing HTTP/1.1")).status == 404
    assert (await client.request("PUT /api/log HTTP/1.1")).status == 405
    last = await client.request("GET / HTTP/1.1\nConnection: close")
    assert last.headers["connection"] == "close"
    assert await client.at_end()


async def test_a_preference_is_a_cookie_and_a_redirect_to_its_own_origin(client: Client) -> None:
    answer = await client.request("POST /settings/unit HTTP/1.1", b"unit=f")
    assert answer.status == 303
    assert answer.headers["location"] == "http://demo.test/#preferences"
    assert answer.headers["set-cookie"].startswith("unit=f; Path=/;")
    seen = await client.request("GET /api/preferences HTTP/1.1\nCookie: a=b; unit=f")
    assert json.loads(seen.body)["unit"] == "f"
    assert (await client.request("POST /settings/unit HTTP/1.1", b"unit=k")).status == 400


async def test_it_is_configured_as_a_whole_or_not_at_all(client: Client) -> None:
    async def put(body: bytes) -> int:
        return (await client.request("PUT /api/configuration HTTP/1.1", body)).status

    async def vent() -> int:
        return int(json.loads((await client.request("GET /api/preferences HTTP/1.1")).body)["vent"])

    assert await put(b'{"vent":45}') == 204
    assert await put(b'{"vent":45}') == 204
    assert await vent() == 45
    for body in (
        b'{"vent":101}',
        b'{"vent":-1}',
        b'{"vent":true}',
        b'{"vent":50,"door":1}',
        b"[]",
        b"{",
        b"",
    ):
        assert await put(body) == 422
        assert await vent() == 45
    assert await put(b"{}") == 204
    assert await vent() == VENT_DEFAULT


async def test_the_newest_readings_can_be_asked_for(client: Client) -> None:
    answer = await client.request("GET /api/readings HTTP/1.1")
    while answer.status == 503:  # before the first tick
        answer = await client.request("GET /api/readings HTTP/1.1")
    assert answer.status == 200
    assert json.loads(answer.body).keys() == {"t", "temperature", "humidity", "light", "vent"}


async def test_the_device_shows_what_it_got(client: Client) -> None:
    answer = await client.request("GET /api/request HTTP/1.1\nX-Test: one\nX-Test: two")
    assert json.loads(answer.body)["fields"] == [["X-Test", "one"], ["X-Test", "two"], ["Host", "demo.test"]]


async def test_a_download_and_its_checksum(client: Client) -> None:
    whole = await client.request("GET /download/1MB.bin HTTP/1.1")
    summed = await client.request("GET /download/1MB.bin.sha256 HTTP/1.1")
    assert len(whole.body) == 1_000_000
    assert hashlib.sha256(whole.body).hexdigest() == summed.body.decode()


@pytest.mark.parametrize(
    ("value", "status", "start", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=65530-65545", 206, 65_530, 65_546),
        ("bytes=999000-", 206, 999_000, 1_000_000),
        ("bytes=999000-2000000", 206, 999_000, 1_000_000),
        ("bytes=-10", 206, 999_990, 1_000_000),
        ("bytes=-2000000", 206, 0, 1_000_000),
        ("bytes=1000000-", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=5-2", 200, 0, 1_000_000),
        ("bytes=-", 200, 0, 1_000_000),
        ("bytes=0-1,5-6", 200, 0, 1_000_000),
        ("lines=1-2", 200, 0, 1_000_000),
    ],
)
async def test_ranges(client: Client, value: str, status: int, start: int, end: int) -> None:
    answer = await client.request(f"GET /download/1MB.bin HTTP/1.1\nRange: {value}")
    assert answer.status == status
    assert answer.body == b"".join(bulk.blocks(start, end))


async def test_an_upload_comes_back_as_it_was(client: Client) -> None:
    content = os.urandom(300_000)
    stored = await client.request("POST /api/uploads?name=holiday%20photo.jpg HTTP/1.1", content)
    digest = hashlib.sha256(content).hexdigest()
    assert stored.status == 201
    assert json.loads(stored.body) == {"name": "holiday photo.jpg", "size": 300_000, "sha256": digest}
    listed = await client.request("GET /api/uploads HTTP/1.1")
    assert [file["sha256"] for file in json.loads(listed.body)] == [digest]
    fetched = await client.request("GET /uploads/holiday%20photo.jpg HTTP/1.1")
    assert fetched.body == content
    assert fetched.headers["content-disposition"].startswith("attachment")
    assert (await client.request("DELETE /uploads/holiday%20photo.jpg HTTP/1.1")).status == 204
    assert (await client.request("GET /uploads/holiday%20photo.jpg HTTP/1.1")).status == 404


async def test_a_chunked_upload_with_expect(client: Client) -> None:
    client.writer.write(
        b"POST /api/uploads?name=a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    assert (await client.head()).status == 100
    client.writer.write(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n")
    assert json.loads((await client.answer()).body)["size"] == 5
    assert (await client.request("GET /api/uploads HTTP/1.1")).status == 200


def _everything_in(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*"))


@pytest.mark.parametrize("name", ["../../etc/passwd", ".hidden", "a/b", "", "x" * 101, "a%00b", "%2e%2e"])
async def test_a_name_that_could_leave_the_directory_is_refused(
    client: Client, tmp_path: Path, name: str
) -> None:
    before = _everything_in(tmp_path)
    assert (await client.request(f"POST /api/uploads?name={name} HTTP/1.1", b"x")).status == 400
    assert _everything_in(tmp_path) == before
    assert (await client.request(f"GET /uploads/{name} HTTP/1.1")).status == 404


async def test_too_large_is_said_before_and_while_sending(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(uploads, "MAX_FILE_BYTES", 100_000)
    client = await demo.connect()
    client.writer.write(b"POST /api/uploads?name=a HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n")
    assert (await client.answer()).status == 413  # although nothing of the body came yet
    client = await demo.connect()
    client.writer.write(b"POST /api/uploads?name=a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.writer.write(b"30d40\r\n" + bytes(200_000) + b"\r\n")
    assert (await client.answer()).status == 413
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_a_cut_upload_leaves_nothing(demo: Demo, tmp_path: Path) -> None:
    client = await demo.connect()
    client.writer.write(b"POST /api/uploads?name=a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
    client.writer.write_eof()
    assert (await client.answer()).status == 400
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_the_number_and_the_sum_of_files_are_bounded(
    monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    monkeypatch.setattr(uploads, "MAX_FILES", 2)
    monkeypatch.setattr(uploads, "MAX_TOTAL_BYTES", 10)
    assert (await client.request("POST /api/uploads?name=a HTTP/1.1", b"12345678")).status == 201
    assert (await client.request("POST /api/uploads?name=b HTTP/1.1", b"123")).status == 413
    assert (await client.request("POST /api/uploads?name=a HTTP/1.1", b"123456789")).status == 201
    assert (await client.request("POST /api/uploads?name=b HTTP/1.1", b"1")).status == 201
    assert (await client.request("POST /api/uploads?name=c HTTP/1.1", b"1")).status == 507


def test_a_restart_finds_the_files_and_clears_half_ones(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("abc")
    (tmp_path / ".0011.part").write_text("half")
    store = Uploads(tmp_path)
    assert [(file.name, file.size) for file in store.listing()] == [("kept.txt", 3)]
    assert not (tmp_path / ".0011.part").exists()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"POST /api/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 40_000 + b"\r\n\r\n", 431),
    ],
)
async def test_a_bad_request_is_answered_and_the_connection_closed(
    client: Client, raw: bytes, status: int
) -> None:
    client.writer.write(raw)
    answer = await client.answer()
    assert answer.status == status
    assert answer.headers["connection"] == "close"


# Live


async def _open_chart(client: Client) -> None:
    key = base64.b64encode(bytes(16)).decode()
    answer = await client.request(
        "GET /api/live HTTP/1.1\nUpgrade: websocket\nConnection: keep-alive, Upgrade\n"
        f"Sec-WebSocket-Version: 13\nSec-WebSocket-Key: {key}"
    )
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == "ICX+Yqv66kxgM0FcWaLWlFLwTAI="


def _frame(opcode: int, payload: bytes, *, final: bool = True, masked: bool = True) -> bytes:
    mask = b"\x01\x02\x03\x04"
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)) if masked else payload
    size = len(payload)
    length = (
        bytes([size | 0x80 * masked])
        if size < 126
        else bytes([126 | 0x80 * masked]) + size.to_bytes(2, "big")
    )
    return bytes([0x80 * final | opcode]) + length + (mask if masked else b"") + body


async def _read_frame(client: Client) -> tuple[int, bytes]:
    async with asyncio.timeout(10):
        first, second = await client.reader.readexactly(2)
        length = second if second < 126 else int.from_bytes(await client.reader.readexactly(2), "big")
        return first & 0x0F, await client.reader.readexactly(length)


async def _read_until(client: Client, opcode: int) -> bytes:
    while True:
        kind, payload = await _read_frame(client)
        if kind == opcode:
            return payload


async def test_the_chart_moves_and_the_vent_follows(client: Client) -> None:
    await _open_chart(client)
    first, second = [json.loads(await _read_until(client, 1)) for _ in range(2)]
    assert second["t"] > first["t"]
    client.writer.write(_frame(1, b'{"ve', final=False) + _frame(9, b"hi") + _frame(0, b'nt": 77}'))
    assert await _read_until(client, 0xA) == b"hi"
    while json.loads(await _read_until(client, 1))["vent"] != 77:
        continue
    client.writer.write(_frame(8, (1000).to_bytes(2, "big")))
    assert (await _read_until(client, 8))[:2] == (1000).to_bytes(2, "big")
    assert await client.at_end()


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (_frame(1, b"{}", masked=False), 1002),
        (_frame(3, b"{}"), 1002),
        (_frame(0, b"{}"), 1002),
        (_frame(9, b"x", final=False), 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
        (_frame(2, b"{}"), 1003),
        (_frame(1, b"\xff"), 1007),
        (_frame(1, bytes(20_000)), 1009),
        (b"\x81\xff" + (1 << 62).to_bytes(8, "big"), 1009),
    ],
)
async def test_a_broken_frame_gets_a_close_code(client: Client, raw: bytes, code: int) -> None:
    await _open_chart(client)
    client.writer.write(raw)
    assert int.from_bytes((await _read_until(client, 8))[:2], "big") == code


async def test_a_message_that_is_not_understood_costs_nothing(client: Client) -> None:
    await _open_chart(client)
    for text in (b"[]", b"{", b'{"vent": "x"}', b'{"vent": true}', b"[" * 5000):
        client.writer.write(_frame(1, text))
    assert await _read_until(client, 1)


async def test_a_request_without_upgrade_is_told(client: Client) -> None:
    assert (await client.request("GET /api/live HTTP/1.1")).status == 426


async def test_the_log_comes_as_events_and_goes_on_where_it_was_left(client: Client, demo: Demo) -> None:
    await client.request("GET /api/log HTTP/1.1")
    async with asyncio.timeout(10):
        event = await client.reader.readuntil(b"data: ")
        assert b"id: 1" in event
    again = await demo.connect()
    await again.request("GET /api/log HTTP/1.1\nLast-Event-ID: 1")
    demo.device._remarks.publish("Something new")
    async with asyncio.timeout(10):
        event = await again.reader.readuntil(b"Something new")
    assert b"id: 1\n" not in event


# Parts


def test_a_listener_that_does_not_read_misses_the_oldest() -> None:
    feed = Feed()
    queue = feed.join()
    for number in range(100):
        feed.publish(str(number))
    assert queue.qsize() == QUEUE_MESSAGES
    assert queue.get_nowait() == str(100 - QUEUE_MESSAGES)
    assert [number for number, _ in feed.since(98)] == [99, 100]
    feed.leave(queue)
    assert len(feed) == 0


def test_the_weather_stays_believable() -> None:
    greenhouse = Greenhouse(Random(1))
    for vent in (0, 100, 150, -5):
        assert 0 <= greenhouse.set_vent(vent) <= 100
        for _ in range(int(2 * DAY_S)):
            reading = greenhouse.step(1.0)
            assert -5 < reading.temperature < 60
            assert 0 <= reading.humidity <= 100
            assert remark(reading)


async def test_the_command_writes_its_port_and_stops_when_told(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "demo_device", "--data", str(tmp_path), "--port-file", str(port_file),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        async with asyncio.timeout(10):
            line = json.loads(await process.stderr.readline())
        assert int(port_file.read_text()) == line["port"]
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
