"""The name this software gives itself to the server and the gateway."""

from __future__ import annotations

VERSION = "0.1.0"
SOFTWARE = f"towline-agent/{VERSION}"
