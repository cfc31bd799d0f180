"""Certificates, keys and CAs from the files that settings name; a bad one names its setting."""

from __future__ import annotations

import ssl
from pathlib import Path

from runtime.certificates import CertificateError, read_pair
from runtime.settings import SettingsError


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path, section: str) -> None:
    """The certificate that is shown, and its key. SettingsError when they are no PEM or no pair."""
    try:
        read_pair(certificate, key).load_into(context)
    except CertificateError as error:
        raise SettingsError(
            f"{section}.certificate, {section}.key: {certificate} and {key} are not a certificate and its key"
            f" in PEM ({error})"
        ) from error


def load_ca(context: ssl.SSLContext, ca: Path, name: str) -> None:
    """The CA that alone is trusted. SettingsError when the file holds none."""
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        why = getattr(error, "reason", None) or error.strerror or str(error)
        raise SettingsError(f"{name}: {ca} holds no certificate in PEM ({why})") from error
