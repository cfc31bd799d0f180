"""The single gateway's tests, with two, on each store."""

from __future__ import annotations

from tests.gateway.replicated.test_two_gateways import stores  # noqa: F401
from tests.gateway.test_write_limit import *  # noqa: F403
