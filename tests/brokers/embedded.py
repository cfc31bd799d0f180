"""The embedded broker with the passwords that tests/mqtt_link/clients.py logs in with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ingest.brokers.embedded import EmbeddedBroker, Limits
from ingest.brokers.topic_rule import BRIDGE, GATEWAY

SECRETS = {BRIDGE: "bridge-secret", GATEWAY: "gateway-secret"}


async def check(device: str, password: str) -> bool:
    return password == f"of-{device}"


@asynccontextmanager
async def embedded_broker(limits: Limits | None = None) -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker(check, SECRETS, limits=limits)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.close()
