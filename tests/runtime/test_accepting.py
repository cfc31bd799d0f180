from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import pytest
import uvloop

from runtime.accepting import AcceptingSocket
from runtime.client_address import TrustedProxies

WAIT_S = 10.0


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def listening(served: asyncio.Queue[str]) -> tuple[AcceptingSocket, int]:
    async def serve(connection: socket.socket, client: str) -> None:
        connection.close()
        served.put_nowait(client)

    accepting = AcceptingSocket(serve, name="test", proxies=TrustedProxies(["127.0.0.0/8"]))
    await accepting.start("127.0.0.1", 0, backlog=8)
    return accepting, int(accepting.sockets[0].getsockname()[1])


async def pending(accepting: AcceptingSocket) -> None:
    """Until a connection was accepted and waits for its header."""
    async with asyncio.timeout(WAIT_S):
        while not len(accepting._tasks):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)


async def test_who_came_before_the_stop_is_still_handed_over() -> None:
    served: asyncio.Queue[str] = asyncio.Queue()
    accepting, port = await listening(served)
    _, writer = await connected(port)
    writer.write(b"PROXY TCP4 192.0.2.1 ")
    await pending(accepting)
    accepting.stop()
    writer.write(b"127.0.0.1 1 2\r\n")
    async with asyncio.timeout(WAIT_S):
        await accepting.wait_handed_over()
        assert await served.get() == "192.0.2.1"
    accepting.close()
    await accepting.wait_closed()
    writer.close()


async def test_a_close_ends_who_is_not_handed_over() -> None:
    served: asyncio.Queue[str] = asyncio.Queue()
    accepting, port = await listening(served)
    reader, writer = await connected(port)
    writer.write(b"PROXY TCP4 ")
    await pending(accepting)
    accepting.close()
    await accepting.wait_closed()
    async with asyncio.timeout(WAIT_S):
        with contextlib.suppress(ConnectionResetError):  # its bytes were never taken
            assert await reader.read() == b""
    assert served.empty()
    writer.close()


async def is_sent_at_once() -> bool:
    """Whether a connection that a transport takes over holds nothing back for the peer's acknowledgement."""
    found: asyncio.Queue[int] = asyncio.Queue()

    async def serve(connection: socket.socket, client: str) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, connection)
        served = transport.get_extra_info("socket")
        found.put_nowait(served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        transport.close()

    accepting = AcceptingSocket(serve, name="test")
    await accepting.start("127.0.0.1", 0, backlog=8)
    _, writer = await connected(int(accepting.sockets[0].getsockname()[1]))
    async with asyncio.timeout(WAIT_S):
        no_delay = await found.get()
    writer.close()
    accepting.close()
    await accepting.wait_closed()
    return bool(no_delay)


@pytest.mark.parametrize("new_loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_first_bytes(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(is_sent_at_once())
