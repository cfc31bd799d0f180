"""Start only: `python -m loadtests`, see `make bench`."""

from __future__ import annotations

import sys

from loadtests.bench import main

sys.exit(main())
