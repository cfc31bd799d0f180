"""A cloned device, and a revoked one, live: through the real gateway, server and agent."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from runtime.tunnel_link import dial
from testbed.people import CALL_TIMEOUT_S, Visitor
from testbed.up import Stack
from testbed.waiting import eventually
from tests.tunnel_server.doubles import DeviceKey, TestDevice
from tunnel_agent.gateway_client import trust
from tunnel_agent.identity import IdentityStore
from tunnel_protocol import CloseCode

Visit = Callable[[dict[str, Any]], Visitor]
Record = Callable[[str, object], None]

CUT_S = 2.0  # the bound, from the owner's call to the last byte
CLONES = 5  # replacements within ten minutes; more than three are an alarm
REPLACEMENTS = "SELECT count(*) FROM revocations WHERE kind = 'replaced'"
ALARMS = "SELECT count(*) FROM audit_events WHERE kind = 'device.flapping'"


def agent_config(stack: Stack) -> dict[str, Any]:
    return tomllib.loads((stack.data / "config" / "agent.toml").read_text())


class StolenKey(DeviceKey):
    """The demo device's own key, as whoever read its disk has it."""

    def __init__(self, stack: Stack) -> None:
        self.identity = IdentityStore(Path(agent_config(stack)["state_dir"])).load()
        self.key_id = self.identity.key.key_id
        self.public = self.identity.key.public_der

    def sign(self, data: bytes) -> bytes:
        return self.identity.key.sign(data)


async def impersonate(stack: Stack, key: StolenKey) -> TestDevice:
    """Another instance of the device, on its way in."""
    device = TestDevice(key, ("127.0.0.1", 9), device_id=key.identity.device_id)
    (url,) = agent_config(stack)["server_urls"]
    context = trust(key.identity.server_ca) if url.startswith("wss:") else None
    await dial(url, device, ssl=context, max_message=1 << 20, timeout_s=CALL_TIMEOUT_S)
    return device


def database_url(stack: Stack) -> str:
    config = tomllib.loads((stack.data / "config" / "gateway.toml").read_text())
    return Path(config["database_url_file"]).read_text().strip()


async def counted(stack: Stack, query: str) -> int:
    connection = await asyncpg.connect(database_url(stack))
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()


async def until_counted(stack: Stack, query: str, count: int) -> None:
    async with asyncio.timeout(CALL_TIMEOUT_S):
        while await counted(stack, query) < count:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


async def clones(stack: Stack) -> list[CloseCode | None]:
    """Each connects while the one before it is there; how each of the earlier ones ended."""
    key = StolenKey(stack)
    devices: list[TestDevice] = []
    endings = []
    try:
        for number in range(1, CLONES + 1):
            devices.append(await (await impersonate(stack, key)).wait_ready())
            await until_counted(stack, REPLACEMENTS, number)
        for device in devices[:-1]:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                endings.append((await device.ended).code)
        await until_counted(stack, ALARMS, 1)
        assert await counted(stack, ALARMS) == 1
    finally:
        for device in devices:
            await device.close()
    return endings


@pytest.fixture(scope="module")
def apart(folder: Path) -> Iterator[Stack]:
    """A `towline up` whose device may be cloned and revoked."""
    stack = Stack(folder / "apart")
    try:
        stack.start()
        yield stack
    finally:
        stack.close()


def test_the_newest_clone_wins_and_the_owner_is_told(apart: Stack) -> None:
    person = apart.newcomer()
    assert person.device()["online"]
    assert asyncio.run(clones(apart)) == [CloseCode.REPLACED] * (CLONES - 1)
    person.close()


class Download:
    """A visitor who reads on until the end, whatever that is."""

    def __init__(self, visitor: Visitor) -> None:
        self.started = threading.Event()
        self.ended_at = 0.0
        self.complete = False
        self._visitor = visitor
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            with self._visitor.http.stream("GET", "/download/100MB.bin") as answer:
                for _ in answer.iter_raw(1 << 14):
                    self.started.set()
                    time.sleep(0.01)  # slower than the tunnel: 100 MB would take a minute
            self.complete = True
        except httpx.HTTPError:
            pass
        self.ended_at = time.monotonic()


class Upload:
    """A visitor who uploads a body without an end."""

    def __init__(self, visitor: Visitor) -> None:
        self.started = threading.Event()
        self.ended_at = 0.0
        self._raw = socket.create_connection(("127.0.0.1", visitor.http.base_url.port), CALL_TIMEOUT_S)
        self._raw.sendall(
            b"POST /api/uploads?name=endless.bin HTTP/1.1\r\n"
            + f"Host: {visitor.http.headers['Host']}\r\nCookie: {visitor.cookie}\r\n".encode()
            + f"Origin: {visitor.origin}\r\nContent-Length: 100000000\r\n\r\n".encode()
        )
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            while True:
                self._raw.sendall(bytes(1 << 14))
                self.started.set()
                time.sleep(0.01)
        except OSError:
            self.ended_at = time.monotonic()
        finally:
            self._raw.close()


class Chart:
    """A live WebSocket."""

    def __init__(self, visitor: Visitor) -> None:
        self.started = threading.Event()
        self.ended_at = 0.0
        self._visitor = visitor
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            with self._visitor.websocket("/api/live") as socket_:
                while True:
                    socket_.recv(timeout=CALL_TIMEOUT_S)
                    self.started.set()
        except (ConnectionClosed, OSError):
            self.ended_at = time.monotonic()


def test_a_revoked_device_is_cut_off_in_the_middle_of_everything(
    apart: Stack, visit: Visit, record_property: Record
) -> None:
    person = apart.newcomer()
    restart_agent(apart)
    eventually("the device online", lambda: person.device()["online"])
    device = person.device()["id"]
    visitors = [visit(person.open_session(device)) for _ in range(3)]
    eventually("the page", lambda: visitors[0].http.get("/").status_code == 200)
    download = Download(visitors[0])
    live: list[Download | Upload | Chart] = [download, Upload(visitors[1]), Chart(visitors[2])]
    for one in live:
        assert one.started.wait(CALL_TIMEOUT_S), type(one).__name__
    asked_at = time.monotonic()
    answer = person.http.post(f"/v1/devices/{device}/revoke")
    assert answer.status_code == 200, answer.text
    for one in live:
        one.thread.join(CALL_TIMEOUT_S)
        took = one.ended_at - asked_at
        record_property(f"{type(one).__name__}_s", took)
        assert 0 < took <= CUT_S, type(one).__name__
    assert not download.complete, "a cut body looked complete"
    assert visitors[0].http.get("/").status_code in (401, 403, 410)
    impostor = asyncio.run(comes_back(apart))
    assert impostor is CloseCode.REVOKED
    person.close()


async def comes_back(stack: Stack) -> CloseCode | None:
    """How a tunnel with the revoked device's key ends."""
    device = await impersonate(stack, StolenKey(stack))
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return (await device.ended).code
    finally:
        await device.close()


def restart_agent(stack: Stack) -> None:
    """The clones have replaced it, and it keeps quiet for half a minute; a new start is a new instance."""
    stack.kill_process("agent")
