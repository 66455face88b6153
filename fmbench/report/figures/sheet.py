"""A picture measured in pixels of a page 900 wide, from its top left corner.

Drawn once, saved as PNG and as SVG. matplotlib is imported when something is drawn: most of what
reads results need not wait for it.
"""

import functools
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fmbench.core.errors import one_line
from fmbench.grid import DENSITY, FONT, INCH, INK, MARGIN, SOFT, matplotlib_alone
from fmbench.report.figure import PAGE_COLOURS
from fmbench.report.figures import svg
from fmbench.report.figures.axis import Axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 880
LEFT, RIGHT = 76, 24  # beside axes
HEADING, LABELS, GAP = 32, 50, 18  # above axes; below them; between panels
SLANTED = 50  # more below axes whose names are written slanted
TICK, TEXT, PANEL = 12.5, 13.5, 15  # font sizes; a phone shows less than half of them
LINE = 22  # height of a line of text

# Of Okabe and Ito (2008), who chose them for the colour-blind. Their orange and sky blue are darker
# here, so that all have a contrast of 3 to white and to a dark page's #111 (WCAG 2.2, 1.4.11).
BLUE, RED, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY = "#c18500", "#3e9ace"
SERIES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY, PALE, PAPER = "#8a8a8a", "#e2e2e2", "#ffffff"
BAND = 0.22  # how much of its colour a band has

assert {INK, SOFT, PALE, PAPER} == set(PAGE_COLOURS)

#: What a mark means: a text, a colour, and a marker of matplotlib, "-" or "--" for lines, or
#: "band".
Entry = tuple[str, str, str]

#: left, top, width, height in pixels of the page.
Box = tuple[float, float, float, float]


