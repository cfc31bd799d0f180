"""How a process reaches the devices' MQTT broker: the same words for bridges and gateways."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from runtime.broker_url import is_broker_url, parse_broker_url
from runtime.settings import read_secret, readable_file, setting
from runtime.tls_files import load_ca, load_pair


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """What a service's own table of the broker begins with."""

    url: str = setting(
        "mqtts://HOST:PORT of the broker's internal listener; mqtt:// on loopback alone.", check=is_broker_url
    )
    ca: Path | None = setting(
        "CA certificates (PEM) that the broker's certificate must lead to; needed for mqtts.",
        default=None,
        check=readable_file,
    )
    certificate: Path | None = setting(
        "Our client certificate (PEM), with `key`; left out: a name and password alone.",
        default=None,
        check=readable_file,
    )
    key: Path | None = setting("Private key of `certificate` (PEM).", default=None, check=readable_file)
    username: str | None = setting("Name to log in by; left out: the certificate says who.", default=None)
    password_file: Path | None = setting(
        "File with the password of `username` alone.", default=None, check=readable_file
    )

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate: goes with key")
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username: goes with password_file")
        if self.encrypted and self.ca is None:
            raise ValueError("ca: mqtts needs the one that signed the broker's certificate")

    @property
    def encrypted(self) -> bool:
        return parse_broker_url(self.url).encrypted

    @property
    def host(self) -> str:
        return parse_broker_url(self.url).host

    @property
    def port(self) -> int:
        return parse_broker_url(self.url).port

    def tls(self) -> ssl.SSLContext | None:
        """That trusts the broker's CA alone; None where the broker is plain. SettingsError."""
        if self.ca is None or not self.encrypted:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        load_ca(context, self.ca, "broker.ca")
        if self.certificate is not None and self.key is not None:
            load_pair(context, self.certificate, self.key, "broker")
        return context

    def password(self) -> str | None:
        """As the file has it now: read at each dial, since it may have been changed. SettingsError."""
        if self.password_file is None:
            return None
        return read_secret(self.password_file, "broker.password_file")
