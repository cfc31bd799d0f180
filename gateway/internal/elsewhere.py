"""What a node that has just started asks before it takes visitors."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from gateway.internal.peer import Node
from gateway.parts import Parts
from gateway.store import presence

router = APIRouter(prefix="/internal/v1", tags=["internal"])


class ElsewhereAnswer(BaseModel):
    """`devices`: held by other living nodes; `missing`: those of them that the asking node does not hold."""

    devices: int
    missing: int


@router.get("/presence/elsewhere")
async def elsewhere(node: Node, parts: Parts) -> ElsewhereAnswer:
    """The devices that other living nodes hold."""
    async with parts.database.transaction() as tx:
        devices, missing = await presence.held_elsewhere(tx, node)
    return ElsewhereAnswer(devices=devices, missing=missing)
