"""Many devices in one process, each with some idle tunnels: the load of the memory and handshake figures.

Started by `loadtests.idle_tunnels`; reads `{"devices": [{"id", "key"}], "url", "server_ca", "tunnels"}` from
standard input, dials so many times for each device, prints `ready N SECONDS`, and stays until its end.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from secrets import token_bytes
from typing import Any

from loadtests.seeding import SeededDevice
from runtime.process import loop_factory
from runtime.tunnel_link import Ticker, TunnelDriver, dial
from tunnel_agent.device_key import DeviceKey
from tunnel_protocol import (
    ChallengeReceived,
    ConnectionLost,
    Event,
    Hello,
    Limits,
    PeerReady,
    Service,
    Side,
    auth_transcript,
)

DIALS_AT_ONCE = 16
CALL_TIMEOUT_S = 20.0
KEEPALIVE_MS = 60_000  # idle is idle: no PINGs while memory is read


class IdleDevice(TunnelDriver):
    """A device that authenticates and then does nothing."""

    def __init__(self, ticker: Ticker, device: str, key: DeviceKey, instance: bytes) -> None:
        hello = Hello(software="bench", services=(Service("web"),))
        super().__init__(Side.DEVICE, Limits(keepalive_ms=KEEPALIVE_MS), ticker, hello)
        self._device = device
        self._key = key
        self._instance = instance
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_event(self, event: Event) -> None:
        match event:
            case ChallengeReceived():
                text = auth_transcript(event.nonce, event.server_name, self._device, self._instance)
                self.connection.authenticate(
                    self._device, self._instance, self._key.key_id, self._key.sign(text)
                )
            case PeerReady():
                self.ready.set_result(None)
            case ConnectionLost():
                if not self.ready.done():
                    self.ready.set_exception(RuntimeError(f"tunnel lost: {event.code} {event.reason}"))
                else:
                    print(f"lost {event.code} {event.reason}", flush=True)


async def _device(
    device: SeededDevice, order: dict[str, Any], context: ssl.SSLContext, slots: asyncio.Semaphore
) -> list[IdleDevice]:
    instance, ticker, opened = token_bytes(16), Ticker(), []
    for _ in range(order["tunnels"]):
        async with slots:
            one = IdleDevice(ticker, device.id, device.key, instance)
            most = Limits().max_message
            await dial(order["url"], one, ssl=context, max_message=most, timeout_s=CALL_TIMEOUT_S)
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await one.ready
            opened.append(one)
    return opened


async def main() -> None:
    order = json.loads(await asyncio.to_thread(sys.stdin.readline))
    slots = asyncio.Semaphore(DIALS_AT_ONCE)
    context = ssl.create_default_context(cadata=order["server_ca"])
    devices = [SeededDevice.from_json(one) for one in order["devices"]]
    started = time.monotonic()
    opened = await asyncio.gather(*(_device(one, order, context, slots) for one in devices))
    print(f"ready {sum(map(len, opened))} {time.monotonic() - started:.3f}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
