"""Taking an enrolled device over to another owner's site: the device's own key signs for the new token."""

from __future__ import annotations

import base64
import hashlib

from tunnel_agent.errors import EnrolmentError, GatewayRefused
from tunnel_agent.gateway_client import GatewayClient
from tunnel_agent.identity import Identity
from tunnel_agent.renewal import read_nonce

_PURPOSE = b"towline-claim-v1"  # keeps this signature apart from the tunnel's and the renewal's

_ADVICE = {
    "not_released": "ask its owner to release it",
    "token_does_not_approve": "make the registration token with approve",
    "registration_token_used": "make a new registration token: each works once",
    "registration_token_expired": "make a new registration token: they live 15 minutes",
}


def claim(identity: Identity, client: GatewayClient, token: str) -> tuple[str, str]:
    """(name, site's name) of where the device belongs now; blocks; raises an AgentError that says what to do.

    Key, certificate and device id stay: nothing changes on the device.
    """
    path = f"/v1/devices/{identity.device_id}"
    try:
        nonce_text = client.post(path + "/certificate/challenge", {}).get("nonce")
        token_digest = hashlib.sha256(token.encode()).digest()
        message = _PURPOSE + read_nonce(nonce_text) + identity.device_id.encode("ascii") + token_digest
        signature = base64.urlsafe_b64encode(identity.key.sign(message)).rstrip(b"=").decode("ascii")
        answer = client.post(path + "/claim", {"token": token, "nonce": nonce_text, "signature": signature})
    except GatewayRefused as refused:
        advice = _ADVICE.get(refused.code)
        raise EnrolmentError(f"{refused}; {advice}" if advice else str(refused)) from refused
    site = answer.get("site")
    return str(answer.get("name")), str(site.get("name") if isinstance(site, dict) else site)
