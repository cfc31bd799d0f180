"""The agent without patience: it dials again within milliseconds, and so meets thousands of servers a minute.

`python -m tests.hostile.hasty_agent --config FILE`.
"""

from __future__ import annotations

import sys

from tunnel_agent.cli import main
from tunnel_agent.policy import reconnect

BACKOFF_S = 0.005

if __name__ == "__main__":
    reconnect.MAX_BACKOFF_S = BACKOFF_S
    sys.exit(main(sys.argv[1:]))
