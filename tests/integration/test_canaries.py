"""What passes a node and an agent is in neither's log, nor in what the agent keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from testbed.people import entered
from testbed.processes import short_folder, started
from testbed.small_site import NODE, SmallSite

NAME = "greenhouse"
# A grant is a JWT: base64url of a JSON object, then a dot. Nobody outside the node and the agent sees one.
# Without the dot one certificate in a thousand, which are base64 too, has such letters by chance.
GRANT_BEGINS = re.compile(r"eyJ[\w-]+\.")


@pytest.fixture(scope="module")
def site() -> Iterator[SmallSite]:
    with short_folder("can-") as folder, started(SmallSite(folder)) as running:
        yield running


def texts(site: SmallSite) -> dict[str, str]:
    """The logs of the node and the agent, and every file that the agent keeps."""
    logs = [site.processes.folder / f"{name}.log" for name in (NODE, f"agent-{NAME}")]
    kept = [path for path in (site.folder / f"{NAME}-state").rglob("*") if path.is_file()]
    assert kept
    return {str(path): text_of(path) for path in [*logs, *kept]}


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return data.decode(errors="replace") + data.hex()


def test_no_cookie_link_or_grant_stays_at_a_node_or_an_agent(site: SmallSite) -> None:
    owner = site.gateways.owner()
    device = site.add_device(NAME, owner)
    secrets = {}
    for turn in range(2):
        opened = owner.open_session(device) if turn else owner.open_here(device)
        with closing(entered(opened["url"])) as visitor:
            assert visitor.http.get("/").status_code == 200
            for name, value in visitor.http.cookies.items():
                secrets[f"{name} {turn}"] = value
            secrets[f"link {turn}"] = visitor.token
            assert visitor.enter().status_code != 303  # again: refused, and perhaps said
    assert len(secrets) == 4
    found = texts(site)
    hits = [
        (name, path) for name, secret in secrets.items() for path, text in found.items() if secret in text
    ]
    assert hits == []
    kept_jws = [path for path, text in found.items() if GRANT_BEGINS.search(text)]
    assert [Path(path).name for path in kept_jws] == ["keylist.jws"]  # signed public keys
    assert any(device in text for text in found.values())  # the looking finds what is there
