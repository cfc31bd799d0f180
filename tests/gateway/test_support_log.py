"""The request log of a consent has an end: what finds no room is counted, told, and ends the consent."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.internal.models import PASSED_MAX
from gateway.store import support
from tests.gateway.test_request_ids import Lines, lines
from tests.gateway.test_support import Case, case

__all__ = ["case", "lines"]  # fixtures

ROOM = 5


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "LOG_LINES_MAX", ROOM)


def entry(case: Case, session: str, path: str = "/", **changes: Any) -> dict[str, Any]:
    sizes = {"method": "GET", "status": 200, "received": 0, "sent": 12, "ms": 3.5}
    at = case.world.clock.wall()
    return {"id": str(uuid4()), "sid": session, "at": at, "path": path, **sizes, **changes}


async def tell(case: Case, entries: list[dict[str, Any]]) -> httpx.Response:
    return await case.node.http.post("/internal/v1/request-log", json={"entries": entries})


async def state(case: Case, request_id: str) -> tuple[str, int, int]:
    """The request's state, how many lines its log has, and how many it says are missing."""
    request = (await case.owner.http.get(f"/v1/support-requests/{request_id}")).json()
    log = (await case.owner.http.get(f"/v1/support-requests/{request_id}/log?limit=200")).json()
    assert log["left_out"] == request["log_left_out"]
    return request["state"], len(log["items"]), log["left_out"]


async def test_a_full_log_says_what_is_missing_and_ends_the_consent(case: Case, lines: Lines) -> None:
    request_id, link = await case.consented(), await case.opened()
    assert (await tell(case, [entry(case, link.session) for _ in range(ROOM)])).status_code == 204
    assert await state(case, request_id) == ("approved", ROOM, 0)
    over = [entry(case, link.session) for _ in range(3)]
    assert (await tell(case, over)).status_code == 204
    assert await state(case, request_id) == ("ended", ROOM, 3)
    assert await case.revoked() == [link.session]
    sessions = f"/v1/devices/{case.device.id}/sessions"
    assert (await case.engineer.http.post(sessions, json={})).status_code == 404
    (said,) = [line for line in lines.seen if line["event"] == "request log"]
    assert (said["node"], said["left_out"], said["ended"]) == ("node-a", 3, [request_id])
    assert case.world.gateway.parts.metrics.request_log_left_out.value == 3
    (audited,) = (await case.owner.http.get(f"/v1/sites/{case.owner.site}/audit?kind=support.ended")).json()[
        "items"
    ]
    assert (audited["actor"]["id"], audited["detail"]["log_full"]) == ("gateway", ROOM)
    page = (await case.owner.http.get(f"/support/{request_id}")).text
    assert "The log is full: 3 more requests were not written down" in page
    # What was under way is told late, and changes the count alone.
    assert (await tell(case, [entry(case, link.session)])).status_code == 204
    assert await state(case, request_id) == ("ended", ROOM, 4)


async def test_one_call_fills_it_and_the_rest_is_counted(case: Case) -> None:
    request_id, link = await case.consented(), await case.opened()
    paths = [f"/{number}" for number in range(ROOM + 2)]
    lost = entry(case, link.session, part="lost", lost=2**63 - 1)
    assert (await tell(case, [entry(case, link.session, path) for path in paths])).status_code == 204
    assert await state(case, request_id) == ("ended", ROOM, 2)
    log = (await case.owner.http.get(f"/v1/support-requests/{request_id}/log")).json()["items"]
    assert [one["path"] for one in log] == paths[:ROOM]
    # A node that lies about how many it lost breaks no count.
    for _ in range(2):
        assert (await tell(case, [lost | {"id": str(uuid4())}])).status_code == 204
    assert (await state(case, request_id))[2] == 2**63 - 1


async def test_what_comes_again_takes_no_room(case: Case) -> None:
    """The gateway's answer was lost; the node tells again, and then goes on."""
    request_id, link = await case.consented(), await case.opened()
    batch = [entry(case, link.session) for _ in range(ROOM - 1)]
    for _ in range(3):
        assert (await tell(case, [*batch, batch[0]])).status_code == 204
    assert await state(case, request_id) == ("approved", ROOM - 1, 0)
    full = [*batch, entry(case, link.session)]
    for _ in range(2):
        assert (await tell(case, full)).status_code == 204
    assert await state(case, request_id) == ("approved", ROOM, 0)


async def test_one_consents_flood_is_not_anothers(case: Case) -> None:
    first, flooded = await case.consented(), await case.opened()
    await tell(case, [entry(case, flooded.session) for _ in range(ROOM)])
    await tell(case, [entry(case, flooded.session)])
    second, quiet = await case.consented(), await case.opened()
    mixed = [entry(case, flooded.session), entry(case, quiet.session, "/quiet")]
    assert (await tell(case, mixed)).status_code == 204
    assert await state(case, first) == ("ended", ROOM, 2)
    assert await state(case, second) == ("approved", 1, 0)


async def test_a_call_is_bounded(case: Case) -> None:
    request_id, link = await case.consented(), await case.opened()
    answer = await tell(case, [entry(case, link.session) for _ in range(PASSED_MAX + 1)])
    assert (answer.status_code, answer.json()["field"]) == (422, "entries")
    assert await state(case, request_id) == ("approved", 0, 0)
