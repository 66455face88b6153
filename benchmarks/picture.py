"""The picture of training speed in the documentation, from measured figures alone.

    python -m benchmarks.picture performance.json

Reads what `python -m benchmarks` or `python -m benchmarks.throughput` saved, and draws images per
second of each contender, for every net and batch size that is there, on a logarithmic axis.
"""

import argparse
import io
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from fmbench.core.files import write_whole
from fmbench.grid import DENSITY, FONT, INCH, INK, SOFT

OUTPUT = Path("docs/images/performance.png")

#: Contender, colour and marker, the fastest first. Colours that the colour-blind tell apart, of
#: Okabe and Ito (2008); each has a marker of its own too.
STYLES = {
    "limit": ("#000000", "|"),
    "fmbench": ("#D55E00", "o"),
    "usual": ("#0072B2", "s"),
    "lightning": ("#009E73", "D"),
}

#: Pixels of a page about 900 wide.
WIDTH, ROW, HEADER, LABELS, FOOTER = 860, 22, 66, 56, 52
LEFT, RIGHT = 176, 170
SEPARATION = 10  # between nets, beside half a row
TITLE, TEXT = 17, 11.5


@dataclass(frozen=True)
class Row:
    """One net at one batch size.

    Attributes:
        net: its name.
        batch_size: images a step.
        rates: median images per second by contender, of those in `STYLES` that were measured.
        over: fmbench over the limit and over the usual loop, medians of the ratios of each turn.
    """

    net: str
    batch_size: int
    rates: dict[str, float]
    over: dict[str, float] = field(default_factory=dict)


def rows(results: Mapping[str, Any]) -> list[Row]:
    """What a benchmark's JSON says of training speed, in its order.

    Of the usual loop with several numbers of workers the fastest counts.

    Raises:
        SystemExit: it says nothing of it.
    """
    measured = results.get("throughput", results)
    found: dict[tuple[str, int], Row] = {}
    for name, value in measured.items():
        parts = re.fullmatch(r"((\S+), batch (\d+)): (limit|fmbench|usual|lightning)\b(.*)", name)
        if parts is None or not isinstance(value, dict) or value["unit"] != "images/s":
            continue
        where, net, size, contender, rest = parts.groups()
        row = found.setdefault((net, int(size)), Row(net, int(size), {}))
        if value["median"] > row.rates.get(contender, 0.0):
            row.rates[contender] = value["median"]
            over = measured.get(f"{where}: over {contender}{rest}")
            if over is not None:
                row.over[contender] = over["median"]
    if not found:
        raise SystemExit("no training speeds in this file; `python -m benchmarks` measures them")
    return list(found.values())


