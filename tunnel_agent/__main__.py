"""Starts the agent: `python -m tunnel_agent --config FILE`, or `python -m tunnel_agent enrol URL
--token-file FILE`, or `python -m tunnel_agent claim --token-file FILE …`.
"""

import sys

from tunnel_agent.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
