"""What figures share: their look, layout and files, words about rows, how much is read for them.

matplotlib is imported when a figure is drawn: most of what reads results need not wait for it.
"""

import contextlib
import importlib
import io
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fmbench.core.errors import one_line
from fmbench.report.figure import PAGE_COLOURS, Figure
from fmbench.report.table.columns import MODEL, Row, differing
from fmbench.report.table.formats import count, option, text
from fmbench.report.table.formats import number as plain_number

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

    Axes = matplotlib.axes.Axes
    Canvas = matplotlib.figure.Figure
    SubFigure = matplotlib.figure.SubFigure

Numbers = Sequence[float] | np.ndarray

FONT = "DejaVu Sans"  # it comes with matplotlib
WIDTH = 9  # inches; a page shows 96 pixels an inch
DPI = 192  # of the PNG: its text is sharp on a dense screen too
SMALL = 8.5  # font size

INK, SOFT, PALE, PAPER = PAGE_COLOURS
GREY = "#8a8a8a"
# Of Okabe and Ito (2008), who chose them for the colour-blind. Their orange and sky blue are darker
# here, so that all have a contrast of 3 to white and to a dark page's #111 (WCAG 2.2, 1.4.11).
BLUE, RED, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY = "#c18500", "#3e9ace"
SERIES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
#: Colour and marker of rows or models; those of one colour have other markers.
LOOKS = [
    {"color": colour, "marker": marker}
    for colour, marker in zip(SERIES * 2, MARKERS + MARKERS[1:] + MARKERS[:1], strict=True)
]
BAND = 0.22  # opacity
#: Of points, whole at the edge of an axis too.
MARKS: dict[str, Any] = {"ls": "none", "ms": 6, "clip_on": False, "in_layout": False}

#: Of a name that is shown in a figure, in characters.
LONGEST = 60
# Of a line of a legend, in characters.
LETTERS = 110

# Of an axis: half of the time that a figure takes goes into its ticks.
MOST_TICKS = 5
# A logarithmic axis of less than this shows differences that are none.
LEAST_RATIO = 4
# Where the largest is more than so many times the smallest, a linear axis shows the largest alone.
LOG_RATIO = 20
# An axis reaches from the best value so many times the distance to the worst but a quarter: values
# far worse than most would leave no room for what tells the others apart.
REACH = 3
# Points of percent: accuracies that differ by less do so by rounding, or by a part of an image.
LEAST_POINTS = 0.5
# Of more rows the bars of their intervals would hide all else.
MOST_BARS = 100
# Records may come from strangers: an axis of less has no numbers between its ends.
TINY = 1e-100

#: As many of a model's rows, the best first, are asked for their files: of thousands that have none
#: the others have none either.
MOST_ASKED = 50

UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))

#: Settings of matplotlib.
STYLE: dict[str, Any] = {
    "font.family": "sans-serif", "font.sans-serif": [FONT], "font.size": 10,
    "text.color": INK, "text.parse_math": False,  # a name may have dollar signs
    "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.titley": 1.0,  # to look for a better height takes long
    "axes.labelcolor": SOFT, "axes.grid": True, "axes.axisbelow": True, "grid.color": PALE,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.bottom": False,
    "axes.spines.left": False, "xtick.color": SOFT, "ytick.color": SOFT,
    "xtick.bottom": False, "ytick.left": False, "xtick.major.size": 0, "ytick.major.size": 0,
    "figure.constrained_layout.w_pad": 0.1, "figure.constrained_layout.h_pad": 0.08,
    "legend.frameon": False, "legend.labelcolor": SOFT, "lines.markeredgewidth": 0,
    "image.composite_image": False, "svg.fonttype": "none",
}  # fmt: skip