def draw(content: Mapping[str, Any]) -> bytes:
    """The picture as a PNG.

    Args:
        content: of a JSON file that the benchmarks saved.
    """
    found = rows(content["results"])
    tops, down = [], 0
    for number, row in enumerate(found):
        down += SEPARATION * (number > 0 and row.net != found[number - 1].net)
        tops.append(down + ROW / 2)
        down += ROW
    height = HEADER + LABELS + down + FOOTER
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of its own cache
    with matplotlib.style.context("default"):  # whatever the user has set for figures
        figure = Figure(figsize=(WIDTH / INCH, height / INCH), dpi=INCH * DENSITY)
        FigureCanvasAgg(figure)
        box = (LEFT / WIDTH, FOOTER / height, 1 - (LEFT + RIGHT) / WIDTH, (down + 4) / height)
        axes = figure.add_axes(box)
        axes.set_ylim(down, -4)
        _axes(axes, found)
        for row, top in zip(found, tops, strict=True):
            _row(axes, row, top)
        for number, (row, top) in enumerate(zip(found, tops, strict=True)):
            _names(axes, row, top, first=number == 0 or row.net != found[number - 1].net)
        _labels(axes, found, down)
        _write(figure, 20 / WIDTH, 1 - 26 / height, "Training speed, images a second", TITLE)
        threads = f"{content['threads']} thread{'s' if content['threads'] > 1 else ''}"
        where = content["gpu"] or f"{content['processor']}, {threads}"
        version = content["torch"].partition("+")[0]
        said = f"{where}; PyTorch {version}; medians, {content['date'][:10]}"
        _write(figure, 20 / WIDTH, 1 - 50 / height, said, TEXT, color=SOFT, fontweight="normal")
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _axes(axes: Axes, found: Sequence[Row]) -> None:
    rates = [rate for row in found for rate in row.rates.values()]
    axes.set_xscale("log")
    axes.set_xlim(min(rates) / 1.35, max(rates) * 1.35)
    decades = math.log10(max(rates) / min(rates))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0)))
    axes.set_yticks([])
    axes.grid(visible=True, axis="x", which="major", color="#d8d8d8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axes.xaxis.set_minor_formatter("")
    axes.tick_params(axis="x", which="both", labelsize=TEXT * 72 / INCH, labelcolor=SOFT, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(
        "images a second, logarithmic", fontsize=TEXT * 72 / INCH, color=SOFT, fontfamily=FONT
    )


def _row(axes: Axes, row: Row, top: float) -> None:
    axes.plot([min(row.rates.values()), max(row.rates.values())], [top, top], color="#b8b8b8", lw=1)
    for name, (colour, marker) in STYLES.items():
        if name in row.rates:
            size = 15 if marker == "|" else 7
            edge = 2.2 if marker == "|" else 0
            axes.plot(row.rates[name], top, marker, color=colour, ms=size, mew=edge, zorder=3)


def _names(axes: Axes, row: Row, top: float, *, first: bool) -> None:
    side = axes.get_yaxis_transform()
    options: dict[str, Any] = {"transform": side, "va": "center", "fontsize": TEXT * 72 / INCH}
    options |= {"fontfamily": FONT, "parse_math": False}
    if first:
        left = -(LEFT - 20) / (WIDTH - LEFT - RIGHT)
        axes.text(left, top, row.net, color=INK, fontweight="bold", **options)
    axes.text(-0.02, top, str(row.batch_size), color=SOFT, ha="right", **options)
    axes.text(1.03, top, comparison(row.over), color=INK, **options)


def comparison(over: Mapping[str, float]) -> str:
    """What stands beside a row: fmbench over the limit and over the usual loop."""
    said = []
    if "limit" in over:
        said.append(f"{over['limit']:.2f} of limit")
    if "usual" in over:
        said.append(f"{over['usual']:.1f}x usual")
    return ", ".join(said)


def _labels(axes: Axes, found: Sequence[Row], down: float) -> None:
    """Marker and name of each contender, in a line above the first row."""
    per_pixel = (down + 4) / (axes.get_position().height * axes.figure.get_figheight() * INCH)
    at = -22 * per_pixel
    style: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "clip_on": False}
    names = [name for name in STYLES if any(name in row.rates for row in found)]
    for number, name in enumerate(names):
        colour, marker = STYLES[name]
        left = number / max(4, len(names))
        bar = marker == "|"
        size = {"ms": 15, "mew": 2.2} if bar else {"ms": 7, "mew": 0}
        axes.plot(left + 0.02, at, marker, color=colour, **size, **style)
        axes.text(
            left + 0.045, at, name, color=colour, ha="left", va="center", fontfamily=FONT,
            fontsize=TEXT * 72 / INCH, fontweight="bold", **style,
        )  # fmt: skip
    axes.text(
        -0.02, at, "batch size", color=SOFT, ha="right", va="center", fontfamily=FONT,
        fontsize=TEXT * 72 / INCH, **style,
    )  # fmt: skip


def _write(figure: Figure, x: float, y: float, text: str, size: float, **options: Any) -> None:
    style = {"fontfamily": FONT, "color": INK, "va": "center", "fontweight": "bold"}
    figure.text(x, y, text, fontsize=size * 72 / INCH, parse_math=False, **(style | options))


def main(argv: Sequence[str] | None = None) -> None:
    """Read a JSON file, write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measured", type=Path, metavar="JSON")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args(argv)
    content = json.loads(arguments.measured.read_text("utf-8"))
    write_whole(arguments.output, draw(content))
    print(arguments.output)


if __name__ == "__main__":
    main()
