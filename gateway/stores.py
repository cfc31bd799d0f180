"""The stores that the settings name: the database, and what keeps the short-lived."""

from __future__ import annotations

from gateway.guard import Guard
from gateway.metrics import GatewayMetrics
from gateway.settings import Settings
from gateway.shortlived.in_postgres import PostgresShortLived
from gateway.shortlived.in_redis import RedisShortLived
from gateway.shortlived.interface import ShortLived
from gateway.store.database import Database
from runtime.clock import Clock


def short_lived(
    settings: Settings, clock: Clock, database: Database, metrics: GatewayMetrics
) -> tuple[ShortLived, tuple[Guard, ...]]:
    """With it the guards of all that the process cannot do without."""
    in_postgres, address = PostgresShortLived(database), settings.redis()
    if address is None:
        return in_postgres, (database.guard,)
    in_redis = RedisShortLived(address, settings.redis_prefix, clock, in_postgres, metrics)
    database.announce = in_redis.wake_soon
    return in_redis, (database.guard, in_redis.guard)
