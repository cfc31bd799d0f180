"""Everything that is measured, started side by side, and ended together."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.figures import DIRECT, DIRECT_TLS, HAPROXY, PROXY, SNITUN, SSH, TOWLINE
from loadtests.measure import Target, request_cost
from loadtests.peers.haproxy import haproxy
from loadtests.peers.nginx import Upstream, nginx_proxy, upstream
from loadtests.peers.snitun import Snitun, snitun_forward, snitun_server
from loadtests.peers.ssh import Sshd, ssh_forward, sshd
from loadtests.stack import TowlineStack, towline_stack

ALL_PATHS = (DIRECT, PROXY, HAPROXY, SSH, SNITUN, TOWLINE)
WARM_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how often; `paths` are the names of ALL_PATHS that take part."""

    seconds: int = 2
    rounds: int = 5
    idle: int = 2000
    connected: int = 5000
    paths: frozenset[str] = frozenset(ALL_PATHS)


@dataclass(frozen=True, slots=True)
class Lab:
    """What runs. Peers that do not take part are None, and missing among the targets."""

    root: Path
    options: Options
    upstream: Upstream
    towline: TowlineStack | None
    ssh: Sshd | None
    snitun: Snitun | None
    targets: tuple[Target, ...]  # in ALL_PATHS' order; what is measured beside one another

    @property
    def bases(self) -> dict[str, Target]:
        """For the latency a path adds: the direct way to the same upstream that each is compared with."""
        plain, tls = self.upstream.target, self.upstream.tls_target
        return {one.name: tls if one.tls else plain for one in self.targets}


def say(text: str) -> None:
    """Progress, for the person who waits."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def lab(options: Options) -> Iterator[Lab]:
    """Starts the upstream, the product and the chosen peers."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="towline-bench-")))
        root.chmod(0o755)
        up = stack.enter_context(upstream(root))
        targets: dict[str, Target] = {DIRECT: up.target, DIRECT_TLS: up.tls_target}
        server = product = relay = None
        if PROXY in options.paths:
            targets[PROXY] = stack.enter_context(nginx_proxy(root, up.port))
        if HAPROXY in options.paths:
            targets[HAPROXY] = stack.enter_context(haproxy(root, up.port))
        if SSH in options.paths:
            server = stack.enter_context(sshd(root))
            targets[SSH] = stack.enter_context(ssh_forward(server, up.port))
        if SNITUN in options.paths:
            relay = stack.enter_context(snitun_server(root))
            targets[SNITUN] = stack.enter_context(snitun_forward(relay, up.tls_port))
        if TOWLINE in options.paths:
            say("starting gateway, tunnel server and agent …")
            product = stack.enter_context(towline_stack(root, up.port))
            targets[TOWLINE] = product.target
        chosen = tuple(targets[name] for name in ALL_PATHS if name in options.paths)
        for target in chosen:  # pools, page cache, code: what a first request pays is not measured
            request_cost(target, "/1k", WARM_CONNECTIONS, 1)
        yield Lab(root, options, up, product, server, relay, chosen)