class Sheet:
    """A picture that is being drawn: get one from `drawing`.

    Args:
        name: Of its files; the ids in its SVG are other ones for another name.
        height: In pixels of the page.
    """

    def __init__(self, name: str, height: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.name = name
        self.height = height
        size = (WIDTH / INCH, height / INCH)
        self.figure: Figure = Figure(figsize=size, dpi=INCH * DENSITY, facecolor=PAPER)
        FigureCanvasAgg(self.figure)

    def write(self, x: float, y: float, text: str, size: float = TEXT, **options: Any) -> None:
        """Write one line, its middle at a height."""
        place = (x / WIDTH, 1 - y / self.height)
        self.figure.text(*place, text, **(_style(size, INK) | options))

    def axes(self, box: Box, x: Axis, y: Axis) -> "Axes":
        """Axes with few lines and their own labels, in a box: left, top, width, height."""
        left, top, width, height = box
        axes = self.bare(box)
        axes.set_xscale("log" if x.log else "linear")
        axes.set_yscale("log" if y.log else "linear")
        axes.set_xlim(x.low, x.high)
        axes.set_ylim(y.low, y.high)
        # Ticks of our own: matplotlib's would read a name's dollar signs as formulas.
        axes.set_xticks([], minor=True)
        axes.set_yticks([], minor=True)
        axes.set_xticks([place for place, _ in x.ticks], [""] * len(x.ticks))
        axes.set_yticks([place for place, _ in y.ticks], [""] * len(y.ticks))
        axes.tick_params(length=0)
        axes.grid(visible=True, axis="both" if not x.names else "y", color=PALE, linewidth=0.9)
        axes.set_axisbelow(True)
        style = _style(TICK, SOFT)
        slant: dict[str, Any] = {"ha": "center"}
        if x.slanted:
            slant = {"rotation": 32, "ha": "right", "rotation_mode": "anchor"}
        for at, text in x.ticks:
            where = {"transform": axes.get_xaxis_transform(), "va": "top"}
            axes.text(at, -8 / height, text, **(style | slant | where))
        for at, text in y.ticks if y.labelled else ():
            across = axes.get_yaxis_transform()
            axes.text(-7 / width, at, text, **(style | {"transform": across, "ha": "right"}))
        label_top = top + height + (34 if not x.slanted else 34 + SLANTED)
        self.write(left + width / 2, label_top, x.label, color=SOFT, ha="center")
        return axes

    def bare(self, box: Box) -> "Axes":
        """Axes without anything, in a box: left, top, width, height."""
        left, top, width, height = box
        bottom = 1 - (top + height) / self.height
        place = (left / WIDTH, bottom, width / WIDTH, height / self.height)
        axes = self.figure.add_axes(place)
        axes.patch.set_visible(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([])
        return axes

    def heading(self, top: float, text: str, *entries: Entry, left: float = MARGIN) -> None:
        """A panel's heading, and at its right what the marks mean."""
        right = float(WIDTH - RIGHT)
        for entry in reversed(entries):
            right -= self._entry_width(entry)
            self.entry(right, top + 8, entry)
            right -= 18
        shown = fitted(text, right - left, PANEL, bold=True)
        self.write(left, top + 8, shown, PANEL, fontweight="bold")

    def entry(self, left: float, middle: float, entry: Entry) -> float:
        """A mark and its meaning; where it ends."""
        text, colour, marker = entry
        wide = _mark_width(marker)
        self.mark(left + wide / 2, middle, colour, marker)
        self.write(left + wide + 7, middle, text, color=SOFT)
        return left + self._entry_width(entry)

    def entries(self, top: float, *entries: Entry) -> None:
        """A line of them, from the left."""
        left = float(MARGIN)
        for entry in entries:
            left = self.entry(left, top + LINE / 2, entry) + 24

    def mark(self, x: float, y: float, colour: str, marker: str) -> None:
        """One mark with its middle at a place; lines with a marker on them: "-o"."""
        from matplotlib.lines import Line2D

        if marker == "band":
            self.bar((x - 13, y - 7, 26, 14), colour, BAND)
            return
        line = marker.rstrip("os^DvP") if marker.startswith("-") else ""
        if line:
            ends = [(x - 13) / WIDTH, (x + 13) / WIDTH], [1 - y / self.height] * 2
            dashes: dict[str, Any] = {"ls": (0, (3.2, 1.8))} if line == "--" else {}
            self.figure.add_artist(Line2D(*ends, color=colour, lw=2, **dashes))
        if symbol := marker.removeprefix(line):
            middle = [x / WIDTH], [1 - y / self.height]
            style: dict[str, Any] = {
                "ms": 6.5,
                "mew": 0 if symbol not in "x|" else 1.6,
                "ls": "none",
            }
            self.figure.add_artist(Line2D(*middle, color=colour, marker=symbol, **style))

    def bar(self, box: Box, colour: str, alpha: float = 1) -> None:
        """A filled rectangle: left, top, width, height."""
        from matplotlib.patches import Rectangle

        left, top, width, height = box
        corner = (left / WIDTH, 1 - (top + height) / self.height)
        size = (width / WIDTH, height / self.height)
        self.figure.add_artist(Rectangle(corner, *size, color=colour, alpha=alpha, lw=0))

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
        """A thin line from one place to another."""
        from matplotlib.lines import Line2D

        x, y = zip(start, end, strict=True)
        places = [at / WIDTH for at in x], [1 - at / self.height for at in y]
        self.figure.add_artist(Line2D(*places, color=colour, lw=0.8))

    def saved(self, title: str) -> tuple[bytes, str]:
        """The picture as PNG, and as SVG with a title."""
        png, drawing = io.BytesIO(), io.StringIO()
        # Packed a third faster than by default, for a tenth more bytes.
        packed = {"compress_level": 3}
        self.figure.savefig(png, format="png", metadata={"Software": None}, pil_kwargs=packed)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        self.figure.savefig(drawing, format="svg", metadata=nothing)
        return png.getvalue(), svg.tidy(drawing.getvalue(), WIDTH, round(self.height), title)

    def _entry_width(self, entry: Entry) -> float:
        return _mark_width(entry[2]) + 7 + width_of(entry[0], TEXT)


@contextmanager
def drawing(name: str, height: float) -> Iterator[Sheet]:
    """A sheet to draw on, with the settings that it is drawn and saved with."""
    settings: dict[str, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.sans-serif": [FONT],
    }  # fmt: skip
    with matplotlib_alone(), warnings.catch_warnings():
        import matplotlib.style

        # Of every letter that its font lacks, for which it draws a box.
        warnings.simplefilter("ignore")
        with matplotlib.style.context(["default", settings]):  # whatever the user has set
            yield Sheet(name, height)


def text_on(
    axes: "Axes", x: float, y: float, text: str, size: float = TICK, **options: Any
) -> None:
    """Write one line on axes, in their units, its middle at a height."""
    axes.text(x, y, text, **(_style(size, INK) | options))


def fitted(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """The text on one line, cut where it needs more than so many pixels."""
    text = one_line(text, 200)
    if width_of(text, size, bold=bold) <= room:
        return text
    while text and width_of(f"{text}...", size, bold=bold) > room:
        text = text[:-1]
    return f"{text.rstrip()}..."


@functools.lru_cache(maxsize=10_000)
@matplotlib_alone()
def width_of(text: str, size: float, *, bold: bool = False) -> float:
    """How wide a line is, in pixels of the page."""
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.ft2font import LoadFlags

    font = get_font(findfont(FontProperties(family=FONT, weight="bold" if bold else "normal")))
    font.set_size(size, 72)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks
        font.set_text(text, 0, flags=LoadFlags.NO_HINTING)
    return float(font.get_width_height()[0] / 64)


def _mark_width(marker: str) -> float:
    return 26 if marker == "band" or marker.startswith("-") else 10


def _style(size: float, colour: str) -> dict[str, Any]:
    return {
        "fontfamily": "sans-serif", "fontsize": size * 72 / INCH, "color": colour,
        "va": "center", "parse_math": False,
    }  # fmt: skip
