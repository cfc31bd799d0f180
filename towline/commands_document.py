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
    Event.REFUSED: "the device's answer `refused`, and it never said `received`",
    Event.TTL_OVER: "`ttl_s` is over since it was made",
    Event.DEADLINE: "`timeout_s` is over since it was delivered",
    Event.DEVICE_GONE: "the device was revoked (`device_revoked`), left the site (`device_moved`) or became"
    " another type's (`device_retyped`)",
    Event.AWAY: "nobody listened, and it may not wait: `queue` was false (`device_away`)",
    Event.NOT_ALLOWED: "who asked for it may not any more: their role, login or API token, or the consent"
    " ended (`sender_not_allowed`)",
}
_AFTER = """
What is not in the table changes nothing: what is over stays over. An answer that comes after the gateway or
time has ended a command is kept beside it (`late`, `late_at`), and the state stays.

Everything that is still to be done stands in the command's row: when something is next due, never more than a
minute ahead, and that a gateway has it in hand, for five seconds at most. So nothing is stuck after any
restart, and a gateway that dies is replaced by whichever looks next. A command may therefore be published
more than once; the device's ledger makes of a repeat only the answer again (docs/protocol/device-v1.md).
A device that kept no id, of a `ping` or because its disk is lost, refuses the repeat. That says nothing of
the first one, which it had received: the command stays `delivered` until an outcome comes or its time is
over.

A command is its sender's as long as no device has it. Before each publish the gateway looks whether they
could still ask for it: shut out, logged out, with a lesser role, a revoked API token or an ended consent they
could not, and it fails. One that is delivered is the device's to do.

With `queue` false it is now or not at all: a device that was not heard for 150 s is away, one publish that
finds nobody is the end, and `ttl_s` is ten seconds at most, for a broker's or a gateway's restart.

`hops` in the answer is the way it went, each step with its time: `stored` and `published` by the gateway's
clock, `received` and `done` by the device's own, `logged` (with the place of the device's last answer in the
log) by ingest's, `finished` by the gateway's. `published` is when the broker's receipt came, by which the
device may have the command already. `trace` (W3C Trace Context; the caller's, if `POST` had a
`traceparent`) stands in the message to the device, in its answers, and in the log lines of gateway and agent:
one id to search for.
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
