"""Wiring of the demo device."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from demo_device.feed import Feed
from demo_device.greenhouse import Greenhouse, remark
from demo_device.http_server import HttpServer
from demo_device.routes import Routes
from demo_device.uploads import Uploads
from runtime.addresses import Address
from runtime.logs import get_logger
from runtime.process import Shutdown
from runtime.tasks import TaskOwner

TICK_S = 0.25  # four readings a second look alive and cost nothing
TICKS_A_REMARK = 8

_log = get_logger("demo_device")


@dataclass(frozen=True)
class DemoSettings:
    """The command line."""

    listen: Address
    data: Path
    port_file: Path | None


class DemoDevice:
    """The whole device, for the command and for tests."""

    def __init__(self, data: Path) -> None:
        self._greenhouse = Greenhouse(Random(7))
        self._live, self._remarks = Feed(), Feed()
        self._uploads = Uploads(data / "uploads")
        self._server = HttpServer(Routes(self._greenhouse, self._live, self._remarks, self._uploads).answer)
        self._tasks = TaskOwner("demo_device")

    async def start(self, listen: Address) -> int:
        """Listen and let time pass; returns the port."""
        port = await self._server.start(listen)
        self._tasks.start(self._run_greenhouse(), "greenhouse")
        return port

    async def close(self) -> None:
        """Stop everything."""
        await self._tasks.close(1.0)
        await self._server.close()

    async def _run_greenhouse(self) -> None:
        ticks, last = 0, time.monotonic()
        while True:
            now = time.monotonic()
            # A machine that slept would otherwise jump hours of weather in one step.
            reading = self._greenhouse.step(min(now - last, 4 * TICK_S))
            last = now
            self._live.publish(json.dumps(reading.as_json()))
            if ticks % TICKS_A_REMARK == 0:
                self._remarks.publish(remark(reading))
            ticks += 1
            await asyncio.sleep(TICK_S)


async def run_device(settings: DemoSettings) -> int:
    """Serve until SIGTERM or SIGINT."""
    shutdown = Shutdown().install()
    device = DemoDevice(settings.data)
    port = await device.start(settings.listen)
    if settings.port_file is not None:
        partial = settings.port_file.with_suffix(".new")
        partial.write_text(f"{port}\n", encoding="ascii")
        partial.replace(settings.port_file)  # a reader that waits for the file never sees half of it
    _log.info("demo device listens", extra={"host": settings.listen.host, "port": port})
    await shutdown.requested.wait()
    await device.close()
    return 0
