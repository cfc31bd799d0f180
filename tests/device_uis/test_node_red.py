"""Node-RED 4 behind the tunnel: log in, deploy a flow, see it talk by WebSocket, log out (row K10)."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page, expect

from testbed.up import Stack
from tests.browser.browser import WAIT_MS
from tests.browser.devices import Local, agent, enrol, write_config
from tests.device_uis import walks
from tests.device_uis.programs import Program
from tests.device_uis.sessions import Desk

_FLOW = [
    {
        "id": "ticks",
        "type": "inject",
        "z": "",
        "name": "ticks",
        "props": [{"p": "payload"}],
        "repeat": "0.5",
        "once": True,
        "onceDelay": 0.1,
        "payload": "pressure 4.2 bar",
        "payloadType": "str",
        "x": 200,
        "y": 100,
        "wires": [["shows"]],
    },
    {
        "id": "shows",
        "type": "debug",
        "z": "",
        "name": "shows",
        "active": True,
        "tosidebar": True,
        "complete": "payload",
        "targetType": "msg",
        "x": 400,
        "y": 100,
        "wires": [],
    },
]


def deploy(page: Page) -> None:
    """Import a flow into the open editor, deploy it, and look at the debug sidebar."""
    page.evaluate(
        """(flow) => {
            RED.view.importNodes(flow, { generateIds: true, touchImport: true });
            RED.nodes.dirty(true);
            RED.sidebar.show('debug');
        }""",
        _FLOW,
    )
    with page.expect_response(lambda answer: answer.url.endswith("/flows")) as deployed:
        page.locator("#red-ui-header-button-deploy").click()
    assert deployed.value.status == 200, deployed.value.text()


def test_a_deployed_flow_talks_back(page: Page, desk: Desk, programs: dict[str, Program]) -> None:
    desk.enter(page, "node-red")
    walks.node_red(page)
    deploy(page)
    message = page.locator(".red-ui-debug-msg").last
    expect(message).to_contain_text("pressure 4.2 bar", timeout=WAIT_MS)
    stored = json.loads((programs["node-red"].folder / "flows.json").read_text())
    assert {"inject", "debug"} <= {node["type"] for node in stored}
    page.reload()
    expect(page.locator("#red-ui-header-button-deploy")).to_be_visible(timeout=WAIT_MS)  # still logged in
    page.locator("#red-ui-header-button-user").click()
    page.locator("#usermenu-item-logout").click()
    expect(page.locator("#node-dialog-login-username, #red-ui-header-button-user").first).to_be_visible(
        timeout=WAIT_MS
    )


def test_a_part_of_a_file(page: Page, desk: Desk, programs: dict[str, Program]) -> None:
    content = bytes(range(256)) * 4096
    (programs["node-red"].folder / "static" / "log.bin").write_bytes(content)
    desk.enter(page, "node-red")
    status, told, got = page.evaluate(
        """async () => {
            const answer = await fetch('/static/log.bin', { headers: { Range: 'bytes=1000-1999' } });
            const bytes = [...new Uint8Array(await answer.arrayBuffer())];
            return [answer.status, answer.headers.get('content-range'), bytes];
        }"""
    )
    assert (status, told) == (206, f"bytes 1000-1999/{len(content)}")
    assert bytes(got) == content[1000:2000]


def test_its_own_reconnect_works_when_the_tunnel_comes_back(
    page: Page, desk: Desk, stack: Stack, folder: Path, programs: dict[str, Program]
) -> None:
    """The agent dies and comes back: the editor says so, and goes on by itself."""
    own = folder / "dropping"
    own.mkdir()
    write_config(own, {"web": Local(programs["node-red"].port)})
    enrol(stack, own, "dropping")
    with agent(stack, own, "dropping") as identity:
        desk.enter(page, "web", identity)
        walks.node_red(page)
    lost = page.get_by_text("Lost connection to server")
    expect(lost).to_be_visible(timeout=WAIT_MS)
    with agent(stack, own, "dropping"):
        expect(lost).to_be_hidden(timeout=WAIT_MS)
        deploy(page)
        expect(page.locator(".red-ui-debug-msg").last).to_contain_text("pressure", timeout=WAIT_MS)
