"""Tells devices the configuration that they should run with. What is to be told stands in the rows alone."""

from __future__ import annotations

import asyncio

from device_protocol.bodies import Desired
from gateway.commands.downlink import Downlink, DownlinkGoneError
from gateway.errors import StoreUnavailableError
from gateway.metrics import GatewayMetrics
from gateway.store import configurations
from gateway.store.configurations import Order
from gateway.store.database import Database
from runtime.logs import get_logger

log = get_logger("gateway.configurations")


class ConfigurationTeller:
    """Of the dispatcher, which asks it to look whenever something may be due."""

    def __init__(self, database: Database, metrics: GatewayMetrics, downlink: Downlink) -> None:
        self._database = database
        self._metrics = metrics
        self._downlink = downlink

    async def look(self) -> int:
        """Publish what is due; how many it had in hand. Nothing while the broker is away."""
        if not self._downlink.connected:
            return 0
        async with self._database.transaction() as tx:
            orders = await configurations.claim(tx)
        outcomes = await asyncio.gather(*(self._publish(order) for order in orders))
        if orders:
            try:
                await self._note(orders, outcomes)
            except StoreUnavailableError:  # told again once the lease is over
                log.info("it was not noted that configurations were published")
        return len(orders)

    async def _publish(self, order: Order) -> bool | None:
        """As `configurations.published` takes it."""
        version = order.version
        message = Desired(version.version, version.body, version.sha256).dump()
        try:
            taken = await self._downlink.publish(str(order.topic), message)
        except DownlinkGoneError as error:
            named = {"device": order.device_id, "version": version.version, "reason": str(error)}
            log.info("a configuration was not published", extra=named)
            return None
        self._metrics.configurations.labels("taken" if taken else "unheard").inc()
        return taken

    async def _note(self, orders: list[Order], outcomes: list[bool | None]) -> None:
        # In one order, as everybody locks these rows.
        done = sorted(zip(orders, outcomes, strict=True), key=lambda one: one[0].device_id)
        async with self._database.transaction() as tx:
            for order, taken in done:
                await configurations.published(tx, order, taken=taken)
