# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one end of snitun on uvloop: `snitun_runner.py server|client '{"sni_port", "peer_port", …}'`.

snitun is GPL: this file alone imports it, under its licence, in a process and an environment of its own
(requirements/bench-peers.txt). Nothing of the product imports this file or needs it.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import uvloop
from cryptography.fernet import Fernet
from snitun.client.client_peer import ClientPeer
from snitun.client.connector import Connector
from snitun.server.run import SniTunServer


async def serve(order: dict[str, Any]) -> None:
    server = SniTunServer(
        [order["key"]],
        sni_host="127.0.0.1",
        sni_port=order["sni_port"],
        peer_host="127.0.0.1",
        peer_port=order["peer_port"],
    )
    await server.start()
    await asyncio.Event().wait()


async def dial(order: dict[str, Any]) -> None:
    peers = []
    for hostname in order["hostnames"]:
        aes_key, aes_iv = bytes.fromhex(order["aes_key"]), bytes.fromhex(order["aes_iv"])
        token = {
            "valid": (datetime.now(UTC) + timedelta(days=1)).timestamp(),
            "hostname": hostname,
            "aes_key": aes_key.hex(),
            "aes_iv": aes_iv.hex(),
        }
        peer = ClientPeer("127.0.0.1", order["peer_port"])
        sealed = Fernet(order["key"]).encrypt(json.dumps(token).encode())
        await peer.start(Connector("127.0.0.1", order["end_port"]), sealed, aes_key, aes_iv)
        peers.append(peer)
    print("ready", flush=True)
    await asyncio.gather(*(peer.wait() for peer in peers))


if __name__ == "__main__":
    uvloop.install()
    asyncio.run({"server": serve, "client": dial}[sys.argv[1]](json.loads(sys.argv[2])))
