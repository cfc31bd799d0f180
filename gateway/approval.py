"""What approval means: a certificate by the device CA."""

from __future__ import annotations

from typing import cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.keys.keyring import Keyring
from gateway.store import devices
from gateway.store.transaction import Transaction


async def approve(tx: Transaction, keyring: Keyring, device_id: str, public_key: bytes) -> str:
    """Issue and store a certificate for the device's key (SPKI DER); its PEM."""
    key = cast(ec.EllipticCurvePublicKey, serialization.load_der_public_key(public_key))
    issued = keyring.device_ca.issue_device(key, device_id, tx.now)
    await devices.add_certificate(tx, device_id, issued)
    return issued.certificate_pem().decode("ascii")
