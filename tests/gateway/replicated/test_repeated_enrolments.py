"""The single gateway's tests, with two: what makes a world of its own has one gateway, as there."""

from __future__ import annotations

from tests.gateway.test_repeated_enrolments import *  # noqa: F403
