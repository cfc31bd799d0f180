"""A new certificate for the same key: asked for by challenge, so that one that expired in a drawer
renews too.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

from runtime.clock import Clock
from runtime.logs import get_logger
from tunnel_agent.certificate import read_certificate
from tunnel_agent.enrolment import newer_key_list, tunnel_urls
from tunnel_agent.errors import AgentError, EnrolmentError, GatewayRefused
from tunnel_agent.gateway_client import GatewayClient
from tunnel_agent.identity import Identity, IdentityStore
from tunnel_agent.policy import renewal as policy

_log = get_logger("tunnel_agent.renewal")

_PURPOSE = b"towline-renew-v1"  # keeps this signature apart from the tunnel's (towline-auth-v1)
MIN_NONCE_BYTES, MAX_NONCE_BYTES = 16, 64


def renew(identity: Identity, store: IdentityStore, client: GatewayClient) -> Identity:
    """Ask once and store the answer; blocks; raises an AgentError and leaves everything as it was."""
    path = f"/v1/devices/{identity.device_id}/certificate"
    nonce_text = client.post(path + "/challenge", {}).get("nonce")
    nonce = read_nonce(nonce_text)
    signature = identity.key.sign(_PURPOSE + nonce + identity.device_id.encode("ascii"))
    answer = client.post(
        path,
        {
            "nonce": nonce_text,
            "csr": identity.key.signing_request(),
            "signature": base64.urlsafe_b64encode(signature).rstrip(b"=").decode("ascii"),
        },
    )
    certificate, ca, server_ca = answer.get("certificate"), answer.get("ca"), answer.get("server_ca")
    renewed = replace(
        identity,
        certificate=read_certificate(certificate if isinstance(certificate, str) else "", identity.key),
        device_ca=ca if isinstance(ca, str) else identity.device_ca,
        key_list=newer_key_list(answer, identity),
        tunnel_urls=tunnel_urls(answer) if answer.get("tunnel_urls") else identity.tunnel_urls,
        # Absent means unchanged; an explicit null means the system's roots from now on.
        server_ca=(server_ca or None)
        if isinstance(server_ca, str | None) and "server_ca" in answer
        else identity.server_ca,
    )
    store.save_renewed(renewed)
    return renewed


async def keep_renewed(
    current: Callable[[], Identity],
    store: IdentityStore,
    clock: Clock,
    renewed: Callable[[Identity], None],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    draw: Callable[[], float] = random.random,
) -> None:
    """Renew for ever, each time in the last third of the lifetime; `renewed` takes the new identity over."""
    failures, spread = 0, draw()
    while True:
        certificate = current().certificate
        due = policy.renewal_time(certificate.not_before, certificate.not_after, spread)
        wait = due - clock.wall()
        if wait > 0:
            await sleep(min(wait, policy.LOOK_AGAIN_S))
            continue
        identity = current()
        try:
            client = GatewayClient(identity.gateway_url, identity.gateway_ca)
            renewed(await asyncio.to_thread(renew, identity, store, client))
        except (AgentError, OSError) as error:
            failures += 1
            delay = policy.retry_delay(failures, draw())
            final = isinstance(error, GatewayRefused) and error.status in (403, 404, 410)
            _log.warning(
                "certificate not renewed",
                extra={"reason": str(error), "retry_s": round(delay), "refused": final},
            )
            await sleep(delay)
            continue
        failures, spread = 0, draw()
        until = datetime.fromtimestamp(current().certificate.not_after, UTC)
        _log.info("certificate renewed", extra={"until": until.isoformat()})


def read_nonce(text: object) -> bytes:
    try:
        raw = text.encode("ascii") if isinstance(text, str) else b""
        nonce = base64.urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
    except (UnicodeEncodeError, binascii.Error) as error:
        raise EnrolmentError("the gateway's challenge is not base64url") from error
    if not MIN_NONCE_BYTES <= len(nonce) <= MAX_NONCE_BYTES:
        raise EnrolmentError("the gateway's challenge has a wrong length")
    return nonce
