"""The device's page as a person on its network has it: real Chromium, the simulator, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect

from scripts.sign_firmware import TARGETS, make_image, public_point
from testbed.ports import LOOPBACK
from testbed.processes import short_folder, started
from testbed.waiting import eventually
from tests.browser.browser import WAIT_MS, chromium
from tests.firmware.page_device import NAME, OURS, PIN, PageDevice

pytestmark = pytest.mark.xdist_group("firmware-page")

SIGNER = ec.generate_private_key(ec.SECP256R1())
TRIAL_MS = 1000  # of an update; what runs so long, with no cloud to reach, is confirmed
TABS = ("status", "settings", "logs", "system")
PHONE: ViewportSize = {"width": 360, "height": 640}
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
FINGER = 36.0  # CSS pixels: what a button may have at least on a phone


@pytest.fixture(scope="module")
def device(asan: Path) -> Iterator[PageDevice]:
    program = asan / "port" / "towline-device"
    options = ("--firmware-key", public_point(SIGNER.public_key()).hex(), "--trial", f"{TRIAL_MS},{TRIAL_MS}")
    with short_folder("page-") as folder, started(PageDevice(program, folder, *options)) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Finds nothing but this machine: as with the internet cut."""
    with chromium(resolve="*", trust="", address=f"~NOTFOUND , EXCLUDE {LOOPBACK}") as one:
        yield one


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    one = browser.new_context(viewport=DESKTOP)
    one.set_default_timeout(WAIT_MS)
    yield one
    one.close()


def log_in(page: Page, device: PageDevice, state: str = "Live") -> None:
    page.goto(device.url)
    page.get_by_label("PIN").fill(PIN)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#state")).to_have_text(state, timeout=WAIT_MS)


def open_tab(page: Page, tab: str) -> None:
    page.locator(f"nav a[href='#{tab}']").click()
    expect(page.locator(f"#{tab}")).to_be_visible(timeout=WAIT_MS)


def test_nobody_sees_anything_without_the_pin(context: BrowserContext, device: PageDevice) -> None:
    page = context.new_page()
    page.goto(device.url)
    expect(page.locator("#state")).to_have_text("Locked", timeout=WAIT_MS)
    assert page.locator("nav").is_hidden()
    page.get_by_label("PIN").fill("13572468")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("That is not the PIN.")).to_be_visible(timeout=WAIT_MS)
    log_in(page, device)
    expect(page.locator("h1")).to_have_text(NAME, timeout=WAIT_MS)
    cookie = context.cookies()[0]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    open_tab(page, "system")
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("#login")).to_be_visible(timeout=WAIT_MS)


def test_values_live_and_nothing_from_elsewhere(context: BrowserContext, device: PageDevice) -> None:
    page = context.new_page()
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    log_in(page, device)
    values = page.locator("#sensors b")
    expect(values.first).to_be_visible(timeout=WAIT_MS)
    before = values.all_inner_texts()
    eventually("measured values move", lambda: values.all_inner_texts() != before)
    for tab in TABS:
        open_tab(page, tab)
    assert faults == []
    assert {url for url in asked if not url.startswith((device.url + "/", "data:"))} == set()
    assert any(url.endswith("/api/live") for url in asked)
    assert sum(url.endswith("/api/status") for url in asked) <= 2  # the rest came by itself


def test_only_the_pages_own_script_runs(context: BrowserContext, device: PageDevice) -> None:
    page = context.new_page()
    answer = page.goto(device.url)
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page.evaluate(
        "() => { const put = document.createElement('script'); put.textContent = 'window.ran = 1';"
        " document.body.append(put) }"
    )
    assert page.evaluate("() => window.ran") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser: Browser, device: PageDevice, scheme: str) -> None:
    dark = scheme == "dark"
    context = browser.new_context(
        viewport=PHONE, is_mobile=True, has_touch=True, color_scheme="dark" if dark else "light"
    )
    context.set_default_timeout(WAIT_MS)
    try:
        page = context.new_page()
        log_in(page, device)
        for tab in TABS:
            open_tab(page, tab)
            assert page.evaluate("() => document.documentElement.scrollWidth") == PHONE["width"], tab
            for button in page.locator(f"#{tab} button").all():
                box = button.bounding_box()
                assert box is None or box["height"] >= FINGER, (tab, button.inner_text())
        ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        darkest = max(int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(","))
        assert (darkest < 64) == dark, ground
    finally:
        context.close()


