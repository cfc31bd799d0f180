"""Whether a device is who it says: its key from the gateway, its signature over the challenge."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tunnel_protocol import Auth, CloseCode
from tunnel_server.control.gateway import DeviceFacts, Gateway
from tunnel_server.errors import GatewayRefused, GatewayUnavailable

KEY_ID_BYTES = 16  # tunnel-v1.md section 4
RETRY_LATER_MS = 3_000  # the gateway restarts within seconds


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a device is not let in; ``retry_after_ms`` 0: its own rules decide."""

    code: CloseCode
    reason: str
    retry_after_ms: int = 0


async def check_device(gateway: Gateway, auth: Auth, transcript: bytes) -> DeviceFacts | Refusal:
    """The device when everything holds."""
    try:
        facts = await gateway.authenticate(device_id=auth.device, key_id=auth.key_id)
    except GatewayUnavailable:
        return Refusal(CloseCode.TRY_LATER, "the device cannot be checked now", RETRY_LATER_MS)
    except GatewayRefused as refused:
        if refused.code == "revoked":
            return Refusal(CloseCode.REVOKED, "the device was revoked")
        return Refusal(CloseCode.AUTH_FAILED, f"the device is {refused.code}")
    if facts.device_id != auth.device or not signature_holds(facts.public_key, auth, transcript):
        return Refusal(CloseCode.AUTH_FAILED, "the signature does not hold")
    return facts


def signature_holds(public_key: bytes, auth: Auth, transcript: bytes) -> bool:
    """Whether ``auth`` was signed by this P-256 key (SubjectPublicKeyInfo, DER)."""
    if hashlib.sha256(public_key).digest()[:KEY_ID_BYTES] != auth.key_id:
        return False
    try:
        key = load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        return False
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        return False
    half = len(auth.signature) // 2
    signature = encode_dss_signature(
        int.from_bytes(auth.signature[:half]), int.from_bytes(auth.signature[half:])
    )
    try:
        key.verify(signature, transcript, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
