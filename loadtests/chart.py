"""A bar chart as SVG that is readable on light and dark pages. Pure; standard library.

An image in a Markdown page sees the reader's colour scheme (`prefers-color-scheme`), so both sets of colours
are inside.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from loadtests.figures import Figure

WIDTH = 820
PANEL_WIDTH = 400
LABEL_WIDTH = 108
VALUE_WIDTH = 74
MOST_OF_MEDIAN = 5  # a bar longer than so many medians is cut, with an arrow
BAR_HEIGHT = 16
BAR_STEP = 22
TITLE_HEIGHT = 30
PANEL_GAP = 16
_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-weight: 600; }
  .bar { fill: #8c959f; }
  .own { fill: #0969da; }
  .spread { stroke: #1f2328; stroke-width: 1.5; }
  .ground { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .bar { fill: #6e7681; }
    .own { fill: #4493f8; }
    .spread { stroke: #e6edf3; }
    .ground { fill: #0d1117; }
  }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One group of bars: a title, a bar a path, and the digits of the numbers beside them."""

    title: str
    bars: Sequence[tuple[str, Figure]]
    digits: int

    @property
    def height(self) -> int:
        return TITLE_HEIGHT + BAR_STEP * len(self.bars)


def bars(panels: Sequence[Panel], highlight: str) -> str:
    """Panels in two columns; bars are medians from zero, the thin line is the spread of the rounds.

    A bar that ends in an arrow is longer than there is room.
    """
    parts: list[str] = []
    y = PANEL_GAP
    for first in range(0, len(panels), 2):
        pair = panels[first : first + 2]
        for column, panel in enumerate(pair):
            parts += _panel(panel, column * (PANEL_WIDTH + WIDTH - 2 * PANEL_WIDTH), y, highlight)
        y += max(panel.height for panel in pair) + PANEL_GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" '
        f'width="{WIDTH}" height="{y}" role="img">\n'
        f"<title>What each path costs</title>\n<style>{_STYLE}</style>\n"
        f'<rect class="ground" width="{WIDTH}" height="{y}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def scale(values: Sequence[float]) -> float:
    """What the full length of a bar stands for: the largest, unless it would make all others invisible."""
    return min(max(values), MOST_OF_MEDIAN * statistics.median(values)) or 1.0


def _panel(panel: Panel, x: float, y: float, highlight: str) -> list[str]:
    room = PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH
    most = scale([figure.high for _, figure in panel.bars])
    parts = [f'<text class="title" x="{x + 8}" y="{y + 14}">{escape(panel.title)}</text>']
    for index, (name, figure) in enumerate(panel.bars):
        top = y + TITLE_HEIGHT + index * BAR_STEP
        middle, zero = top + BAR_HEIGHT / 2, x + LABEL_WIDTH
        cut = figure.median > most
        length, low, high = (
            min(value / most, 1.0) * room for value in (figure.median, figure.low, figure.high)
        )
        kind = "bar own" if name == highlight else "bar"
        parts += [
            f'<text x="{zero - 6}" y="{top + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{zero}" y="{top}" width="{length:.1f}" height="{BAR_HEIGHT}" rx="2"/>',
            f'<line class="spread" x1="{zero + low:.1f}" x2="{zero + high:.1f}" '
            f'y1="{middle}" y2="{middle}"/>',
            f'<text x="{zero + high + 6:.1f}" y="{top + 12}">'
            f"{'→ ' if cut else ''}{figure.median:.{panel.digits}f}</text>",
        ]
    return parts