def test_settings_are_kept_and_secrets_stay(context: BrowserContext, device: PageDevice) -> None:
    page = context.new_page()
    log_in(page, device)
    open_tab(page, "settings")
    expect(page.get_by_label("Name")).to_have_value(NAME, timeout=WAIT_MS)
    form = page.locator("form", has=page.get_by_role("heading", name="Device"))
    save = form.get_by_role("button", name="Save")
    expect(save).to_be_disabled(timeout=WAIT_MS)
    page.get_by_label("Name").fill("Pump “7” <b>")
    save.click()
    expect(page.locator("#told")).to_contain_text("saved", timeout=WAIT_MS)
    expect(page.locator("h1")).to_have_text("Pump “7” <b>", timeout=WAIT_MS)
    page.get_by_label("Network").fill("Yard")
    page.get_by_label("Password").fill("short")
    wifi = page.locator("form", has=page.get_by_role("heading", name="Wi-Fi"))
    wifi.get_by_role("button", name="Save").click()
    expect(page.locator("#wrong")).to_contain_text("8 to 63", timeout=WAIT_MS)
    page.get_by_label("Password").fill("correct horse")
    wifi.get_by_role("button", name="Save").click()
    expect(page.locator("#told")).to_contain_text("saved", timeout=WAIT_MS)
    expect(page.get_by_label("Password")).to_have_value("", timeout=WAIT_MS)
    with device.logged_in() as client:
        kept = client.get("/api/settings")
        assert (kept.json()["ssid"], kept.json()["has_password"]) == ("Yard", True)
        assert "correct horse" not in kept.text
        client.post("/api/settings", json={"name": NAME}).raise_for_status()


def test_logs(context: BrowserContext, device: PageDevice) -> None:
    page = context.new_page()
    log_in(page, device)
    open_tab(page, "logs")
    expect(page.locator("#lines")).to_contain_text("started", timeout=WAIT_MS)
    assert PIN not in page.locator("#lines").inner_text()
    page.get_by_label("Lines to show").select_option("EW")
    eventually("less is shown", lambda: "started" not in page.locator("#lines").inner_text())
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").click()
    assert "started" in Path(download.value.path()).read_text()


def watches(client: httpx.Client, until: ExitStack) -> bool:
    """Takes a place for live values, until the block ends; False: none is free."""
    answer = client.send(client.build_request("GET", "/api/live"), stream=True)
    until.callback(answer.close)
    return answer.status_code == httpx.codes.OK


def test_whoever_finds_no_live_place_asks(context: BrowserContext, device: PageDevice) -> None:
    with device.logged_in() as client, ExitStack() as until:
        for _ in range(2):  # a page that went is found out when it is written to
            eventually("a place is free", lambda: watches(client, until))
        page = context.new_page()
        log_in(page, device, "Online")
        values = page.locator("#sensors b")
        before = values.all_inner_texts()
        eventually("measured values move", lambda: values.all_inner_texts() != before)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"X-Towline": "1", "Origin": "http://evil.test"}, 403),
        ({"X-Towline": "1", "Origin": "null"}, 403),
        ({"X-Towline": "1", "Host": "evil.test"}, 421),
    ],
)
def test_another_site_changes_nothing(device: PageDevice, headers: dict[str, str], status: int) -> None:
    with device.logged_in() as client:
        del client.headers["X-Towline"]
        answer = client.post("/api/settings", json={"name": "stolen"}, headers=headers)
        assert answer.status_code == status
        assert client.get("/api/settings").json()["name"] == NAME


