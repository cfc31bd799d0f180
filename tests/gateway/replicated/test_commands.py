"""Of the single gateway's tests those where it matters at which of two somebody sends, or waits."""

from __future__ import annotations

from tests.gateway.commands import test_api
from tests.gateway.commands.conftest import yard as yard

test_with_one_key = test_api.test_many_at_once_with_one_key_are_one_command
test_no_more_than_so_many = test_api.test_no_more_wait_for_a_device_than_it_will_ever_do
test_sent_again = test_api.test_sent_again_it_is_the_same_command_as_it_is_by_then
test_waiting = test_api.test_who_waits_is_answered_when_it_has_ended
