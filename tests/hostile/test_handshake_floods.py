"""Those who never finish a handshake: they hold no place that others need, and no memory to speak of."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.hostile.raw_tunnel import CHALLENGE, HELLO, Ended, RawTunnel, auth_frame, hello, websocket_frame
from tests.hostile.scene import HONEST, HOSTILE, Bounds, NodeProcess, Scene, staged
from tests.tunnel_server.doubles import DeviceKey

TRY_LATER = 11
A_MINUTE = 60  # tunnels of one device: the default of connects_per_device
AT_ONCE, OF_ONE, MAY_WAIT = 40, 8, 12
READY = "towline_tunnel_handshakes_total"
HANDSHAKE_S = 2.0  # as node_process says
SLACK_S = 2.0  # a coarse ticker and a loaded machine
# 40 sockets with a TLS state of some 40 KiB each, and the allocator's own.
FLOOD_MB = 10.0
FAT_MB = 14.0  # besides, what strangers may make a node buffer: a message of 256 KiB for each of 8 places


@pytest.fixture(scope="module")
def small_node() -> Iterator[NodeProcess]:
    """A node of few places, so that a flood is a small one."""
    folder = Path(tempfile.mkdtemp(prefix="towline-door-"))
    node = NodeProcess(
        folder, handshakes=AT_ONCE, handshakes_per_address=OF_ONE, waiting_per_address=MAY_WAIT
    )
    yield node
    node.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def scene(small_node: NodeProcess, keys: dict[str, DeviceKey]) -> AsyncIterator[Scene]:
    for device, key in keys.items():
        await small_node.call("add_device", device=device, public_key=key.public.hex())
    async with staged(small_node, keys) as scene:
        yield scene


async def silent(scene: Scene, address: str, count: int) -> list[asyncio.StreamWriter]:
    """TCP connections from this loopback address that say nothing."""
    found = []
    for _ in range(count):
        _, writer = await asyncio.open_connection(
            "127.0.0.1", scene.node.ports["tunnels"], local_addr=(address, 0)
        )
        found.append(writer)
    scene.sockets += found
    return found


async def test_one_address_that_says_nothing_keeps_nobody_else_out(scene: Scene) -> None:
    bounds = Bounds(scene.node)
    flood = await silent(scene, "127.0.0.9", 40)
    name = "towline_device_connections_refused_total"
    await scene.node.until_metric(name, 40 - OF_ONE - MAY_WAIT, why="too_many_wait")
    assert await scene.node.metric("towline_device_handshakes") == OF_ONE
    assert await scene.node.metric("towline_device_handshakes_waiting") == MAY_WAIT
    started = time.monotonic()
    await scene.tunnel()
    assert time.monotonic() - started < SLACK_S
    for writer in flood:
        writer.transport.abort()
    await scene.node.until_metric("towline_device_handshakes", 0)
    await scene.over(bounds, mb=FLOOD_MB, lines=4)


async def test_an_addresss_own_devices_come_in_when_their_turn_is(scene: Scene) -> None:
    """More at once than there are places for one address: nobody is sent away."""
    before = await scene.node.metric(READY, outcome="ready")
    tunnels = []

    async def come() -> None:
        tunnel = await scene.connect()
        tunnels.append(tunnel)
        await tunnel.say_hello(scene.key, HOSTILE, instance=b"one-instance----")

    await asyncio.gather(*(come() for _ in range(OF_ONE + MAY_WAIT)))
    await scene.node.until_metric(READY, before + OF_ONE + MAY_WAIT, outcome="ready")
    assert await scene.node.metric("towline_device_handshakes") == 0


async def test_an_auth_that_comes_byte_by_byte_is_cut_in_time(scene: Scene) -> None:
    bounds = Bounds(scene.node)
    started = time.monotonic()  # before the node's own clock for it
    tunnel = await scene.connect()
    _, challenge = (await tunnel.until_heard(CHALLENGE))[0]
    for byte in websocket_frame(scene.auth(challenge)):
        if tunnel.ended.is_set():
            break
        tunnel.write(bytes((byte,)))
        await asyncio.wait([asyncio.ensure_future(tunnel.ended.wait())], timeout=0.1)
    assert tunnel.goaway_code == 2
    assert HANDSHAKE_S <= time.monotonic() - started < HANDSHAKE_S + SLACK_S
    await scene.over(bounds, mb=FLOOD_MB, lines=2)


async def test_a_device_that_never_answers_hello_is_cut_in_time(scene: Scene) -> None:
    tunnel = await scene.connect()
    _, challenge = (await tunnel.until_heard(CHALLENGE))[0]
    await tunnel.send(scene.auth(challenge))
    await tunnel.until_heard(HELLO)
    await tunnel.until_ended(HANDSHAKE_S + SLACK_S)
    assert tunnel.goaway_code == 2


async def test_fat_first_messages_cost_no_more_than_the_places(scene: Scene) -> None:
    """All but the last byte of the largest message, from everyone who may be inside: then all of it."""
    bounds = Bounds(scene.node)
    tunnels = [await scene.connect() for _ in range(OF_ONE)]
    message = websocket_frame(bytes(1 << 18))
    for tunnel in tunnels:
        await tunnel.send_raw(message[:-1])
    await scene.honest.more(3)
    for tunnel in tunnels:
        await tunnel.send_raw(message[-1:])
        await tunnel.until_ended()
        assert tunnel.goaway_code == 1
    await scene.over(bounds, mb=FAT_MB, lines=OF_ONE + 2)


async def test_a_flood_of_strangers_fills_no_log(scene: Scene) -> None:
    bounds = Bounds(scene.node)
    strange = DeviceKey()
    for _ in range(120):
        tunnel = await scene.connect()
        _, challenge = (await tunnel.until_heard(CHALLENGE))[0]
        await tunnel.send(auth_frame(strange, HOSTILE, challenge))
        await tunnel.until_ended()
        assert tunnel.goaway_code == 3
        await tunnel.close()
    await scene.over(bounds, mb=FLOOD_MB, lines=70)


async def test_a_device_that_comes_and_goes_is_told_to_come_later(scene: Scene) -> None:
    """A hundred times: each costs the gateway a question, and the owner a change of presence."""
    churning = "d_churning000000"
    await scene.node.call("add_device", device=churning, public_key=scene.key.public.hex())
    bounds = Bounds(scene.node)
    codes = []
    began = time.monotonic()
    for _ in range(100):
        tunnel = await scene.connect()
        _, challenge = (await tunnel.until_heard(CHALLENGE))[0]
        await tunnel.send(auth_frame(scene.key, churning, challenge))
        with contextlib.suppress(Ended):
            await tunnel.until_heard(HELLO)
            await tunnel.send(hello())
        codes.append(tunnel.goaway_code)
        await tunnel.close()
    allowed = int(A_MINUTE + (time.monotonic() - began) * A_MINUTE / 60 + 1)
    assert codes[-1] == TRY_LATER
    assert codes.count(None) <= allowed
    await scene.over(bounds, mb=FLOOD_MB, lines=2 * allowed + 70)


async def test_garbage_before_tls_and_before_the_upgrade_ends_quietly(scene: Scene) -> None:
    bounds = Bounds(scene.node)
    for data in (b"GET / HTTP/1.1\r\n\r\n", bytes(4096), b"\x16\x03\x01" + b"\xff" * 600):
        reader, writer = await scene.plain()
        writer.write(data)
        async with asyncio.timeout(5):
            while await reader_ends(reader):
                pass
        writer.transport.abort()
    for request in (b"\r\n\r\n", b"GET /tunnel HTTP/1.1\r\nHost: x\r\n\r\n", b"x" * 70_000):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", scene.node.ports["tunnels"], ssl=scene.node.context, server_hostname="127.0.0.1"
        )
        scene.sockets.append(writer)
        writer.write(request)
        async with asyncio.timeout(8):
            while await reader_ends(reader):
                pass
        writer.transport.abort()
    with pytest.raises(Ended, match="404"):
        await elsewhere(scene)
    await scene.over(bounds, mb=FLOOD_MB, lines=4)


async def reader_ends(reader: asyncio.StreamReader) -> bytes:
    """What came; nothing once the connection has ended, however it did."""
    try:
        return await reader.read(65_536)
    except (ConnectionError, ssl.SSLError):
        return b""


async def elsewhere(scene: Scene) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", scene.node.ports["tunnels"], ssl=scene.node.context, server_hostname="127.0.0.1"
    )
    scene.sockets.append(writer)
    await RawTunnel(reader, writer).upgrade(path="/elsewhere")


async def test_a_recorded_auth_is_worth_nothing_on_another_connection(scene: Scene) -> None:
    first, second = await scene.connect(), await scene.connect()
    _, challenge = (await first.until_heard(CHALLENGE))[0]
    recorded = scene.auth(challenge)
    await second.until_heard(CHALLENGE)
    await second.send(recorded)
    await second.until_ended()
    assert second.goaway_code == 3
    await first.send(recorded)
    await first.until_heard(HELLO)


@pytest.mark.parametrize("name", [b"evil.example", b"127.0.0.2", b""])
async def test_an_auth_for_another_servers_name_is_refused(scene: Scene, name: bytes) -> None:
    tunnel = await scene.connect()
    _, challenge = (await tunnel.until_heard(CHALLENGE))[0]
    await tunnel.send(scene.auth(challenge, server_name=name))
    await tunnel.until_ended()
    assert tunnel.goaway_code == 3


async def test_the_key_of_another_device_opens_nothing(scene: Scene) -> None:
    tunnel = await scene.connect()
    _, challenge = (await tunnel.until_heard(CHALLENGE))[0]
    await tunnel.send(auth_frame(scene.key, HONEST, challenge))
    await tunnel.until_ended()
    assert tunnel.goaway_code == 3
