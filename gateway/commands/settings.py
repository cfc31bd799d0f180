"""What one sets about the broker by which commands go to devices."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.broker_url import is_broker_url, parse_broker_url
from runtime.settings import SettingsError, setting


@dataclass(frozen=True)
class BrokerSettings:
    """The devices' broker, as the gateway logs in there to publish commands."""

    url: str = setting(
        "mqtts://HOST:PORT of the broker's internal listener; mqtt:// on loopback alone.",
        check=is_broker_url,
    )
    ca: Path | None = setting(
        "CA certificates (PEM) that the broker's certificate must lead to; left out: the system's.",
        default=None,
    )
    certificate: Path | None = setting("The gateway's client certificate (PEM), with `key`.", default=None)
    key: Path | None = setting("Private key of `certificate` (PEM).", default=None)
    username: str | None = setting("Name to log in by; left out: the certificate says who.", default=None)
    password_file: Path | None = setting("File with the password of `username` alone.", default=None)
    version: Literal["3.1.1", "5"] = setting(
        "MQTT's version. By 5 the broker says whether anybody took a command; by 3.1.1 `sent` says only that"
        " the broker has it.",
        default="5",
    )

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate: goes with key")
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username: goes with password_file")

    @property
    def host(self) -> str:
        return parse_broker_url(self.url).host

    @property
    def port(self) -> int:
        return parse_broker_url(self.url).port

    def tls(self) -> ssl.SSLContext | None:
        """None for mqtt://. SettingsError for files that are none."""
        if not parse_broker_url(self.url).encrypted:
            return None
        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
            if self.certificate is not None and self.key is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"broker: its certificates cannot be read: {error}") from error
        return context
