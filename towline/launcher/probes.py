"""Questions to a starting service: does it serve yet?"""

from __future__ import annotations

import asyncio

from towline.launcher.ports import LOOPBACK

PROBE_TIMEOUT_S = 2.0  # loopback answers at once; a busy machine may take its time
MAX_ANSWER_HEAD = 4096


async def http_ok(port: int, path: str) -> bool:
    """Whether a GET on loopback is answered with a status below 400."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(LOOPBACK, port, limit=MAX_ANSWER_HEAD)
            request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
            writer.write(request.encode())
            line = await reader.readline()
    except (OSError, TimeoutError, ValueError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()
    parts = line.split(b" ", 2)
    return len(parts) >= 2 and parts[0].startswith(b"HTTP/1.") and parts[1].isdigit() and int(parts[1]) < 400
