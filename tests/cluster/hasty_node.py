"""A tunnel server that asks for the list of grant keys each half second, and brings it out as quickly.

`python -m tests.cluster.hasty_node --config FILE`.
"""

from __future__ import annotations

import sys

from runtime.process import run
from tunnel_server import app
from tunnel_server.tunnels import key_lists

if __name__ == "__main__":
    app.KEY_LIST_S = 0.5
    key_lists.RETURN_S = 2.0
    sys.exit(run("tunnel_server", app.main))
