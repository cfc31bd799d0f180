"""What support sessions ask of devices, told to the gateway for the owner. Never bodies or queries."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter as Tally
from collections import deque
from typing import Any, Literal
from uuid import uuid4

from runtime.clock import Clock
from runtime.logs import get_logger
from tunnel_server.control.gateway import Gateway
from tunnel_server.errors import GatewayRefused, GatewayUnavailable
from tunnel_server.metrics import Metrics

MAX_QUEUED = 10_000  # while the gateway is away; with the longest paths about 20 MiB
BATCH = 200  # in one call: with the longest paths, escaped, about 1 MiB
PATH_MAX = 1024  # characters; what is longer is cut, and the gateway keeps no more
GATHER_S = 0.2  # a page asks for many things at once
BEGAN_S = 0.5  # a request that is not over by then is told as begun: the owner reads of it while it runs
FIRST_RETRY_S = 0.5  # doubles
MAX_RETRY_S = 5.0

Part = Literal["whole", "began", "ended", "lost"]

_log = get_logger("tunnel_server.request_log")


class Passing:
    """One request of a support session, or one connection at the TCP door, while it runs.

    ``received`` and ``sent`` count bytes of the bodies, or of the WebSocket or the connection behind a 101.
    ``status`` 0: no answer has begun.
    """

    __slots__ = ("_log", "at", "began", "id", "method", "path", "received", "sent", "sid", "status", "told")

    def __init__(self, log: RequestLog, sid: str, method: str, path: str, at: float, began: float) -> None:
        """``at`` is Unix seconds, ``began`` monotonic ones."""
        self._log = log
        self.id = str(uuid4())
        self.sid = sid
        self.method = method
        self.path = path
        self.at = at
        self.began = began
        self.status = 0
        self.received = 0
        self.sent = 0
        self.told = False  # that it began

    def end(self) -> None:
        """It is over; once more changes nothing."""
        self._log.ended(self)


class RequestLog:
    """Queues entries and sends them in batches. What finds no room is counted, and said in the log itself."""

    def __init__(self, gateway: Gateway, clock: Clock, metrics: Metrics) -> None:
        self._gateway = gateway
        self._clock = clock
        self._metrics = metrics
        self._queue: deque[dict[str, Any]] = deque()
        self._running: dict[Passing, None] = {}
        self._lost: Tally[str] = Tally()  # by session
        self._wake = asyncio.Event()
        self._sending = asyncio.Lock()
        self._failures = 0  # in a row
        self._most = BATCH  # entries in the next call

    def __len__(self) -> int:
        """Entries that wait."""
        return len(self._queue)

    # What the edge tells

    def web(self, sid: str, method: bytes, target: bytes) -> Passing:
        """A request begins; its query stays here."""
        path = target.partition(b"?")[0].decode("utf-8", "replace")
        return self._begin(sid, method.decode("ascii", "replace"), path)

    def tcp(self, sid: str, service: str) -> Passing:
        """A connection at the TCP door begins."""
        return self._begin(sid, "TCP", service)

    def _begin(self, sid: str, method: str, path: str) -> Passing:
        clock = self._clock
        passing = Passing(self, sid, method, path[:PATH_MAX], clock.wall(), clock.monotonic())
        self._running[passing] = None
        self._wake.set()
        return passing

    def ended(self, passing: Passing) -> None:
        """Of ``Passing.end``."""
        if passing in self._running:
            del self._running[passing]
            self._add(passing, "ended" if passing.told else "whole")

    def _add(self, passing: Passing, part: Part) -> None:
        if len(self._queue) >= MAX_QUEUED:
            self._drop(passing.sid, 1)
            return
        entry = {
            "id": passing.id,
            "part": part,
            "sid": passing.sid,
            "at": passing.at,
            "method": passing.method,
            "path": passing.path,
            "status": passing.status,
            "received": passing.received,
            "sent": passing.sent,
            "ms": round((self._clock.monotonic() - passing.began) * 1000, 3),
        }
        self._queue.append(entry)
        self._wake.set()

    def _drop(self, sid: str, count: int) -> None:
        self._lost[sid] += count
        self._metrics.log_entries.labels("dropped").inc(count)

    # To the gateway

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._next()
            self._tell_begun()
            await self.send_once()
            pause = GATHER_S
            if self._failures:
                pause = min(MAX_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 16))
            await asyncio.sleep(pause)

    async def _next(self) -> None:
        """Until there is something to send, or something that runs may be told as begun."""
        if self._queue or self._lost:
            return
        untold = [passing.began for passing in self._running if not passing.told]
        wait_s = min(untold) + BEGAN_S - self._clock.monotonic() if untold else math.inf
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if wait_s == math.inf else max(0.0, wait_s)):
                await self._wake.wait()

    def _tell_begun(self) -> None:
        before = self._clock.monotonic() - BEGAN_S
        for passing in [one for one in self._running if not one.told and one.began <= before]:
            passing.told = True
            self._add(passing, "began")

    async def send_once(self) -> bool:
        """One batch, if there is any; False: the gateway is away, and it waits.

        Of a batch that is refused half goes next, until it is known which entry is to blame: who finds one
        that the gateway does not take must not take others out of the log with it.
        """
        async with self._sending:
            self._note_lost()
            batch = [self._queue[n] for n in range(min(len(self._queue), self._most))]
            if not batch:
                return True
            try:
                await self._gateway.report_requests(batch)
            except GatewayUnavailable as error:
                self._failures += 1
                if self._failures == 1:  # said once an outage
                    _log.warning("the request log waits for the gateway", extra={"error": str(error)})
                return False
            except GatewayRefused as error:  # it will never take these
                self._failures = 0
                if len(batch) > 1:
                    self._most = len(batch) // 2
                    return True
                _log.error("the gateway refused an entry of the request log", extra={"error": str(error)})
                if batch[0]["part"] != "lost":
                    self._lost[batch[0]["sid"]] += 1
                outcome = "refused"
            else:
                outcome = "sent"
            self._failures = 0
            self._most = BATCH
            for _ in batch:
                self._queue.popleft()
            self._metrics.log_entries.labels(outcome).inc(len(batch))
            return True

    def _note_lost(self) -> None:
        """Say in the log what is missing, as soon as there is room."""
        while self._lost and len(self._queue) < MAX_QUEUED:
            sid, count = self._lost.popitem()
            now = self._clock.wall()
            note = {"id": str(uuid4()), "part": "lost", "lost": count, "sid": sid, "at": now, "method": "-"}
            self._queue.append({**note, "path": "", "status": 0, "received": 0, "sent": 0, "ms": 0.0})

    async def flush(self) -> None:
        """The process ends: what runs is over, and all that waits leaves, while the gateway takes it."""
        for passing in list(self._running):
            passing.end()
        while (self._queue or self._lost) and await self.send_once():
            pass
        if self._queue:
            _log.error("entries of the request log were lost", extra={"entries": len(self._queue)})