def test_the_page_is_asked_for_once(device: PageDevice) -> None:
    first = httpx.get(device.url)
    assert first.headers["content-encoding"] == "gzip"
    assert int(first.headers["content-length"]) <= 12 * 1024
    again = httpx.get(device.url, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_restart(context: BrowserContext, device: PageDevice) -> None:
    page = context.new_page()
    log_in(page, device)
    open_tab(page, "system")
    page.get_by_role("button", name="Restart").click()
    page.locator("#sure").click()
    expect(page.locator("#told")).to_contain_text("restarts", timeout=WAIT_MS)
    expect(page.locator("#login")).to_be_visible(timeout=WAIT_MS)  # a restart ends all logins
    expect(page.locator("#told")).to_have_text("The device is back.", timeout=WAIT_MS)
    log_in(page, device)
    expect(page.locator("#device")).to_contain_text("Restart", timeout=WAIT_MS)


def test_a_device_that_is_gone_is_missed(context: BrowserContext, device: PageDevice) -> None:
    page = context.new_page()
    log_in(page, device)
    device.kill()
    expect(page.locator("#lost")).to_contain_text("does not answer", timeout=WAIT_MS)
    assert page.locator("#connections").is_visible()  # what it said last
    device.again()
    expect(page.locator("#login")).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("#lost")).to_be_hidden(timeout=WAIT_MS)
    log_in(page, device)


def upload(page: Page, image: Path) -> None:
    page.get_by_label("New image").set_input_files(image)
    page.get_by_role("button", name="Upload").click()
    page.locator("#sure").click()


def test_an_update(context: BrowserContext, device: PageDevice, asan: Path, tmp_path: Path) -> None:
    app = (asan / "port" / "towline-device").read_bytes()
    good = make_image(app, SIGNER, target=TARGETS["simulator"], hardware="simulator", version=(9, 0, 0))
    image = tmp_path / "image.twf"
    page = context.new_page()
    log_in(page, device)
    open_tab(page, "system")
    for bad in (b"no image at all", good[:200] + b"?" + good[201:], good[:-1] + bytes([good[-1] ^ 1])):
        image.write_bytes(bad)
        upload(page, image)
        expect(page.locator("#wrong")).not_to_be_empty(timeout=WAIT_MS)
        expect(page.locator("#firmware")).to_contain_text("No update", timeout=WAIT_MS)
        open_tab(page, "logs")
        open_tab(page, "system")
        expect(page.locator("#wrong")).to_be_hidden(timeout=WAIT_MS)
    image.write_bytes(good)
    upload(page, image)
    expect(page.locator("#sent-note")).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("#login")).to_be_visible(timeout=WAIT_MS)
    log_in(page, device)
    expect(page.locator("#firmware")).to_contain_text("Confirmed", timeout=WAIT_MS)


def test_factory_reset(context: BrowserContext, device: PageDevice) -> None:
    with device.logged_in() as client:
        client.post("/api/settings", json={"name": "To be forgotten"}).raise_for_status()
    page = context.new_page()
    log_in(page, device)
    open_tab(page, "system")
    page.get_by_role("button", name="Reset …").click()
    expect(page.locator("#sure")).to_be_disabled(timeout=WAIT_MS)
    page.get_by_label("Type reset").fill("reset")
    page.locator("#sure").click()
    expect(page.locator("#lost")).to_contain_text("factory", timeout=WAIT_MS)

    def forgot() -> bool:
        with device.logged_in() as client:
            return bool(client.get("/api/settings").json()["name"] != "To be forgotten")

    eventually("the device starts anew", forgot)


def test_guessing_ends(device: PageDevice) -> None:
    """The last: for a minute nobody gets in any more."""

    def status(pin: str) -> int:
        return httpx.post(f"{device.url}/api/login", json={"pin": pin}, headers=OURS).status_code

    assert [status("00000000") for _ in range(5)] == [401] * 5
    assert [status("00000000"), status(PIN)] == [429] * 2
    device.check_runs()
