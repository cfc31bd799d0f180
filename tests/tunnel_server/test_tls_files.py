"""Certificate files that cannot be used name their setting."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.internal_http import client_context
from runtime.settings import SettingsError
from tests.tunnel_server.conftest import settings
from tests.tunnel_server.test_tls import write_certificate
from tunnel_server.edge.listener import visitor_context
from tunnel_server.settings import Settings
from tunnel_server.tunnels.node import server_context


@pytest.mark.parametrize(
    ("make", "section"),
    [
        (lambda config: visitor_context(config.visitors), "visitors"),
        (lambda config: server_context(config.tunnels), "tunnels"),
        (lambda config: client_context(config.gateway), "gateway"),
    ],
)
def test_a_certificate_and_a_key_that_are_no_pair(
    tmp_path: Path, make: Callable[[Settings], ssl.SSLContext], section: str
) -> None:
    chain, _ = write_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = write_certificate(tmp_path / "other")
    pair = {"certificate": chain, "key": other}
    plain = settings(visitors=pair, tunnels=pair)
    config = replace(plain, gateway=replace(plain.gateway, ca=chain, certificate=chain, key=other))
    with pytest.raises(SettingsError, match=rf"{section}\.certificate, {section}\.key: .*MISMATCH"):
        make(config)


def test_a_ca_that_is_none(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path)
    (tmp_path / "ca").write_text("garbage")
    gateway = replace(settings().gateway, ca=tmp_path / "ca", certificate=chain, key=key)
    with pytest.raises(SettingsError, match=r"gateway\.ca: .* holds no certificate"):
        client_context(gateway)
