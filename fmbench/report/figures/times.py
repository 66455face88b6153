"""Accuracy by training time, and performance profiles of the times to a target."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from fmbench.core.errors import one_line
from fmbench.report.figure import Figure
from fmbench.report.figures import style
from fmbench.report.figures.curves import (
    STOPPED,
    Line,
    best_of_each,
    drawn_curve,
    evaluated,
    lines_of,
    stopped,
)
from fmbench.report.table import formats
from fmbench.report.table.columns import Row
from fmbench.report.table.sections import Section


def _hardware(row: Row) -> str:
    return one_line(formats.hardware(row["device"], row["precision"]), style.LONGEST)


def accuracy_seconds(
    rows: Sequence[Row], data: str, name: str, budget: style.Budget
) -> Figure | None:
    """Held-out accuracy by training seconds, the best row of each model on one device.

    That is the device with most of these rows. None where not two rows have such a curve.
    """
    devices = Counter(map(_hardware, rows))
    if not devices:
        return None
    device = max(devices, key=lambda one: devices[one])
    lines = lines_of(best_of_each([row for row in rows if _hardware(row) == device]), budget)
    solid = evaluated(lines)
    known = [
        (line, times) for line in lines if (times := _times(line, f"{solid}_accuracy")) is not None
    ]
    if solid is None or len(known) < 2:
        return None
    unit, size = style.time_unit([float(times[-1]) for _, times in known])
    title = f"{solid.capitalize()} accuracy by training time"
    caption = (
        f"On {device}; the best row of each model there. A point is the end of an epoch: the mean"
        " over the seeds of accuracy and of the training clock until then, which does not count"
        " evaluation."
    )
    drawn = [(line.row, line.curves[f"{solid}_accuracy"].runs) for line, _ in known]
    if any(len(runs) < row["n"] for row, runs in drawn):
        caption += " Seeds are left out that have no history or were evaluated less often."
    if stopped([line for line, _ in known]):
        caption += f" {STOPPED}"
    several = any(len(runs) > 1 for _, runs in drawn)
    ends = [
        f"{style.model_of(line.row)} {100 * float(line.curves[f'{solid}_accuracy'].mean[-1]):.2f} %"
        f" after {formats.duration(float(times[-1]))}"
        for line, times in known
    ]
    with style.drawing(name, 3.75 + 0.25 * math.ceil(len(known) / 2)) as figure:
        axes = figure.subplots()
        for line, times in known:
            drawn_curve(axes, line, line.curves[f"{solid}_accuracy"], 100, times / size)
        axes.set(title=f"{title} (%)", xlabel=f"training time ({unit})", xlim=(0, None))
        entries: list[Any] = [
            style.entry(f"{style.model_of(line.row)}, n = {line.row['n']}", ls="-", **line.look)
            for line, _ in known
        ]
        if several:
            entries.append(style.entry("range of the seeds", ls="-", lw=8, alpha=style.BAND))
        style.legend(figure, entries)
        return style.saved(figure, name, data, title, caption, f"{title}. {'; '.join(ends)}.")


def _times(line: Line, key: str) -> np.ndarray | None:
    """The mean training clock of the runs of a curve, at the ends of its epochs.

    None where there is no such curve, or the clock of one of these runs is not known.
    """
    if key not in line.curves:
        return None
    last = int(line.curves[key].epochs[-1])
    clocks = []
    for place in line.curves[key].runs:
        seconds = {int(one["epoch"]): one.get("seconds", math.nan) for one in line.runs[place]}
        clock = np.cumsum([seconds.get(epoch, math.nan) for epoch in range(last)])
        clocks.append(clock[line.curves[key].epochs - 1])
    mean = np.mean(clocks, axis=0)
    return None if np.isnan(mean).any() else mean


def profiles(sections: Sequence[Section], name: str) -> Figure | None:
    """Performance profiles of the times to the targets, over several data sets.

    A problem is a target on a data set, a solver a model, by its best row of each data set. Rows
    count that are on one device and reach targets by one kind of accuracy, those that most rows
    have. The profile of a solver is the share of the problems that it solves within a factor of the
    fastest's time (Dolan and More 2002, "Benchmarking optimization software with performance
    profiles", section 2). Targets that no row reaches are no problems.

    Returns:
        None unless there are times on two data sets of two solvers.
    """
    rows = [(section.data, row) for section in sections for row in section.rows]
    timed = [(data, row) for data, row in rows if row.get("targets")]
    kinds = Counter((_hardware(row), row["targets"][0]["by"]) for _, row in timed)
    if not kinds:
        return None
    device, by = max(kinds, key=lambda one: kinds[one])
    chosen: dict[tuple[str, str], dict[str, Any]] = {}  # the rows of a section stand best first
    for data, row in timed:
        if (_hardware(row), row["targets"][0]["by"]) == (device, by):
            chosen.setdefault((data, style.model_of(row)), row)
    solvers = dict.fromkeys(solver for _, solver in chosen)
    best: dict[tuple[str, float], dict[str, float]] = defaultdict(dict)
    for (data, solver), row in chosen.items():
        for one in row["targets"]:
            if one["seconds"] is not None:
                best[data, one["target"]][solver] = one["seconds"]
    if len({data for data, _ in best}) < 2 or len(solvers) < 2:
        return None
    ratios = {
        solver: sorted(
            times[solver] / max(min(times.values()), 1e-9)
            for times in best.values()
            if solver in times
        )
        for solver in solvers
    }
    ranked = sorted(solvers, key=lambda solver: (-len(ratios[solver]), ratios[solver][:1]))
    shown = ranked[: len(style.LOOKS)]
    worst = max([1.0, *(ratio for solver in shown for ratio in ratios[solver])])
    title = "Performance profiles: time to the targets over several data sets"
    sets = len({data for data, _ in best})
    caption = (
        f"Of {len(best)} problems, a {by} accuracy on one of {sets} data sets each, the share that"
        " a model, by its best row of each data set, reached within so many times the training time"
        f" of the fastest, on {device}. At the left"
        " end is how often it was the fastest, at the right end how often it reached the target."
    )
    said = [
        f"{solver} fastest in {sum(ratio <= 1 for ratio in ratios[solver])}, reached"
        f" {len(ratios[solver])} of {len(best)}"
        for solver in shown
    ]
    with style.drawing(name, 3.75 + 0.25 * math.ceil(len(shown) / 2)) as figure:
        axes = figure.subplots()
        end = max(worst * 1.1, 2)
        for solver, look in zip(shown, style.LOOKS, strict=False):
            x = [1.0, *ratios[solver], end]
            y = [0, *range(1, len(ratios[solver]) + 1), len(ratios[solver])]
            y = [100 * value / len(best) for value in y]
            axes.step(x, y, where="post", lw=1.8, color=look["color"])
        axes.set(
            title="Problems solved (%)", xlabel="times the fastest's training time", ylim=(0, 103)
        )
        style.log_scale(axes, "x", [1.0, end])
        axes.set_xlim(0.98, end)
        entries = [
            style.entry(solver, ls="-", color=look["color"])
            for solver, look in zip(shown, style.LOOKS, strict=False)
        ]
        style.legend(figure, entries)
        first = next(section.data for section in sections if section.rows)
        return style.saved(figure, name, first, title, caption, f"{title}. {'; '.join(said)}.")
