"""``python -m ingest --config FILE``."""

from __future__ import annotations

import sys

from ingest.app import main
from runtime.process import run

if __name__ == "__main__":
    sys.exit(run("ingest", main))
