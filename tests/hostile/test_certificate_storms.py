"""Certificates are swapped, and broken ones put in their place, while SIGHUP comes fifty times a second."""

from __future__ import annotations

import asyncio
import shutil
import signal
import ssl
from collections.abc import Callable
from pathlib import Path

from testbed.certificates import Authority, Issued
from tests.hostile.scene import Bounds, NodeProcess, Scene

STEP_S = 1.1
HANGUP_EVERY_S = 0.02
HANDSHAKE_S = 3.0  # one takes milliseconds; the rest is a machine that others use too
STORM_MB = 10.0
EXPIRED_DAYS = -0.02  # half an hour ago; it began an hour ago


class Files:
    """The pair that the node reads, and what is put there."""

    def __init__(self, folder: Path, spare: Path) -> None:
        self.chain, self.key = folder / "chain.pem", folder / "key.pem"
        self._authority = Authority(spare)
        self._made = 0
        self.good = {self.shown(self.chain.read_text())}
        self._before = self.chain.read_bytes(), self.key.read_bytes()

    @staticmethod
    def shown(chain: str) -> bytes:
        """What a client sees of a chain."""
        return ssl.PEM_cert_to_DER_cert(chain[: chain.index("-----END CERTIFICATE-----") + 26])

    def issue(self, days: float = 1.0) -> Issued:
        self._made += 1
        return self._authority.issue(f"pair-{self._made}", "127.0.0.1", days=days)

    def renew(self) -> None:
        """Key, then chain, each replaced whole, as certbot's hooks do; between the two they do not fit."""
        issued = self.issue()
        self.good.add(self.shown(issued.chain.read_text()))
        for source, target in ((issued.key, self.key), (issued.chain, self.chain)):
            shutil.copy(source, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)

    def write_half(self) -> None:
        text = self.issue().chain.read_bytes()
        self.chain.write_bytes(text[: len(text) // 3])

    def mix_up(self) -> None:
        """The key of another certificate."""
        shutil.copy(self.issue().key, self.key)

    def let_expire(self) -> None:
        issued = self.issue(EXPIRED_DAYS)
        shutil.copy(issued.key, self.key)
        shutil.copy(issued.chain, self.chain)

    def lose(self) -> None:
        self.key.unlink()

    def restore(self) -> None:
        self.chain.write_bytes(self._before[0])
        self.key.write_bytes(self._before[1])


async def shown_by(node: NodeProcess) -> bytes:
    """The certificate that who connects now is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(HANDSHAKE_S):
        _, writer = await asyncio.open_connection("127.0.0.1", node.ports["tunnels"], ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return found


async def storm(scene: Scene, files: Files) -> int:
    """For STEP_S: SIGHUP again and again, and handshakes meanwhile; how many of those there were."""
    loop = asyncio.get_running_loop()
    until, handshakes = loop.time() + STEP_S, 0

    async def hang_up() -> None:
        while loop.time() < until:
            scene.node.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(HANGUP_EVERY_S)

    hanging_up = loop.create_task(hang_up())
    while loop.time() < until:
        assert await shown_by(scene.node) in files.good
        handshakes += 1
        await asyncio.sleep(HANGUP_EVERY_S)
    await hanging_up
    return handshakes


async def test_a_storm_of_sighup_drops_nothing_and_shows_no_broken_certificate(
    scene: Scene, tmp_path: Path
) -> None:
    files = Files(scene.node.log.parent, tmp_path)
    breaks: list[tuple[Callable[[], None], str]] = [
        (files.write_half, "no certificate in PEM"),
        (files.mix_up, "KEY_VALUES_MISMATCH"),
        (files.let_expire, "the new one is expired"),
        (files.lose, "No such file or directory"),
    ]
    bounds, before = Bounds(scene.node), len(scene.node.lines())
    rounds, handshakes = scene.honest.rounds, 0
    try:
        for wreck, _ in breaks:
            files.renew()
            handshakes += await storm(scene, files)
            latest = await shown_by(scene.node)
            assert latest == files.shown(files.chain.read_text())
            wreck()
            handshakes += await storm(scene, files)
            assert await shown_by(scene.node) == latest, "the old one stays"
        files.renew()
        handshakes += await storm(scene, files)
        assert await shown_by(scene.node) == files.shown(files.chain.read_text())
    finally:
        files.restore()
        scene.node.process.send_signal(signal.SIGHUP)
    assert scene.honest.fault is None
    print(
        f"{scene.honest.rounds - rounds} honest rounds, {handshakes} handshakes, slowest",
        scene.honest.slowest_s,
    )
    assert scene.honest.rounds > rounds
    events = [line for line in scene.node.lines()[before:] if line["event"].startswith("certificate not")]
    for _, reason in breaks:
        named = [line for line in events if reason in line["error"]]
        assert named, reason
        assert named[0]["file"] == str(files.chain)
    # Told once each, however often it is asked; a renewal may be seen between its two files.
    assert len(events) <= 3 * len(breaks) + 1, events
    bounds.stop()
    assert bounds.growth_mb <= STORM_MB
