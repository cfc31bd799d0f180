"""A running demo device and a plain HTTP client for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo_device.app import DemoDevice
from runtime.addresses import Address

WAIT_S = 10.0


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection; `request` speaks HTTP/1.1 byte by byte, so that tests can also break it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self, head: str, body: bytes = b"") -> Answer:
        """`head`: request line and fields, one a line; Host and Content-Length are added."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        lines = "\r\n".join(head.strip().splitlines())
        self.writer.write(f"{lines}\r\nHost: demo.test\r\n{length}\r\n".encode() + body)
        return await self.answer(no_body=head.startswith("HEAD"))

    async def head(self) -> Answer:
        async with asyncio.timeout(WAIT_S):
            raw = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = raw.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return Answer(int(first.split()[1]), headers, b"")

    async def answer(self, *, no_body: bool = False) -> Answer:
        answer = await self.head()
        async with asyncio.timeout(WAIT_S):
            if not no_body and "content-length" in answer.headers:
                answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        return answer

    async def at_end(self) -> bool:
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read(1) == b""


class Demo:
    def __init__(self, device: DemoDevice, port: int) -> None:
        self.device = device
        self.port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return Client(reader, writer)

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        await self.device.close()


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[Demo]:
    device = DemoDevice(tmp_path)
    demo = Demo(device, await device.start(Address("127.0.0.1", 0)))
    yield demo
    await demo.close()


@pytest.fixture
async def client(demo: Demo) -> Client:
    return await demo.connect()
