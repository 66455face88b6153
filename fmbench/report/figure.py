"""A picture of the report: its two files' contents, and the words that go with it."""

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

_PROLOGUE = re.compile(r"\A.*?(?=<svg\b)", re.DOTALL)
_ROOT = re.compile(r"\A<svg\b[^>]*>\s*(?:<title>[^<]*</title>)?")
_VIEW = re.compile(r'\bviewBox="([-0-9. ]+)"')
# In text, < and > are entities: what stands between two of them is a tag of the drawing.
_TAG = re.compile(r"<[^<>]*>")
_COLOUR = re.compile(r"(?<=[:\"] )#[0-9a-f]{6}\b|(?<=[:\"])#[0-9a-f]{6}\b")


@dataclass(frozen=True)
class Figure:
    """A picture of the report.

    Attributes:
        name: Of its files, without ending: `curves_lenet`. Letters, digits, `_` and `-` alone, and
            no other figure of the report has it.
        data: The data set whose section it belongs to; None where it belongs to a search.
        title: Its heading, as plain text.
        caption: What is seen, and what bands and marks mean, as plain text.
        alt: For those who do not see it: the main figures in words, as plain text.
        png: Of twice the pixels of the page.
        svg: A file of its own, on white paper.
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
        """The SVG for an HTML page: as wide as its place, in the page's colours.

        Ink, soft text, grid and paper are the variables of `PAGE_COLOURS`, with the colours of
        paper where a page does not set them. The colours of the data stay: they are chosen to be
        readable on light and on dark.
        """
        svg = _PROLOGUE.sub("", self.svg, count=1)
        root = _ROOT.match(svg)
        view = _VIEW.search(svg)
        assert root is not None
        assert view is not None
        body = _TAG.sub(_in_page_colours, svg[root.end() :])
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{view[1]}" width="100%" role="img" aria-label="{escape(self.alt)}" '
            f'stroke-linejoin="round" stroke-linecap="butt">{body}'
        )


def _in_page_colours(tag: re.Match[str]) -> str:
    if "#" not in tag[0]:
        return tag[0]
    return _COLOUR.sub(_variable, tag[0])


def _variable(colour: re.Match[str]) -> str:
    name = PAGE_COLOURS.get(colour[0])
    return f"var({name}, {colour[0]})" if name else colour[0]
