"""How far each device's numbered messages were taken, as this bridge knows it.

Nothing here needs to be remembered: a line that is forgotten begins again at the floor that the device's next
message names. So the memory is bounded by dropping the lines that were not used for longest, at any time.
"""

from __future__ import annotations

from collections import OrderedDict

from device_protocol.numbers import Line, Number, Offer


class Progress:
    """One device's. `line.have`: taken, maybe still on its way into the log; `done`: in the log."""

    __slots__ = ("done", "line")

    def __init__(self, floor: Number) -> None:
        self.line = Line(floor)
        self.done = floor

    def __repr__(self) -> str:
        return f"<Progress have={self.line.have} done={self.done}>"

    def logged(self, number: Number) -> None:
        """Everything up to this one is in the log."""
        self.done = max(self.done, number)


class Lines:
    """The lines of all devices, by the part of the log that they are in."""

    def __init__(self, parts: int, most: int) -> None:
        """`most` lines are kept in all; each part keeps its share."""
        self._parts: list[OrderedDict[str, Progress]] = [OrderedDict() for _ in range(parts)]
        self._share = max(1, most // max(1, parts))

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def offer(
        self, part: int, device: str, number: Number, before: Number, floor: Number
    ) -> tuple[Offer, Progress]:
        """Where the message stands; arguments as of `Line.offer`."""
        lines = self._parts[part]
        progress = lines.get(device)
        if progress is None:
            progress = lines[device] = Progress(floor)
            if len(lines) > self._share:
                lines.popitem(last=False)
        else:
            lines.move_to_end(device)
        offer = progress.line.offer(number, before, floor)
        if offer.passed:  # another bridge brought them into the log: the device was told so
            progress.logged(floor)
        return offer, progress

    def done(self, part: int, device: str) -> Number | None:
        """Up to where its messages are in the log; None: that is not remembered."""
        progress = self._parts[part].get(device)
        return None if progress is None else progress.done

    def forget(self, part: int) -> None:
        """What was taken for this part may not be in the log: nobody may be told that it is, and what comes
        behind it must not be taken.
        """
        self._parts[part].clear()