@contextmanager
def matplotlib_alone() -> Iterator[None]:
    """Import matplotlib, quiet about its own cache, with a backend of ours for drawing.

    Jupyter names a backend in `MPLBACKEND`, also to what a cell starts, where that may not be
    installed: the import would fail. A notebook in this process keeps the backend it asked for.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        if "matplotlib" not in sys.modules and (asked := os.environ.pop("MPLBACKEND", None)):
            import matplotlib as mpl

            os.environ["MPLBACKEND"] = asked
            with contextlib.suppress(ValueError):
                mpl.rcParams["backend"] = asked
        with warnings.catch_warnings():
            # Of every letter that its font lacks, for which it draws a box.
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def load() -> None:
    """Import what draws, before the first figure is asked for."""
    with matplotlib_alone():
        for module in ("backends.backend_agg", "backends.backend_svg", "figure", "style"):
            importlib.import_module(f"matplotlib.{module}")


@contextmanager
def drawing(name: str, height: float) -> Iterator["Canvas"]:
    """An empty figure, so many inches high, and the settings that it is drawn and saved with.

    The ids in its SVG are other ones for another name.
    """
    with matplotlib_alone():
        import matplotlib.figure
        import matplotlib.style

        # Whatever the user has set for figures changes nothing.
        with matplotlib.style.context(["default", STYLE, {"svg.hashsalt": name}]):
            size = (WIDTH, height)
            yield matplotlib.figure.Figure(size, DPI, facecolor=PAPER, layout="constrained")


def saved(  # noqa: PLR0917 - the fields of a figure, in their order
    canvas: "Canvas", name: str, data: str, title: str, caption: str, alt: str
) -> Figure:
    """The figure with its files; what was drawn gives the same bytes each time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.ticker import MaxNLocator

    for axes in canvas.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(locator := axis.get_major_locator(), MaxNLocator):
                locator.set_params(nbins=MOST_TICKS)
    png, svg = io.BytesIO(), io.StringIO()
    # Packed a third faster than by default, for a tenth more bytes. `savefig` would draw twice.
    packed = {"compress_level": 3}
    agg: Any = FigureCanvasAgg(canvas)
    agg.print_png(png, metadata={"Software": None}, pil_kwargs=packed)
    canvas.set_layout_engine("none")  # the other file has the layout that was just found
    unsaid = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    writer: Any = FigureCanvasSVG(canvas)
    writer.print_svg(svg, metadata={"Title": title, **unsaid})
    return Figure(name, data, title, caption, alt, png.getvalue(), svg.getvalue())


def legend(figure: "Canvas | SubFigure", handles: Sequence[Any], side: str = "lower") -> None:
    """A legend above or below all axes, in as many columns as its names leave room for."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    place: Any = f"outside {side} left"
    figure.legend(handles=handles, loc=place, ncols=max(1, LETTERS // (longest + 6)))


def entry(label: str, **style: Any) -> Any:
    """An entry of a legend that stands for several marks."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **({"color": SOFT, "ls": "none"} | style))


def limits(values: Numbers, sign: int = 1, least: float = 0.0) -> tuple[float, float]:
    """The ends of a linear axis: from the best value to the worst that is not far worse than most.

    More is better where the sign is 1, less where it is -1; no axis is narrower than `least`.
    """
    turned = sign * np.asarray(values, dtype=float)
    low, quarter, high = np.quantile(turned, (0, 0.25, 1)).tolist()
    if high > quarter:
        low = max(low, high - REACH * (high - quarter))
    least = max(least, 1e-3 * max(abs(high), abs(low)), TINY)
    edge = max(0.06 * (high - low), (least - (high - low)) / 2)
    return (low - edge, high + edge) if sign > 0 else (-high - edge, edge - low)


def column(rows: Sequence[Row], key: str) -> np.ndarray:
    """The numbers of rows, NaN where one is not known."""
    return np.array([row[key] for row in rows], dtype=float)


