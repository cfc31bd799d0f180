"""The embedded log as ingest writes it: through the gateway, which alone has the database."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from runtime.event_log import wire
from runtime.event_log.interface import Entry, LogRefusedError, LogUnavailableError, check_append
from runtime.internal_http import GatewayRefused, GatewayUnavailable, InternalHttp

PATH: Final = "/internal/v1/log"


class GatewayWriter:
    """A LogWriter over the gateway's internal listener. `http` is the caller's to close."""

    def __init__(self, http: InternalHttp) -> None:
        self._http = http
        self._parts: dict[str, int] = {}
        self._turns: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)

    def __repr__(self) -> str:
        return f"<GatewayWriter parts={self._parts}>"

    async def start(self) -> None:
        answer = await self._call("GET", PATH)
        try:
            self._parts = {str(topic): int(count) for topic, count in answer["parts"].items()}
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise LogUnavailableError(f"malformed parts: {error!r}") from error

    async def close(self) -> None:
        """Nothing is open but `http`."""

    def parts(self, topic: str) -> int:
        return self._parts[topic]

    async def append(self, topic: str, part: int, entries: Sequence[Entry]) -> int:
        check_append(entries)
        async with self._turns[topic, part]:
            answer = await self._call("POST", f"{PATH}/{topic}/{part}", wire.to_json(entries))
        try:
            return int(answer["first"])
        except (TypeError, KeyError, ValueError) as error:
            raise LogUnavailableError(f"malformed answer: {error!r}") from error

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            # Sent twice, an append would be in the log twice.
            return await self._http.call(method, path, body, again=False)
        except GatewayUnavailable as error:
            raise LogUnavailableError(str(error)) from error
        except GatewayRefused as error:
            raise LogRefusedError(str(error)) from error
