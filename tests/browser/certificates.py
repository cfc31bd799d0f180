"""A certificate for `*.tunnel.test`: a name outside the Public Suffix List, where siblings are same-site."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed.certificates import self_signed, spki_hash


@dataclass(frozen=True, slots=True)
class WildcardCertificate:
    """PEM files, and what Chromium is told to trust."""

    certificate: Path
    key: Path
    spki_hash: str


def wildcard_certificate(folder: Path, domain: str) -> WildcardCertificate:
    """A certificate for `*.domain`, self-signed."""
    made = self_signed(folder / "tunnel", f"*.{domain}")
    return WildcardCertificate(made.chain, made.key, spki_hash(made.chain))


def tls_options(certificate: WildcardCertificate, domain: str) -> tuple[str, ...]:
    """What gives `towline up` sessions on https://LABEL.DOMAIN."""
    files = (f"--tunnel-certificate={certificate.certificate}", f"--tunnel-key={certificate.key}")
    return (f"--tunnel-domain={domain}", *files)
