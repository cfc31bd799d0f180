"""The consumer with what it needs: connections of its own, readers of the log that the settings name."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from gateway.commands.downlink import Downlink
from gateway.messages.consumer import POOL_MAX, Consumer
from gateway.messages.settings import LogSettings
from gateway.metrics import GatewayMetrics
from gateway.settings import Settings
from gateway.shortlived.interface import ShortLived
from gateway.store.database import Database
from gateway.store.log_table import TableReader
from runtime.certificates import CertificateWatch
from runtime.clock import Clock
from runtime.event_log.interface import LogReader


class Storing:
    """One process's consumer. `run` is the task; the schema must be right by then."""

    def __init__(
        self,
        settings: Settings,
        shortlived: ShortLived,
        downlink: Downlink,
        clock: Clock,
        metrics: GatewayMetrics,
        announce: Callable[[set[str]], None] | None,
    ) -> None:
        """`announce`: as of the process's own Database."""
        # Apart from the requests' connections: a batch that waits for a lock keeps none of them waiting.
        self.database = Database(settings.database(), pool_max=POOL_MAX, wall=clock.wall)
        self.database.announce = announce
        self._log = settings.log
        open_reader, self._tls = readers(settings.log, self.database, shortlived)
        self.consumer = Consumer(
            self.database,
            open_reader,
            downlink,
            clock,
            metrics,
            history_days=settings.history_days,
        )

    def __repr__(self) -> str:
        return f"<Storing {self.consumer}>"

    def watch(self, certificates: CertificateWatch) -> None:
        """Keep what we show to Kafka, and whom we trust there, up to date with the files."""
        if self._tls is not None:
            certificates.follow("log", self._tls, self._log)

    async def run(self) -> None:
        """Ends only by cancellation."""
        await self.database.open()
        self.database.prepared = True
        try:
            await self.consumer.run()
        finally:
            await self.database.close()


def readers(
    log: LogSettings, database: Database, shortlived: ShortLived
) -> tuple[Callable[[], LogReader], ssl.SSLContext | None]:
    """What makes a reader of this log, and what all of them speak TLS by. SettingsError for files that cannot
    be used.
    """
    if log.kind != "kafka":
        return (lambda: TableReader(database, shortlived)), None
    # Only here: its client is a fifth of a second at each start, and memory.
    from runtime.event_log.kafka import KafkaReader, address_of

    address = address_of(log)
    return (lambda: KafkaReader(address)), address.context
