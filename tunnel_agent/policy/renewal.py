"""When to ask for a new certificate. An expired one renews too: the key, not the certificate, proves who
asks.
"""

from __future__ import annotations

RENEW_FROM = 2 / 3  # of the lifetime; the last third is there for outages
SPREAD = 0.1  # of the lifetime after that point, so that devices enrolled together do not renew together
RETRY_FIRST_S = 60.0
RETRY_MAX_S = 3600.0
# A sleep is cut into pieces of this length: the wall clock may be set, and a suspended machine's timers
# stand still.
LOOK_AGAIN_S = 3600.0


def renewal_time(not_before: float, not_after: float, random: float) -> float:
    """Unix seconds from which to renew; `random` in [0, 1) is drawn once for a certificate."""
    lifetime = max(0.0, not_after - not_before)
    return not_before + lifetime * (RENEW_FROM + SPREAD * random)


def retry_delay(failures: int, random: float) -> float:
    """Seconds after the `failures`-th failure in a row (1, 2, …)."""
    return min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(failures - 1, 16)) * (0.5 + 0.5 * random)
