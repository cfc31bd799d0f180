"""5,000 agents lose their node at once (PERFORMANCE's goal); `python -m loadtests.fleet` by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loadtests import fleet

DEVICES = 5_000
ALL_BACK_S = 30.0
SERVER_RSS_MIB = 400.0
LOGIN_P95_S = 1.0


@pytest.mark.soak
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_5000_agents_come_back_whole(figures: Callable[[str, str], None]) -> None:
    found = fleet.run(DEVICES, rounds=1)[0]
    figures("all back after", f"{found.all_back_s:.1f} s, half after {found.half_back_s:.1f} s")
    figures("node's memory", f"{found.server_rss_mib:.0f} MiB")
    figures("login p95 meanwhile", f"{found.login_p95_s:.2f} s")
    figures("CPU", f"node {found.server_cpu_s:.1f} s, gateway {found.gateway_cpu_s:.1f} s")
    assert found.server_rss_mib < SERVER_RSS_MIB
    assert found.login_p95_s < LOGIN_P95_S
    assert found.all_back_s <= ALL_BACK_S
