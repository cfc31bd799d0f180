"""A malformed settings file names the field and exits 2, whichever service it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from towline.cli import main

NODE = """
node = "n"
ops_listen = "127.0.0.1:0"
[visitors]
listen = "127.0.0.1:0"
domain = "localhost"
[tunnels]
listen = "127.0.0.1:0"
server_names = ["localhost"]
[gateway]
internal_url = "https://localhost"
public_url = "http://localhost"
ca = "none.crt"
certificate = "none.crt"
key = "none.key"
"""
INGEST = """
ops_listen = "127.0.0.1:0"
broker.url = "mqtt://localhost"
[gateway]
internal_url = "https://localhost:8083"
ca = "none.crt"
certificate = "none.crt"
key = "none.key"
"""
GATEWAY = """
public_url = "http://localhost:1"
keys_dir = "keys"
agent_tunnel_urls = ["wss://localhost/tunnel"]
database_url_file = "none"
"""
AGENT = """
state_dir = "state"
[services.web]
address = "127.0.0.1:80"
"""


@pytest.mark.parametrize(
    ("service", "text", "field"),
    [
        (
            "server",
            NODE.replace('"127.0.0.1:0"\ndomain', '"x"\ndomain'),
            "visitors.listen: must be host:port",
        ),
        ("server", NODE, "gateway.ca: must be a readable file, not 'none.crt'"),
        (
            "server",
            NODE.replace("none.", "here.") + "[devices]\nopen_s = 0\n",
            "devices.open_s: must be 0.05..300, not 0",
        ),
        *(
            (
                service,
                text.replace("https://localhost", url),
                f"gateway.internal_url: must be https://host:port, not '{url}",
            )
            for service, text in (("server", NODE), ("ingest", INGEST))
            for url in (
                "127.0.0.1:23483",
                "http://localhost",
                "https://",
                "https://h:x",
                "https://u@h",
                "https://h/v1",
            )
        ),
        ("ingest", INGEST, "gateway.ca: must be a readable file, not 'none.crt'"),
        ("gateway", GATEWAY + "link_ttl_s = 61\n", "link_ttl_s: must be 5..60, not 61"),
        ("gateway", GATEWAY, "database_url_file"),
        ("agent", AGENT + 'kind = "ftp"\n', "services.web.kind: must be one of web, tcp, not 'ftp'"),
        ("agent", AGENT + 'colour = "red"\n', "services.web.colour: unknown setting"),
        ("agent", AGENT, "state_dir"),
    ],
)
def test_the_field_is_named_and_the_code_is_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], service: str, text: str, field: str
) -> None:
    config = tmp_path / "x.toml"
    config.write_text(text)
    for name in ("here.crt", "here.key"):
        (tmp_path / name).touch()
    assert main([service, "--config", str(config)]) == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert len([line for line in said if not line.startswith("{")]) == 1, said
    assert field in said[-1]


@pytest.mark.parametrize("service", ["server", "gateway", "agent"])
def test_a_file_that_is_not_there(tmp_path: Path, capfd: pytest.CaptureFixture[str], service: str) -> None:
    assert main([service, "--config", str(tmp_path / "none.toml")]) == 2
    assert "cannot read settings: No such file or directory" in capfd.readouterr().err
