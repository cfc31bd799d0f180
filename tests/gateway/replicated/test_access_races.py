"""The single gateway's tests, with two: what makes a world of its own has one gateway, as there."""

from __future__ import annotations

from tests.gateway.test_access_races import *  # noqa: F403

# It waits at a limit that Postgres keeps; here Redis does.
del test_no_registration_token_of_a_login_that_ended_meanwhile  # noqa: F821
