"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine makes single examples slow, which is no fault of the code; pytest bounds the whole test.
settings.register_profile("towline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("towline")