def accuracy_axis(axes: "Axes", rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Set the y axis for the test accuracies of rows: where they are drawn, and their intervals.

    (N,) accuracies in percent, those far worse than most at the lower end; (N, 2) ends of the 95 %
    intervals, NaN where there is none to draw.
    """
    keys = ("test_accuracy", "test_accuracy_low", "test_accuracy_high")
    values, lows, highs = (100 * column(rows, key) for key in keys)
    low, high = limits(values, least=LEAST_POINTS)
    reach = (high - low) / 2  # of two seeds an interval may reach anywhere
    bars = np.clip(np.stack([lows, highs], axis=1), low - reach, high + reach)
    bars[(values < low) | (len(rows) > MOST_BARS)] = np.nan
    axes.set_ylim(np.nanmin([low, *bars[:, 0]]), np.nanmax([high, *bars[:, 1]]))
    return np.clip(values, low, high), bars


def spans(values: Numbers) -> bool:
    """Whether a linear axis would show the largest of the values alone."""
    low, high = min(values), max(values)
    return low > TINY and high < 1 / TINY and high > LOG_RATIO * low


def log_scale(axes: "Axes", side: str, values: Numbers) -> None:
    """Make the x or the y axis logarithmic, with plain numbers: at 1, 2 and 5 where there is room.

    All values that are to be drawn are above zero.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = min(values), max(values)
    middle, ratio = math.sqrt(low) * math.sqrt(high), max(high / low, LEAST_RATIO) ** 0.56
    axes.set(**{f"{side}scale": "log", f"{side}lim": (middle / ratio, middle * ratio)})
    axis = axes.xaxis if side == "x" else axes.yaxis
    steps = (1.0, 2.0, 5.0) if ratio < LOG_RATIO else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=MOST_TICKS + 1))
    axis.set_major_formatter(lambda value, _: number(value))
    axis.set_minor_locator(NullLocator())


def number(value: float) -> str:
    """A number with a metric prefix from a thousand on: 0.01, 64, 61.7 k."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter()(float(f"{value:.3g}")) if 1e3 <= value < 1e15 else f"{value:.4g}"


def time_unit(seconds: Iterable[float]) -> tuple[str, float]:
    """The unit that times are drawn in, and its seconds."""
    longest = max(seconds, default=0.0)
    return next((one for one in UNITS if longest >= 2 * one[1]), UNITS[-1])


@dataclass
class Budget:
    """How many epochs and predictions are read for all figures of a report together.

    Runs of one row are added up, so that files of a megabyte that a stranger has linked into
    thousands of run folders would take hours and all memory.
    """

    epochs: int = 300_000
    predictions: int = 2**28


def model_of(row: Row) -> str:
    """The model with its own settings, as the table has it: wideresnet depth=16."""
    return one_line(option(row["model"], row["model_settings"]), LONGEST)


def apart(rows: Sequence[Row]) -> list[str]:
    """For each row what sets it apart from the others, in the table's words: batch size 64."""
    columns = differing(rows)
    several = len({row["model"] for row in rows}) > 1
    said = []
    for row in rows:
        texts = [model_of(row) if several else row["model_settings"], row["differs"]]
        texts = list(filter(None, texts)) if MODEL in columns else []
        for column in columns:
            if column is not MODEL:
                plain = column.key in ("optimizer", "device")  # its heading would say nothing more
                texts.append(column.cell(row) if plain else f"{column.heading} {column.cell(row)}")
        said.append(one_line(", ".join(texts), LONGEST))
    return said


def told(rows: Sequence[Row]) -> list[str]:
    """The name of each row: its model, and what sets it apart from the others."""
    if len(rows) < 2:
        return [model_of(row) for row in rows]
    names = []
    for row, said in zip(rows, apart(rows), strict=True):
        model = model_of(row)
        named = said.startswith(model) or not said
        names.append(one_line(said or model if named else f"{model}, {said}", LONGEST))
    return names


def recipe(row: Row) -> str:
    """The main settings of a row: batch size 64, sgd, learning rate 0.05, 4 epochs."""
    said = (
        f"batch size {count(row['batch_size'])}, {text(row['optimizer'])}, learning rate "
        f"{plain_number(row['learning_rate'])}, {count(row['epochs'])} epochs"
    )
    return one_line(said, LONGEST)
