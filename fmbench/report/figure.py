"""A picture of a report: as files, and as part of a page."""

import re
from dataclasses import dataclass

from markupsafe import escape

# What the pictures are drawn with; a page with a dark scheme has its own.
_COLOURS = {
    "#1a1a1a": "var(--figure-ink)",
    "#555555": "var(--figure-soft)",
    "#e2e2e2": "var(--figure-pale)",
    "#ffffff": "var(--figure-paper)",
}


@dataclass(frozen=True)
class Figure:
    """A picture, drawn.

    Attributes:
        name: Of its files below `figures/`, without ending: curves_lenet.
        data: The data set of the section it belongs to; None where it belongs to a search.
        title: Its heading.
        caption: A sentence or two, plain text.
        alt: What it shows, for those who do not see it.
        png: It as a PNG.
        svg: It as a standalone SVG.
    """

    name: str
    data: str | None
    title: str
    caption: str
    alt: str
    png: bytes
    svg: str

    @property
    def inline(self) -> str:
        """The SVG as part of a page: it takes its colours from the page's CSS."""
        drawn = self.svg[self.svg.index("<svg") :]
        for colour, variable in _COLOURS.items():
            drawn = re.sub(colour, variable, drawn, flags=re.IGNORECASE)
        return drawn.replace("<svg", f'<svg role="img" aria-label="{escape(self.alt)}"', 1)
