"""The picture of training speed in the documentation, from measured figures alone.

    python -m benchmarks.picture performance.json

Reads what `python -m benchmarks.throughput --json performance.json` saved, and draws images per
second of each contender, for every model and batch size that is there, on a logarithmic axis.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

OUTPUT = Path("docs/images/performance.png")

#: Contender, colour and marker, the fastest first. Colours that the colour-blind tell apart, of
#: Okabe and Ito (2008); each has a marker of its own too.
STYLES: dict[str, dict[str, Any]] = {
    "limit": {"color": "#000000", "marker": "|", "markersize": 11, "mew": 2},
    "fmbench": {"color": "#D55E00", "marker": "o", "markersize": 5},
    "usual": {"color": "#0072B2", "marker": "s", "markersize": 5},
    "lightning": {"color": "#009E73", "marker": "D", "markersize": 5},
}


def rows(results: Mapping[str, Any]) -> dict[str, dict[str, tuple[float, float]]]:
    """Of each model and batch size the contenders' speeds, and how many times as fast fmbench is.

    Of the usual loop with several numbers of workers the fastest counts.

    Raises:
        SystemExit: the results say nothing of training speed.
    """
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name, value in results.items():
        where, _, what = name.partition(": ")
        contender = what.partition(",")[0]
        if contender in STYLES:
            over = results.get(f"{where}: over {what}", {"median": 1.0})["median"]
            row = found.setdefault(where, {})
            row[contender] = max(row.get(contender, (0.0, 0.0)), (value["median"], over))
    if not found:
        raise SystemExit("no training speeds in this file; benchmarks.throughput measures them")
    return found


def draw(content: Mapping[str, Any]) -> Figure:
    """The picture of what a JSON file of the benchmarks holds."""
    found = rows(content["results"])
    style = {"font.size": 9, "text.parse_math": False, "legend.frameon": False}
    with matplotlib.style.context(["default", style]):  # whatever the user has set for figures
        figure = Figure(figsize=(8.6, 1.6 + 0.3 * len(found)), dpi=200, layout="constrained")
        axes = figure.add_subplot(xscale="log", xlabel="images a second, logarithmic")
        for place, row in enumerate(found.values()):
            speeds = [speed for speed, _ in row.values()]
            axes.hlines(place, min(speeds), max(speeds), "#b8b8b8", lw=1)
            for name, (speed, _) in row.items():
                axes.plot(speed, place, linestyle="", label=name, **STYLES[name])
            side = {"transform": axes.get_yaxis_transform(), "va": "center"}
            axes.text(1.02, place, comparison(row), **side)
        axes.set_yticks(range(len(found)), found)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter("")
        axes.tick_params(which="both", length=0)
        axes.grid(axis="x", color="#e2e2e2")
        axes.spines[:].set_visible(False)
        entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        figure.legend(entries.values(), entries, loc="outside lower center", ncols=4)
        threads = f"{content['threads']} thread{'s' * (content['threads'] > 1)}"
        where = content["gpu"] or f"{content['processor']}, {threads}"
        version = content["torch"].partition("+")[0]
        figure.suptitle("Training speed", weight="bold")
        axes.set_title(f"{where}; PyTorch {version}; medians, {content['date'][:10]}", size=9)
    return figure


def comparison(row: Mapping[str, tuple[float, float]]) -> str:
    """What stands beside a row: fmbench over the limit and over the usual loop."""
    said = (("limit", "{:.2f} of limit"), ("usual", "{:.1f}x usual"))
    return ", ".join(text.format(row[name][1]) for name, text in said if name in row)


def main(argv: Sequence[str] | None = None) -> None:
    """Read a JSON file, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("measured", type=Path, metavar="JSON")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args(argv)
    content = json.loads(arguments.measured.read_text("utf-8"))
    draw(content).savefig(arguments.output, metadata={"Software": None})
    print(arguments.output)


if __name__ == "__main__":
    main()
