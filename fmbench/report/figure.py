"""A figure of the report: its two files' contents, and the words that go with it."""

import re
from dataclasses import dataclass
from html import escape

#: The colours that follow a page from light to dark, and the variable of CSS that gives each.
PAGE_COLOURS = {
    "#1a1a1a": "--figure-ink",
    "#555555": "--figure-soft",
    "#e2e2e2": "--figure-pale",
    "#ffffff": "--figure-paper",
}

_VIEW = re.compile(r'viewBox="[-0-9. ]+"')
#: Matplotlib numbers the groups of every drawing alike, and nothing refers to them.
_GROUP = re.compile(r'(?<=<g) id="[^"]*"')
_START = '<g id="figure_1">'
# In text, < and > are entities: what stands between two of them is a tag of the drawing.
_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True)
class Figure:
    """A figure of the report; its texts are plain."""

    name: str  # of its files, without ending: letters, digits, _ and -, of no other figure
    data: str  # the data set, or the folder of the search, that it belongs to
    title: str
    caption: str  # what is seen, and what bands and marks mean
    alt: str  # for those who do not see it: the main numbers in words
    png: bytes  # of twice the pixels of the page
    svg: str  # as matplotlib writes it, on white paper

    @property
    def inline(self) -> str:
        """The SVG for an HTML page: as wide as its place, in the page's colours.

        Without what stands before the drawing, which has a style for the whole page. Ink, soft
        text, grid and paper are the variables of `PAGE_COLOURS`, with the colours of paper where a
        page does not set them. The colours of the data stay: they are readable on light and dark.
        """
        head, start, drawing = self.svg.partition(_START)
        view = _VIEW.search(head)
        assert view is not None
        body = _TAG.sub(_in_page_colours, _GROUP.sub("", start + drawing))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'{view[0]} width="100%" role="img" aria-label="{escape(self.alt)}" '
            f'stroke-linejoin="round" stroke-linecap="butt">{body}'
        )


def _in_page_colours(tag: re.Match[str]) -> str:
    text = tag[0]
    for colour, variable in PAGE_COLOURS.items():
        text = text.replace(colour, f"var({variable}, {colour})")
    return text
