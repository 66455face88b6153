"""Small grey images in a grid, with names for rows and columns, as a PNG."""

import contextlib
import io
import logging
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

#: Lengths are pixels of a page about 900 wide. The PNG has twice as many each way, so that its text
#: is sharp on a dense screen too.
DENSITY = 2
INCH = 64  # a power of two, so that no size is rounded on its way through inches

PIXEL = 3  # of an image, drawn as a square
GAP, FIRST_GAP = 4, 16  # between images; beside the first column
MARGIN, ROW_NAMES, COLUMN_NAMES = 20, 84, 22
LEAST_WIDTH = 420  # a title needs it, however few images there are

TITLE, TEXT, LABEL = 17, 11.5, 12  # font sizes
LINE = 18  # height of a line of text
CHARACTER = 5.9  # width of one, about

FONT, INK, SOFT = "DejaVu Sans", "#1a1a1a", "#555555"  # the font comes with matplotlib


@dataclass(frozen=True)
class Grid:
    """What the picture shows.

    Attributes:
        title: One line.
        subtitle: Lines below it; long ones are wrapped.
        rows: A name each.
        columns: A name each; the first stands apart.
        images: (rows, columns, side, side) uint8, 0 black to 255 white.
    """

    title: str
    subtitle: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    images: "np.ndarray"


@contextmanager
def matplotlib_alone() -> Iterator[None]:
    """Matplotlib is there, and says nothing of its own cache; what draws brings a canvas of Agg.

    Jupyter names a backend in `MPLBACKEND`, also to what a cell starts, where that may not be
    installed: the import would fail. A notebook in this process keeps the backend it asked for.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        if "matplotlib" not in sys.modules:
            asked = os.environ.pop("MPLBACKEND", None)
            try:
                import matplotlib as mpl
            finally:
                if asked is not None:
                    os.environ["MPLBACKEND"] = asked
            if asked:
                with contextlib.suppress(ValueError):
                    mpl.rcParams["backend"] = asked
        yield
    finally:
        logger.setLevel(level)


@matplotlib_alone()
def draw(grid: Grid) -> bytes:
    """The grid as a PNG.

    Every pixel of an image is a square of the same number of pixels, in the grey it has: nothing is
    smoothed and nothing is stretched from black to white.
    """
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    side = PIXEL * grid.images.shape[-1]
    lefts = [
        MARGIN + ROW_NAMES + column * (side + GAP) + (column > 0) * (FIRST_GAP - GAP)
        for column in range(len(grid.columns))
    ]
    width = max(lefts[-1] + side + MARGIN, LEAST_WIDTH)
    letters = int((width - 2 * MARGIN) / CHARACTER)
    lines = [part for line in grid.subtitle.splitlines() for part in textwrap.wrap(line, letters)]
    header = MARGIN + TITLE + 10 + LINE * len(lines) + 8 + COLUMN_NAMES
    tops = [header + row * (side + GAP) for row in range(len(grid.rows))]
    height = tops[-1] + side + MARGIN

    with matplotlib.style.context("default"):  # whatever the user has set for figures
        figure = Figure(figsize=(width / INCH, height / INCH), dpi=INCH * DENSITY)
        FigureCanvasAgg(figure)

        def write(x: float, y: float, text: str, size: float, **options: Any) -> None:
            style: dict[str, Any] = {
                "fontfamily": FONT, "fontsize": size * 72 / INCH, "color": INK, "va": "center",
            }  # fmt: skip
            figure.text(x / width, 1 - y / height, text, parse_math=False, **(style | options))

        write(MARGIN, MARGIN + TITLE / 2, grid.title, TITLE, fontweight="bold")
        for number, line in enumerate(lines):
            write(MARGIN, MARGIN + TITLE + 10 + (number + 0.5) * LINE, line, TEXT, color=SOFT)
        for left, name in zip(lefts, grid.columns, strict=True):
            write(left + side / 2, header - COLUMN_NAMES / 2, name, LABEL, ha="center")
        for top, name in zip(tops, grid.rows, strict=True):
            write(MARGIN, top + side / 2, name, LABEL)
        # Red, green and blue given: matplotlib's grey scale is off by one at every fourth grey.
        figure.figimage(_canvas(grid, lefts, tops, width, height)[..., None].repeat(3, axis=-1))
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _canvas(grid: Grid, lefts: list[int], tops: list[int], width: int, height: int) -> "np.ndarray":
    """(height, width) uint8 in pixels of the PNG: white, with the images in their places."""
    import numpy as np

    canvas = np.full((height * DENSITY, width * DENSITY), 255, dtype=np.uint8)
    for row, top in zip(grid.images, tops, strict=True):
        for image, left in zip(row, lefts, strict=True):
            large = image.repeat(PIXEL * DENSITY, axis=0).repeat(PIXEL * DENSITY, axis=1)
            y, x = top * DENSITY, left * DENSITY
            canvas[y : y + len(large), x : x + len(large)] = large
    return canvas
