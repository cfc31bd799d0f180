"""Starts the demo device: `python -m demo_device --listen 127.0.0.1:0 --data DIR [--port-file FILE]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from demo_device.app import DemoSettings, run_device
from runtime import process
from runtime.addresses import parse_address
from runtime.logs import configure


def main(argv: Sequence[str]) -> int:
    """Parse the command line and serve until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="demo_device", description="A pretend greenhouse controller.")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0: any free one")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where uploads are kept")
    parser.add_argument(
        "--port-file", type=Path, metavar="FILE", help="the port is written here once it listens"
    )
    arguments = parser.parse_args(argv)
    try:
        listen = parse_address(arguments.listen)
    except ValueError as error:
        parser.error(f"--listen {error}")
    configure("demo_device")
    settings = DemoSettings(listen, arguments.data, arguments.port_file)
    return process.run_loop("demo_device", run_device(settings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
