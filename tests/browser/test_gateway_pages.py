"""The gateway's plain pages: log in, approve, end, revoke; by clicking what they show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from testbed.people import CALL_TIMEOUT_S
from testbed.processes import ROOT
from testbed.up import Stack
from tests.browser.browser import WAIT_MS
from tests.browser.devices import device

PENDING = 3  # exit code of `towline agent enrol` while nobody has approved


@pytest.fixture
def logged_in(page: Page, plain: Stack) -> Page:
    page.goto(plain.address)
    expect(page.get_by_role("heading", name="Devices")).to_be_visible(timeout=WAIT_MS)
    return page


def enrol_unapproved(stack: Stack, folder: Path, name: str) -> None:
    folder.mkdir()
    (folder / "agent.toml").write_text('state_dir = "state"\n[services.web]\naddress = "127.0.0.1:9"\n')
    token = folder / "token"
    token.write_text(stack.cli("token", "--name", name).stdout)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "towline", "agent", "enrol", stack.gateway, "--token-file", str(token)),
            *("--config", str(folder / "agent.toml"), "--name", name, "--hardware-id", name, "--wait", "0.1"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=CALL_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == PENDING, done.stdout + done.stderr


def test_a_password_logs_in_and_the_wanted_page_comes_back(page: Page, plain: Stack) -> None:
    credentials = json.loads((plain.data / "credentials.json").read_text())
    person = plain.newcomer()
    wanted = f"{plain.gateway}/devices/{person.device()['id']}"
    person.close()
    page.goto(wanted)
    page.wait_for_url("**/login**")
    page.locator("input[name=username]").fill(credentials["username"])
    page.locator("input[name=password]").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#notice")).to_be_visible(timeout=WAIT_MS)
    page.locator("input[name=password]").fill(credentials["password"])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(wanted)
    expect(page.get_by_role("heading", name="Demo device")).to_be_visible(timeout=WAIT_MS)


def test_logging_out_ends_it(logged_in: Page, plain: Stack) -> None:
    logged_in.get_by_role("button", name="Log out").click()
    logged_in.wait_for_url("**/login**")
    logged_in.goto(plain.gateway)
    logged_in.wait_for_url("**/login**")


def test_a_token_is_shown_once(logged_in: Page) -> None:
    logged_in.get_by_role("button", name="Make a token").click()
    expect(logged_in.locator("#token-text")).not_to_be_empty(timeout=WAIT_MS)
    logged_in.reload()
    expect(logged_in.locator("#token-text")).to_be_empty()


def test_a_pending_device_appears_and_is_approved(logged_in: Page, plain: Stack, folder: Path) -> None:
    enrol_unapproved(plain, folder / "pending", "pending")
    card = logged_in.locator("[data-device]").filter(has_text="pending").first
    expect(card).to_be_visible(timeout=WAIT_MS)  # the page looks for new devices by itself
    card.get_by_role("button", name="Approve").click()
    expect(card.locator("[data-state]")).to_have_text("offline", timeout=WAIT_MS)


def test_a_rejected_device_leaves_the_list(logged_in: Page, plain: Stack, folder: Path) -> None:
    enrol_unapproved(plain, folder / "rejected", "unwanted")
    card = logged_in.locator("[data-device]").filter(has_text="unwanted")
    card.get_by_role("button", name="Reject").click(timeout=WAIT_MS)
    expect(card).to_have_count(0, timeout=WAIT_MS)


def test_the_devices_page_shows_its_readings_and_a_command_as_they_come(
    logged_in: Page, plain: Stack
) -> None:
    person = plain.newcomer()
    identity = person.device()["id"]
    logged_in.goto(f"{plain.gateway}/devices/{identity}")
    readings = logged_in.locator("[data-reading=temperature]")
    expect(readings).to_be_visible(timeout=WAIT_MS)  # also when the page came before the first of them
    ping = logged_in.get_by_role("button", name="Ping")
    ping.click()
    newest = logged_in.locator("#commands li").first
    expect(newest.locator(".state")).to_have_text("succeeded", timeout=WAIT_MS)
    expect(newest).to_contain_text("the broker's receipt")
    expect(newest).to_contain_text("finished")
    before = logged_in.locator("#commands li").count()
    # What somebody else asks of it is seen without a click.
    person.call("POST", f"/v1/devices/{identity}/commands", {"name": "ping"})
    expect(logged_in.locator("#commands li")).to_have_count(before + 1, timeout=WAIT_MS)
    person.close()


def test_a_session_ends_from_the_devices_page(logged_in: Page, plain: Stack) -> None:
    person = plain.newcomer()
    identity = person.device()["id"]
    person.open_session(identity)
    logged_in.goto(f"{plain.gateway}/devices/{identity}")
    rows = logged_in.locator("[data-session]")
    expect(rows.first).to_be_visible(timeout=WAIT_MS)
    before = rows.count()
    rows.first.get_by_role("button", name="End").click()
    expect(rows).to_have_count(before - 1, timeout=WAIT_MS)
    assert len(person.http.get("/v1/sessions").json()["items"]) == before - 1
    person.close()


def test_revoking_asks_twice_and_cuts_the_device(logged_in: Page, plain: Stack, folder: Path) -> None:
    with device(plain, folder / "doomed", "doomed") as identity:
        logged_in.goto(f"{plain.gateway}/devices/{identity}")
        logged_in.get_by_role("button", name="Revoke").click()
        logged_in.get_by_role("button", name="Really revoke").click()
        expect(logged_in.locator("[data-state]")).to_have_text("revoked", timeout=WAIT_MS)
        expect(logged_in.get_by_role("button", name="Open", exact=True)).to_have_count(0)


def test_a_hostile_name_is_only_text(logged_in: Page, plain: Stack, folder: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    enrol_unapproved(plain, folder / "hostile", name)
    alerts: list[str] = []
    logged_in.on("dialog", lambda dialog: alerts.append(dialog.message))
    logged_in.reload()
    expect(logged_in.get_by_text(name)).to_be_visible(timeout=WAIT_MS)
    assert alerts == []
