"""All providers of one gateway."""

from __future__ import annotations

import asyncio

from gateway.login.client_key import ClientKey, read_client_key
from gateway.login.flow import Flow
from gateway.login.provider import Provider
from gateway.login.settings import ProviderSettings
from gateway.metrics import GatewayMetrics
from gateway.settings import Settings, read_secret
from gateway.shortlived.interface import ShortLived
from runtime.clock import Clock


class Providers:
    """Made from the settings; no provider is asked before somebody logs in. Close it with `close`."""

    def __init__(
        self, settings: Settings, shortlived: ShortLived, clock: Clock, metrics: GatewayMetrics
    ) -> None:
        self._by_id = {
            name: Provider(
                name,
                one,
                _proof(name, one),
                clock,
                metrics,
            )
            for name, one in settings.login_providers.items()
        }
        self.flow = Flow(shortlived, settings.public_url)

    def __repr__(self) -> str:
        return f"<Providers {', '.join(self._by_id) or 'none'}>"

    def all(self) -> list[Provider]:
        """In the order of the settings file, which is the order of the buttons."""
        return list(self._by_id.values())

    def get(self, provider_id: str) -> Provider | None:
        return self._by_id.get(provider_id)

    async def close(self) -> None:
        await asyncio.gather(*(provider.close() for provider in self._by_id.values()))


def _proof(name: str, settings: ProviderSettings) -> str | ClientKey:
    """What the gateway has to prove who it is at the provider. SettingsError."""
    field = f"login_providers.{name}"
    if settings.client_key_file is None:
        assert settings.client_secret_file is not None  # the settings have one of the two
        return read_secret(settings.client_secret_file, f"{field}.client_secret_file")
    return read_client_key(settings.client_key_file, f"{field}.client_key_file")
