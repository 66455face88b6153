"""What the parameters of a search did: slices by one of them, the response surface of two."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fmbench.core.errors import one_line
from fmbench.grid import MARGIN, SOFT
from fmbench.records.trials import PRUNED, Objective, Parameter, Search, Trial
from fmbench.report.figures.axis import (
    MOST_CHOICES,
    Axis,
    limits,
    log_axis,
    parameter_axis,
    plain_axis,
    value_axis,
)
from fmbench.report.figures.sheet import (
    BLUE,
    GREY,
    HEADING,
    LABELS,
    LEFT,
    RED,
    RIGHT,
    SLANTED,
    TICK,
    WIDTH,
    Box,
    Sheet,
)
from fmbench.report.table.search import importances, objective_heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SLICE = 170  # height
COLUMNS, SLICE_GAP = 3, 26
MOST_SLICES = 12

LEARNING_RATE_AND_BATCH_SIZE = ("optimizer.lr", "batch_size")
SCALE = 110  # the room of the colour scale
COLOURS, TEAL = "viridis", "#21918c"  # its middle


def searched(search: Search, complete: Sequence[Trial]) -> list[str]:
    """The parameters to show, the most important first."""
    known = dict(importances(search))
    keys = dict.fromkeys(key for trial in complete for key in trial.parameters)
    return sorted(keys, key=lambda key: -known.get(key, 0.0))


def draw_slices(sheet: Sheet, top: float, search: Search, complete: Sequence[Trial]) -> None:
    """The panel of slices: the first objective by each parameter."""
    keys = searched(search, complete)
    objective = search.objectives[0]
    shown = keys[:MOST_SLICES]
    values = [trial.values[0] for trial in complete if trial.values is not None]
    # One range for all, so that heights compare.
    low_high = limits(values, objective)
    room = (WIDTH - LEFT - RIGHT - (COLUMNS - 1) * SLICE_GAP) / COLUMNS
    rows = slice_heights(search, complete)
    beyond = False
    chosen = set(search.best)
    for number, key in enumerate(shown):
        row, column = divmod(number, COLUMNS)
        x = _slice_axis(complete, key)
        y = value_axis(values, objective, labelled=column == 0, between=low_high)
        down = top + HEADING + sum(rows[:row])
        axes = sheet.axes((LEFT + column * (room + SLICE_GAP), down, room, SLICE), x, y)
        points = [
            (x.placed(trial.parameters[key], trial.number), trial.values[0], trial.number)
            for trial in complete
            if key in trial.parameters and trial.values is not None
        ]
        best = [(at, value) for at, value, trial in points if trial in chosen]
        rest = [(at, value) for at, value, trial in points if trial not in chosen]
        beyond |= scatter(axes, y, rest, color=BLUE, marker="o", ms=6, mew=0, alpha=0.8)
        beyond |= scatter(axes, y, best, color=RED, marker="o", ms=7, mew=0)
    several = len(search.objectives) > 1
    entries = [("on the Pareto front" if several else "best", RED, "o")] if search.best else []
    entries += [("beyond the axis", SOFT, y.arrow)] if beyond else []
    title = f"Slices: {label(objective)} by parameter"
    if len(keys) > len(shown):
        title += f" (the first {len(shown)} of {len(keys)})"
    sheet.heading(top, title, *entries)


def slice_heights(search: Search, complete: Sequence[Trial]) -> list[int]:
    """How high each row of slices is, what is written below them included."""
    keys = searched(search, complete)[:MOST_SLICES]
    slanted = [_slice_axis(complete, key).slanted for key in keys]
    starts = range(0, len(keys), COLUMNS)
    return [SLICE + LABELS + SLANTED * any(slanted[at : at + COLUMNS]) for at in starts]


def surface_keys(search: Search, complete: Sequence[Trial]) -> tuple[str, str] | None:
    """The two parameters of the response surface, where there are two with numbers.

    Learning rate and batch size where both were searched, else the two most important.
    """
    numeric = [
        key
        for key in searched(search, complete)
        if len(values := {_number(trial, key) for trial in complete if key in trial.parameters}) > 1
        and None not in values
    ]
    if set(LEARNING_RATE_AND_BATCH_SIZE) <= set(numeric):
        return LEARNING_RATE_AND_BATCH_SIZE
    return (numeric[0], numeric[1]) if len(numeric) > 1 else None


def draw_surface(
    sheet: Sheet, top: float, search: Search, complete: Sequence[Trial], height: int
) -> None:
    """The panel of the response surface: what two parameters did together."""
    keys = surface_keys(search, complete)
    assert keys is not None
    objective = search.objectives[0]
    known = [trial for trial in complete if all(key in trial.parameters for key in keys)]
    pruned = [
        trial
        for trial in search.trials
        if trial.state == PRUNED and all(_number(trial, key) is not None for key in keys)
    ]
    x, y = (
        _surface_axis([trial.parameters[key] for trial in known + pruned], one_line(key, 40))
        for key in keys
    )
    width = WIDTH - LEFT - RIGHT - SCALE
    axes = sheet.axes((LEFT, top + HEADING, width, height), x, y)
    sheet.write(
        MARGIN, top + HEADING + height / 2, y.label, color=SOFT, rotation=90,
        rotation_mode="anchor", ha="center",
    )  # fmt: skip
    values = [trial.values[0] for trial in known if trial.values is not None]
    scale = value_axis(values, objective, between=_within(values, limits(values, objective)))
    places = [[axis.placed(trial.parameters[key]) for trial in pruned]
              for axis, key in zip((x, y), keys, strict=True)]  # fmt: skip
    axes.plot(*places, ls="none", marker="x", color=GREY, ms=6, mew=1.5)
    # The best lie on top of those beside them.
    order = sorted(zip(known, values, strict=True), key=lambda pair: objective.sign * pair[1])
    axes.scatter(
        [x.placed(trial.parameters[keys[0]]) for trial, _ in order],
        [y.placed(trial.parameters[keys[1]]) for trial, _ in order],
        c=[scale.placed(value) for _, value in order],
        cmap=COLOURS, vmin=scale.low, vmax=scale.high, s=62, linewidths=1, edgecolors=GREY,
    )  # fmt: skip
    _scale(sheet, (LEFT + width + 30, top + HEADING, 16, height), scale)
    beyond = any(map(scale.beyond, values))
    entries = [("complete", TEAL, "o")] + [("pruned", GREY, "x")] * bool(pruned)
    said = label(objective)
    title = f"{said[:1].upper()}{said[1:]} by {one_line(keys[0], 30)} and {one_line(keys[1], 30)}"
    sheet.heading(top, title, *entries)
    if beyond:
        worse = "or less" if scale.worse < 0 else "or more"
        sheet.write(WIDTH - RIGHT, top + HEADING + height + 16, worse, TICK, color=SOFT, ha="right")


def _slice_axis(complete: Sequence[Trial], key: str) -> Axis:
    room = (WIDTH - LEFT - RIGHT - (COLUMNS - 1) * SLICE_GAP) / COLUMNS
    tried = [trial.parameters[key] for trial in complete if key in trial.parameters]
    return parameter_axis(tried, one_line(key, 34), room)


def _surface_axis(values: Sequence[Parameter], label: str) -> Axis:
    numbers = [float(value) for value in values if value is not None]
    low, high = min(numbers), max(numbers)
    if low > 1e-100 and high < 1e100 and high >= 4 * low:
        chosen = set(numbers) if len(set(numbers)) <= MOST_CHOICES else None
        return log_axis(numbers, label, places=[sorted(chosen)] if chosen else ())
    return plain_axis(*limits(numbers), label)


def _number(trial: Trial, key: str) -> float | None:
    value = trial.parameters.get(key)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number and isinstance(value, (int, float)) else None


def _within(values: Sequence[float], around: tuple[float, float]) -> tuple[float, float]:
    """The limits without their margins: a scale of colours has none to spare."""
    low, high = max(around[0], min(values)), min(around[1], max(values))
    return (low, high) if low < high else around


def _scale(sheet: Sheet, box: Box, scale: Axis) -> None:
    left, top, width, height = box
    axes = sheet.bare(box)
    shades = [[step / 63] for step in range(64)]
    axes.imshow(shades, aspect="auto", origin="lower", cmap=COLOURS, extent=(0, 1, 0, 1))
    for place, text in scale.ticks:
        middle = top + height * (scale.high - place) / (scale.high - scale.low)
        sheet.write(left + width + 7, middle, text, TICK, color=SOFT)


def label(objective: Objective) -> str:
    """The heading of an objective's axis: training time (s)."""
    return objective_heading(objective) + " (s)" * (objective.name == "train_seconds")


def scatter(axes: "Axes", y: Axis, points: Sequence[tuple[float, float]], **style: Any) -> bool:
    """Draw points, those beyond the axis as arrows at its end; whether there were any."""
    inside = [(at, y.scaled(value)) for at, value in points if not y.beyond(value)]
    beyond = [(at, y.placed(value)) for at, value in points if y.beyond(value)]
    axes.plot([at for at, _ in inside], [to for _, to in inside], ls="none", **style)
    arrow = {"marker": y.arrow, "mew": 0, "ms": 6}
    axes.plot([at for at, _ in beyond], [to for _, to in beyond], ls="none", **(style | arrow))
    return bool(beyond)
