"""Failed TLS handshakes are what port scanners leave, and full servers: a quiet line each, no traceback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("towline.tunnel_link")

_Context = dict[str, Any]
_Previous = Callable[[asyncio.AbstractEventLoop, _Context], object] | None


class HandshakeFilter:
    """A loop's exception handler that takes out failed handshakes and passes on everything else."""

    def __init__(self, previous: _Previous) -> None:
        self._previous = previous

    def __call__(self, loop: asyncio.AbstractEventLoop, context: _Context) -> None:
        if context.get("message") == "SSL handshake failed":  # asyncio's, uvloop's and aiofastnet's own words
            _log.debug("a TLS handshake failed", extra={"error": str(context.get("exception"))})
        elif self._previous is None:
            loop.default_exception_handler(context)
        else:
            self._previous(loop, context)


def quiet_failed_handshakes(loop: asyncio.AbstractEventLoop) -> None:
    """For a loop that listens or dials with TLS. Calling it again changes nothing."""
    previous = loop.get_exception_handler()
    if not isinstance(previous, HandshakeFilter):
        loop.set_exception_handler(HandshakeFilter(previous))
