"""``python -m ingest --config FILE`` serves; ``python -m ingest replay …`` tries dead letters again."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ingest.app import main
from ingest.replay import REPLAY, replay
from runtime import collector
from runtime.process import run


def start(arguments: Sequence[str]) -> int:
    """The exit code: 0, 1 after a crash or without the gateway, 2 for bad settings."""
    if arguments[:1] == [REPLAY]:
        return replay(arguments[1:])
    collector.be_rare()
    return run("ingest", main, arguments, others={REPLAY: "try dead letters again, after a mend"})


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
