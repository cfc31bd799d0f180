"""What holds for every test."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

# A busy machine makes single examples slow, which is no fault of the code; pytest bounds the whole test.
settings.register_profile("towline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("towline")


@pytest.fixture(scope="session")
def seed() -> int:
    """Where a test's random choices come from: `make soak SEED=…`, else 0."""
    return int(os.environ.get("TOWLINE_SEED", "0"))


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Records a figure by name, as text with its unit; `make soak` puts it into its table."""
    return record_property
