"""The single gateway's tests, with two: what makes a world of its own has one gateway, as there."""

from __future__ import annotations

from tests.gateway.test_hand_overs import *  # noqa: F403
