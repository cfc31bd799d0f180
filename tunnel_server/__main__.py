"""``python -m tunnel_server --config FILE``."""

from __future__ import annotations

import sys

from runtime.process import run
from tunnel_server.app import main

if __name__ == "__main__":
    sys.exit(run("tunnel_server", main))
