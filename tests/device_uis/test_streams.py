"""Streams without an end: events within a second, a camera that keeps painting; closing the tab ends them."""

from __future__ import annotations

from itertools import pairwise

from playwright.sync_api import Page

from tests.browser.browser import WAIT_MS
from tests.device_uis.plain_device import PlainDevice
from tests.device_uis.sessions import Desk

ENDS_WITHIN_S = 5.0  # of closing the tab; the device's next write finds the connection gone
LIVE_MS = 1000.0  # an event's way to the page, unbuffered
TRIES = 3  # a machine that stands still for a moment spoils one; what holds events back does so in each


def event_times(page: Page) -> list[float]:
    """When each of a new stream's first events came, in ms since it was asked for."""
    times: list[float] = page.evaluate(
        """() => new Promise((resolve, reject) => {
            window.source?.close();
            const began = performance.now(), times = [];
            const source = window.source = new EventSource('/events');
            source.onmessage = () => {
                times.push(performance.now() - began);
                if (times.length === 12) resolve(times);
            };
            source.onerror = () => reject(new Error('the stream broke'));
        })"""
    )
    return times


def are_live(times: list[float]) -> bool:
    """None was late, and they did not come at once."""
    gaps = [later - earlier for earlier, later in pairwise([0.0, *times])]
    return max(gaps) < LIVE_MS and times[-1] - times[0] > LIVE_MS / 2


def test_events_come_one_by_one(page: Page, desk: Desk, plain_device: PlainDevice) -> None:
    """One event each 100 ms: buffered anywhere they would come in a heap."""
    desk.enter(page, "web")
    tries = [event_times(page)]
    while not are_live(tries[-1]) and len(tries) < TRIES:
        tries.append(event_times(page))
    assert are_live(tries[-1]), tries
    assert plain_device.wait_live("/events", 1, ENDS_WITHIN_S)
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
