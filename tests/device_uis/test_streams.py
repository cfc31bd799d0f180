"""Streams without an end: events within a second, a camera that keeps painting; closing the tab ends them."""

from __future__ import annotations

from itertools import pairwise

from playwright.sync_api import Page

from tests.browser.browser import WAIT_MS
from tests.device_uis.plain_device import PlainDevice
from tests.device_uis.sessions import Desk

ENDS_WITHIN_S = 5.0  # of closing the tab; the device's next write finds the connection gone
LIVE_MS = 1000.0  # an event's way to the page, unbuffered


def test_events_come_one_by_one(page: Page, desk: Desk, plain_device: PlainDevice) -> None:
    """One event each 100 ms: buffered anywhere they would come in a heap."""
    desk.enter(page, "web")
    times = page.evaluate(
        """() => new Promise((resolve, reject) => {
            const began = performance.now(), times = [];
            const source = new EventSource('/events');
            source.onmessage = () => {
                times.push(performance.now() - began);
                if (times.length === 12) resolve(times);
            };
            source.onerror = () => reject(new Error('the stream broke'));
        })"""
    )
    assert times[0] < LIVE_MS
    assert max(later - earlier for earlier, later in pairwise(times)) < LIVE_MS
    assert times[-1] - times[0] > LIVE_MS / 2, "they came at once: something held them back"
    assert plain_device.wait_live("/events", 1, 0)
    page.close()
    assert plain_device.wait_live("/events", 0, ENDS_WITHIN_S)


def test_a_camera_keeps_painting(page: Page, desk: Desk, plain_device: PlainDevice) -> None:
    desk.enter(page, "web")
    page.evaluate("document.getElementById('camera').src = '/camera'")
    page.wait_for_function(
        """() => {
            const camera = document.getElementById('camera');
            if (!camera.naturalWidth) return false;
            const canvas = document.createElement('canvas').getContext('2d');
            canvas.drawImage(camera, 0, 0);
            window.seen = (window.seen || new Set()).add(canvas.getImageData(3, 3, 1, 1).data[0]);
            return window.seen.size >= 10;
        }""",
        timeout=WAIT_MS,
    )
    assert plain_device.wait_live("/camera", 1, 0)
    page.close()
    assert plain_device.wait_live("/camera", 0, ENDS_WITHIN_S)
