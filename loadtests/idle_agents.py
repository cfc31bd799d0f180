"""Many devices in one process, each with some idle tunnels: the load of the memory figure.

Started by `loadtests.idle_tunnels`; reads `{"gateway": …, "tokens": […], "tunnels": N}` from standard input,
enrols one device a token, dials N times for each, prints `ready N`, and stays until standard input ends.
Devices are few since the gateway limits how many registration tokens a person makes at once.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from http import HTTPStatus
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
LIMITED_DEADLINE_S = 120.0  # the gateway's own limit on enrolments lets through one a second
KEEPALIVE_MS = 60_000  # idle is idle: no PINGs while memory is read


def _call(method: str, url: str, body: dict[str, Any] | None, bearer: str | None = None) -> Any:
    headers = {"Content-Type": "application/json"}
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    deadline = time.monotonic() + LIMITED_DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=CALL_TIMEOUT_S) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.TOO_MANY_REQUESTS or time.monotonic() > deadline:
                raise
            time.sleep(float(error.headers.get("Retry-After") or 1))


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


async def _enrol(gateway: str, token: str, number: int) -> tuple[DeviceKey, dict[str, Any]]:
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
    return key, await asyncio.to_thread(_call, "GET", url, None, made["poll_secret"])


async def _device(
    gateway: str, token: str, number: int, tunnels: int, slots: asyncio.Semaphore
) -> list[IdleDevice]:
    async with slots:
        key, identity = await _enrol(gateway, token, number)
        context = ssl.create_default_context(cadata=identity["server_ca"])
        instance, ticker, opened = token_bytes(16), Ticker(), []
        for _ in range(tunnels):
            device = IdleDevice(ticker, identity["device_id"], key, instance)
            url, most = identity["tunnel_urls"][0], Limits().max_message
            await dial(url, device, ssl=context, max_message=most, timeout_s=CALL_TIMEOUT_S)
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await device.ready
            opened.append(device)
        return opened


async def main() -> None:
    order = json.loads(await asyncio.to_thread(sys.stdin.readline))
    slots = asyncio.Semaphore(DIALS_AT_ONCE)
    devices = await asyncio.gather(
        *(
            _device(order["gateway"], token, number, order["tunnels"], slots)
            for number, token in enumerate(order["tokens"])
        )
    )
    print(f"ready {sum(len(opened) for opened in devices)}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
