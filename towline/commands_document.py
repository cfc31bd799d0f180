"""docs/commands.md: the states of a command, drawn from the one table that moves them."""

from __future__ import annotations

from typing import Final

from gateway.policy.commands import FINAL, TABLE, Event, State

_MEANT: Final[dict[State, str]] = {
    State.QUEUED: "It is kept, and waits for the device: published again after 1 to 30 s, and at its hello.",
    State.SENT: "The broker took it. That proves nothing about the device (N16).",
    State.DELIVERED: "The device has stored its id, and will do it once or say why not, whatever happens.",
    State.SUCCEEDED: "The device did it; `result` is what it says.",
    State.FAILED: "The device could not or would not, or is not there any more; `error` says why.",
    State.TIMED_OUT: "It was delivered, and no end came within `timeout_s`. It may have been done.",
    State.EXPIRED: "No device said within `ttl_s` that it has it. Without `sent_at` none was told.",
}
_HAPPENS: Final[dict[Event, str]] = {
    Event.TAKEN: "the broker took the message and, by MQTT 5, had somebody to give it to",
    Event.UNHEARD: "nobody listened (PUBACK 16), or there is no broker",
    Event.RECEIVED: "the device's answer `received`",
    Event.DONE: "the device's answer `done`, ok",
    Event.ERROR: "the device's answer `done`, not ok",
    Event.REFUSED: "the device's answer `refused`",
    Event.TTL_OVER: "`ttl_s` is over since it was made",
    Event.DEADLINE: "`timeout_s` is over since it was delivered",
    Event.DEVICE_GONE: "the device was revoked (`device_revoked`) or left the site (`device_moved`)",
}
_AFTER = """
What is not in the table changes nothing: what is over stays over. An answer that comes after the gateway or
time has ended a command is kept beside it (`late`, `late_at`), and the state stays.

Everything that is still to be done stands in the command's row: when something is next due, never more than a
minute ahead, and that a gateway has it in hand, for five seconds at most. So nothing is stuck after any
restart, and a gateway that dies is replaced by whichever looks next. A command may therefore be published
more than once; the device's ledger makes of a repeat only the answer again (docs/protocol/device-v1.md).
"""


def commands_document(head: str) -> str:
    """The picture, and what its words mean. `head`: what every written document begins with."""
    arrows = [f"    {state} --> {after}: {event}\n" for (state, event), after in sorted(TABLE.items())]
    ends = [f"    {state} --> [*]\n" for state in State if state in FINAL]
    states = [f"| `{state}` | {_MEANT[state]} |\n" for state in State]
    events = [f"| `{event}` | {_HAPPENS[event]} |\n" for event in Event]
    return "".join(
        (
            f"# Commands\n\n{head}",
            "A command is asked of a device once, and is honest about how far it came.\n",
            "[The API's guide](api.md) says how to send one.\n",
            "\n```mermaid\nstateDiagram-v2\n    [*] --> queued\n",
            *arrows,
            *ends,
            "```\n\n| state | what it says |\n|---|---|\n",
            *states,
            "\n| event | what happened |\n|---|---|\n",
            *events,
            _AFTER,
        )
    )
