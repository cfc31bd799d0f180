"""A tunnel server that was taken over: the simulator, with sanitizers, does not crash, hang or grow."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest

from tests.firmware.attacked import Simulator, answered, attacked, data_of, greeted, served
from tests.hostile.raw_server import RawPeer, RawServer, open_frame
from tests.hostile.raw_tunnel import (
    DATA,
    FIN,
    GRANT,
    HELLO,
    OPENED,
    REFUSED,
    RESET,
    REVOKE,
    WAIT_S,
    credit,
    field,
    frame,
    number,
)
from tests.hostile.scene import Bounds
from tests.hostile.test_live_fuzz import server_message
from tests.hostile.test_server_breaks_rules import DEVICE as VECTORS_DEVICE
from tests.hostile.test_server_breaks_rules import GRANT as VECTORS_GRANT
from tests.hostile.test_server_breaks_rules import broken, device_vectors
from tests.tunnel_agent.authority import KEY, OTHER_KEY, GrantKey, claims, grant_id, token

OVERFLOW: Final = 8
GRANT_INVALID, GRANT_REVOKED, TOO_MANY_STREAMS = 2, 4, 8
KEY_LIST: Final = 10  # the field of HELLO
STREAMS: Final = 4
MAX_MESSAGE: Final = 2048
PROTOCOL_ERROR: Final = 4001
STREAM_WINDOW: Final = 4096
# The core asks for memory once. What is left is libwebsockets' and the sanitizers' own.
GROWTH_MB: Final = 2.0
LINES: Final = 60
HEAD_S: Final = 10.0  # TL_HEAD_TIMEOUT_MS
SAVED_S: Final = 20.0  # revocations of grants that it never saw are written each 10 s
GROWS_S: Final = 3.0
EVERY: Final = 9  # all of the vectors go through the mux in its unit; live a share of them
CONVERSATIONS: Final = 5


@pytest.fixture
def program(asan: Path) -> Path:
    return asan / "port" / "towline-device"


async def bounded(simulator: Simulator, bounds: Bounds) -> None:
    assert simulator.process.poll() is None, simulator.log.read_text()[-4000:]
    await bounds.check(mb=GROWTH_MB, lines=LINES)


async def warmed(server: RawServer) -> tuple[RawPeer, bytes]:
    """A device that has served once: whatever the first use makes is there. Streams from 3 on are free."""
    peer = await greeted(server)
    grant = await peer.grant()
    await served(peer, 1, grant)
    peer.heard.clear()
    return peer, grant


async def begun(peer: RawPeer, stream: int, answer: bytes) -> None:
    await peer.until(lambda: data_of(peer, stream).startswith(answer))


async def ended(peer: RawPeer, stream: int) -> None:
    await peer.until(lambda: stream in [one for one, _ in peer.of(FIN)])


async def test_the_bad_frames_of_the_vectors_live(program: Path, tmp_path: Path) -> None:
    body = claims(time.time(), aud=VECTORS_DEVICE, jti=str(UUID(bytes=VECTORS_GRANT)))
    grant = frame(GRANT, VECTORS_GRANT + token(body))
    # It signs at once, so that nothing can come meanwhile.
    short = [
        one for one in device_vectors() if len(one["hex"]) <= 2 * MAX_MESSAGE and one["state"] != "signing"
    ]
    cases = short[::EVERY] + list({case["state"]: case for case in short}.values())
    assert len(cases) > 8
    async with attacked(program, tmp_path, device=VECTORS_DEVICE) as (simulator, server, _):
        for case in cases:
            try:
                await broken(await server.peer(WAIT_S), case, grant)
            except (AssertionError, TimeoutError) as fault:
                raise AssertionError(case["name"]) from fault
            simulator.again()  # else it waits longer each time
        peer = await greeted(server)
        await peer.send(grant)
        await served(peer, 1, VECTORS_GRANT, VECTORS_DEVICE)
        await peer.send(frame(DATA, bytes(MAX_MESSAGE), 1))  # with its header it has no room in a device
        await peer.until(peer.ended.is_set)
        assert peer.status == PROTOCOL_ERROR


async def test_a_flood_of_grants_and_revocations_is_bounded(program: Path, tmp_path: Path) -> None:
    async with attacked(program, tmp_path) as (simulator, server, _):
        peer, _ = await warmed(server)
        bounds = Bounds(simulator)
        for n in range(1, 500):
            assert await peer.send(frame(GRANT, n.to_bytes(16) + b"x" * 1_500))
        body = claims(time.time())
        for _ in range(100):
            assert await peer.send(frame(GRANT, grant_id(body) + token(body)))
        await peer.settled()
        for n in range(0, 10_000, 80):
            if not await peer.send(*(frame(REVOKE, (n + k).to_bytes(16)) for k in range(80))):
                break
        await peer.until(peer.ended.is_set)
        assert peer.goaway_code == OVERFLOW
        await bounded(simulator, bounds)
        simulator.again()
        await warmed(server)


async def test_opens_end_at_max_streams_and_give_their_places_back(program: Path, tmp_path: Path) -> None:
    async with attacked(program, tmp_path) as (simulator, server, _):
        peer, grant = await warmed(server)
        bounds = Bounds(simulator)
        for start in range(3, 603, 60):
            for stream in range(start, start + 60, 2):
                upload = (
                    b"POST /api/firmware HTTP/1.1\r\nHost: d\r\nX-Towline: 1\r\nContent-Length: 9999\r\n\r\nx"
                )
                piece = upload[: 10 + stream % 90]  # half a head, or half a body
                await peer.send(open_frame(stream, grant), frame(DATA, piece, stream))
            await peer.settled()
            opened = [stream for stream, _ in peer.of(OPENED)]
            codes = {int.from_bytes(payload[:2]) for _, payload in peer.of(REFUSED)}
            assert (len(opened), codes) == (STREAMS, {TOO_MANY_STREAMS})
            await peer.send(*(frame(RESET, (1).to_bytes(2), stream) for stream in opened))
            peer.heard.clear()
        await served(peer, 603, grant)
        await bounded(simulator, bounds)


async def test_requests_that_are_none(program: Path, tmp_path: Path) -> None:
    host = b" HTTP/1.1\r\nHost: d\r\n"
    cases = {
        b"\x16\x03\x01\x02": b"400",
        b"GET /": b"",  # its FIN is behind it
        b"GET / HTTP/1.0\r\n\r\n": b"505",
        b"GET /" + host + b"Cookie: " + b"c" * 1_900: b"431",
        b"POST /api/settings" + host + b"X-Towline: 1\r\nContent-Length: 5000\r\n\r\n" + b"x" * 1_000: b"413",
        b"POST /api/settings"
        + host
        + b"X-Towline: 1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n": b"400",
        b"POST /api/reset" + host + b"\r\n": b"403",
        b"GET /" + host + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n": b"400",
        b"GET /../../etc/passwd" + host + b"\r\n": b"404",
        b"PUT /" + host + b"X-Towline: 1\r\n\r\n": b"405",
    }
    async with attacked(program, tmp_path) as (simulator, server, _):
        peer, grant = await warmed(server)
        bounds = Bounds(simulator)
        for stream, (request, status) in enumerate(cases.items(), 1):
            await peer.send(open_frame(2 * stream + 1, grant), frame(DATA, request, 2 * stream + 1))
            await peer.send(frame(FIN, stream=2 * stream + 1))
            await ended(peer, 2 * stream + 1)
            answer = data_of(peer, 2 * stream + 1)
            assert answer[9:12] == status, (request, answer)
            assert answer.count(b"HTTP/1.1 ") <= 1
        await served(peer, 2 * len(cases) + 3, grant)
        await bounded(simulator, bounds)


async def test_a_server_that_gives_no_credit_or_crumbs(program: Path, tmp_path: Path) -> None:
    async with attacked(program, tmp_path) as (simulator, server, _):
        await warmed(server)
        simulator.again()
        peer = await greeted(server, number(3, 1), number(4, 1))
        grant = await peer.grant()
        bounds = Bounds(simulator)
        request = b"GET / HTTP/1.1\r\nHost: d\r\n\r\n"
        for stream in range(1, 2 * STREAMS, 2):
            await peer.send(open_frame(stream, grant), frame(DATA, request, stream))
        for offset in range(1, 500):
            await peer.send(credit(0, offset), *(credit(s, offset) for s in range(1, 2 * STREAMS, 2)))
        await peer.settled()
        assert peer.data_bytes == 0  # no head goes in crumbs
        await bounded(simulator, bounds)
        await peer.send(credit(0, 1 << 40), *(credit(s, 1 << 40) for s in range(1, 2 * STREAMS, 2)))
        for stream in range(1, 2 * STREAMS, 2):
            await begun(peer, stream, b"HTTP/1.1 200 ")


async def test_a_server_that_does_not_read(program: Path, tmp_path: Path) -> None:
    """What waits is nowhere but in the one link buffer: answers are made when there is room."""
    async with attacked(program, tmp_path) as (simulator, server, _):
        await warmed(server)
        simulator.again()
        peer = await greeted(server, number(3, 1 << 30), number(4, 1 << 31))
        grant = await peer.grant()
        await served(peer, 1, grant)
        await peer.send(open_frame(3, grant))
        await peer.until_heard(OPENED, 2)
        bounds = Bounds(simulator)
        request = b"GET / HTTP/1.1\r\nHost: d\r\n\r\n"
        asked = STREAM_WINDOW // len(request)
        peer.reads.clear()
        try:
            for _ in range(asked):
                await peer.send(frame(DATA, request, 3))
            await asyncio.to_thread(settle_rss, simulator)
            await bounded(simulator, bounds)
        finally:
            peer.reads.set()
        await peer.until(lambda: data_of(peer, 3).count(b"HTTP/1.1 200 ") == asked)


def settle_rss(simulator: Simulator) -> None:
    """Until its memory has been the same for a while, or long enough to see that it grows."""
    looks = [0]
    until = time.monotonic() + GROWS_S
    while looks[-5:] != [simulator.rss] * 5 and time.monotonic() < until:
        looks.append(simulator.rss)
        time.sleep(0.05)


async def test_a_server_that_is_slow_in_everything(program: Path, tmp_path: Path) -> None:
    """And at its end refuses a grant that was revoked before it ever came, whatever happens in between."""
    body = claims(time.time())
    async with attacked(program, tmp_path) as (simulator, server, _):
        peer, grant = await warmed(server)
        await peer.send(frame(REVOKE, grant_id(body)))
        await peer.send(open_frame(3, grant), open_frame(5, grant))
        await peer.send(frame(DATA, b"GET / HT", 3))
        started = time.monotonic()
        for byte in b"GET /nothing HTTP/1.1\r\nHost: d\r\n\r\n":
            await peer.send(frame(DATA, bytes([byte]), 5))
        await begun(peer, 5, b"HTTP/1.1 404 ")
        await peer.until(lambda: bool(data_of(peer, 3)), HEAD_S + WAIT_S)
        assert data_of(peer, 3).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started > HEAD_S - 1
        await ended(peer, 3)
        assert (await answered(peer, 5)).startswith(b"HTTP/1.1 200 ")
        await until_kept(simulator, grant_id(body))
        simulator.again()
        await refused(server, body)


async def test_random_frames(program: Path, tmp_path: Path, seed: int) -> None:
    draw, body = random.Random(seed), claims(time.time())
    async with attacked(program, tmp_path) as (simulator, server, _):
        await warmed(server)
        for _ in range(CONVERSATIONS):
            simulator.again()
            peer = await greeted(server)
            bounds = Bounds(simulator)
            ids = [1]
            await peer.send(frame(GRANT, grant_id(body) + token(body)), open_frame(1, grant_id(body)))
            for _ in range(30):
                message = server_message(draw, ids, grant_id(body))
                if not await peer.send(message[:2048] if draw.random() < 0.95 else message):
                    break
                if draw.random() < 0.3 and not await settled(peer):
                    break
            bounds.stop()
            assert bounds.growth_mb <= GROWTH_MB
            assert simulator.process.poll() is None, simulator.log.read_text()[-4000:]


async def settled(peer: RawPeer) -> bool:
    """False: the device has left."""
    try:
        await peer.settled()
    except AssertionError:
        return False
    return True


# What was known before a kill


def kept(simulator: Simulator, what: bytes) -> bool:
    return any(what in path.read_bytes() for path in simulator.data.rglob("*") if path.is_file())


async def until_kept(simulator: Simulator, what: bytes) -> None:
    """Until a file of the device holds it."""
    async with asyncio.timeout(SAVED_S):
        while not kept(simulator, what):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def refused(server: RawServer, body: dict[str, object]) -> None:
    """The grant opens nothing on the next connection; another one does."""
    peer = await greeted(server)
    await peer.send(frame(GRANT, grant_id(body) + token(body)), open_frame(1, grant_id(body)))
    _, refused = (await peer.until_heard(REFUSED))[0]
    assert int.from_bytes(refused[:2]) == GRANT_REVOKED
    await served(peer, 3, await peer.grant())


async def test_a_killed_device_refuses_what_was_revoked(program: Path, tmp_path: Path) -> None:
    body = claims(time.time())
    async with attacked(program, tmp_path) as (simulator, server, _):
        peer, _ = await warmed(server)
        await peer.send(frame(GRANT, grant_id(body) + token(body)), open_frame(3, grant_id(body)))
        await peer.until_heard(OPENED)
        await peer.send(frame(REVOKE, grant_id(body)))
        await until_kept(simulator, grant_id(body))
        simulator.again()
        await refused(server, body)


async def opens(peer: RawPeer, key: GrantKey, stream: int) -> bool:
    """Whether a grant by this key opens anything."""
    body = claims(time.time())
    known = len(peer.of(OPENED)) + len(peer.of(REFUSED))
    await peer.send(frame(GRANT, grant_id(body) + token(body, key)), open_frame(stream, grant_id(body)))
    await peer.until(lambda: len(peer.of(OPENED)) + len(peer.of(REFUSED)) > known)
    refused = {one: int.from_bytes(payload[:2]) for one, payload in peer.of(REFUSED)}
    assert refused.get(stream, GRANT_INVALID) == GRANT_INVALID
    return stream not in refused


async def test_only_a_newer_list_of_the_pinned_root_counts(program: Path, tmp_path: Path) -> None:
    async with attacked(program, tmp_path) as (simulator, server, gateway):
        lists = gateway.authority.key_list_text

        async def shown(text: bytes) -> RawPeer:
            peer = await server.peer(WAIT_S)
            await peer.greet(frame(HELLO, field(KEY_LIST, text)))
            await peer.settled()
            return peer

        peer = await shown(lists(7, [OTHER_KEY.jwk()]))
        assert await opens(peer, OTHER_KEY, 1)
        assert not await opens(peer, KEY, 3)
        foreign = type(gateway.authority)(time.time()).key_list_text(9, [KEY.jwk()])
        for text in (lists(6, [KEY.jwk()]), foreign, b"x" * 900):
            simulator.again()
            peer = await shown(text)
            assert not await opens(peer, KEY, 1)
            assert await opens(peer, OTHER_KEY, 3)
