"""Many devices in one process, each with one idle tunnel: the load of the memory figure.

Started by `loadtests.idle_tunnels`; reads `{"gateway": …, "tokens": […]}` from standard input, enrols one
device a token, dials, prints `ready N`, and stays until standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import urllib.request
from secrets import token_bytes
from typing import Any

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


def _call(method: str, url: str, body: dict[str, Any] | None, bearer: str | None = None) -> Any:
    headers = {"Content-Type": "application/json"}
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=CALL_TIMEOUT_S) as answer:
        return json.loads(answer.read())


class IdleDevice(TunnelDriver):
    """A device that authenticates and then does nothing."""

    def __init__(self, ticker: Ticker, device: str, key: DeviceKey) -> None:
        hello = Hello(software="bench", services=(Service("web"),))
        super().__init__(Side.DEVICE, Limits(keepalive_ms=KEEPALIVE_MS), ticker, hello)
        self._device = device
        self._key = key
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_event(self, event: Event) -> None:
        match event:
            case ChallengeReceived():
                instance = token_bytes(16)
                text = auth_transcript(event.nonce, event.server_name, self._device, instance)
                self.connection.authenticate(self._device, instance, self._key.key_id, self._key.sign(text))
            case PeerReady():
                self.ready.set_result(None)
            case ConnectionLost():
                if not self.ready.done():
                    self.ready.set_exception(RuntimeError(f"tunnel lost: {event.code} {event.reason}"))
                else:
                    print(f"lost {event.code} {event.reason}", flush=True)


async def _one(gateway: str, token: str, number: int, ticker: Ticker, slots: asyncio.Semaphore) -> IdleDevice:
    async with slots:
        key = DeviceKey.generate()
        body = {
            "token": token,
            "csr": key.signing_request(),
            "name": f"idle {number}",
            "hardware_id": f"idle-{number}-{token_bytes(4).hex()}",
            "software": "bench",
        }
        made = await asyncio.to_thread(_call, "POST", f"{gateway}/v1/enrolments", body)
        url = f"{gateway}/v1/enrolments/{made['enrolment_id']}"
        identity = await asyncio.to_thread(_call, "GET", url, None, made["poll_secret"])
        context = ssl.create_default_context(cadata=identity["server_ca"])
        device = IdleDevice(ticker, identity["device_id"], key)
        await dial(
            identity["tunnel_urls"][0],
            device,
            ssl=context,
            max_message=Limits().max_message,
            timeout_s=CALL_TIMEOUT_S,
        )
        async with asyncio.timeout(CALL_TIMEOUT_S):
            await device.ready
        return device


async def main() -> None:
    order = json.loads(await asyncio.to_thread(sys.stdin.readline))
    slots = asyncio.Semaphore(DIALS_AT_ONCE)
    ticker = Ticker()
    devices = await asyncio.gather(
        *(_one(order["gateway"], token, n, ticker, slots) for n, token in enumerate(order["tokens"]))
    )
    print(f"ready {len(devices)}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
