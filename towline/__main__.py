"""Starts the command line: `python -m towline`."""

import sys

from towline.cli import main

if __name__ == "__main__":
    sys.exit(main())
