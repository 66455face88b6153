"""Curves by epoch and by time, a colour for each row: of one model, or the best of each model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fmbench.core.errors import one_line
from fmbench.records.reader import counted_history
from fmbench.report.figure import Figure
from fmbench.report.figures import style
from fmbench.report.table.columns import ACCURACY, METRICS, Row
from fmbench.report.table.formats import percent

#: Of training losses that are no cross entropy alike.
UNLIKE = "The loss of training is the one that was minimised; here they differ in kind."

MOST_ROWS = 6
#: Epochs of a curve: more make a large SVG, and look the same.
MOST_POINTS = 250
# Of more epochs than this only the last has a marker.
MOST_MARKERS = 12
DASHES = (0, (3.2, 1.8))
#: Of rows with such a run.
STOPPED = "A run that stopped early stays at its last values."
#: What is drawn beside training.
EVALUATED = ("validation", "test")
KEYS = [f"{of}_{value}" for of in ("train", *EVALUATED) for value in ("loss", "accuracy")]
#: Where there is nothing beside training.
HOW = (
    "There is no curve of held-out images: data.split=holdout gives one of validation images, "
    "evaluation.every=1 one of test images."
)

History = Sequence[Mapping[str, float]]


class Curve(NamedTuple):
    """A value by epoch, counted from 1: mean, least and greatest over the seeds of a row."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: tuple[int, ...]  # places of the histories that it is of


class Line(NamedTuple):
    """A row that is drawn: its histories, and its curves by the key of their value."""

    row: Row
    look: dict[str, str]
    runs: list[History]
    curves: dict[str, Curve]


def histories(row: Row, budget: style.Budget) -> list[History]:
    """The histories of a row's runs that have one, as far as the budget goes.

    One that stopped early goes on with its last values to the last epoch of the others: without it
    the mean would be that of those that did well, and another than the row's.
    """
    found: list[list[dict[str, float]]] = []
    for folder in row["folders"]:
        if budget.epochs > 0:
            history, lines = counted_history(folder)
            budget.epochs -= lines
            found += [history] if history else []
    end = max((int(history[-1]["epoch"]) for history in found), default=0) + 1
    for history in found:
        ended = int(history[-1]["epoch"]) + 1
        if ended in (row.get("stopped_epochs") or ()):
            history += [{**history[-1], "epoch": e, "seconds": 0.0} for e in range(ended, end)]
    return [*found]


def curve(runs: Sequence[History], key: str) -> Curve | None:
    """The curve of one of a history's values; None where fewer than two epochs have it.

    A seed that was evaluated less than half as often as another is left out; what is drawn are the
    epochs that all others have, so that a mean is one of the same seeds everywhere.
    """
    known = [
        {int(line["epoch"]): line[key] for line in run if key in line and "epoch" in line}
        for run in runs
    ]
    most = max(map(len, known), default=0)
    kept = tuple(place for place, values in enumerate(known) if 2 * len(values) > most)
    known = [known[place] for place in kept]
    shared = sorted(set.intersection(*map(set, known))) if known else []
    if len(shared) < 2:
        return None
    chosen = np.linspace(0, len(shared) - 1, min(len(shared), MOST_POINTS)).astype(int)
    table = np.array([[values[shared[place]] for place in chosen] for values in known])
    epochs = np.array(shared)[chosen] + 1
    return Curve(epochs, table.mean(0), table.min(0), table.max(0), kept)


def curves(
    model: str, rows: Sequence[Row], data: str, name: str, budget: style.Budget
) -> Figure | None:
    """The curves of a model's rows; None where no run of theirs has a history of two epochs."""
    lines = lines_of(rows, budget)
    if not lines:
        return None
    solid = evaluated(lines)
    names = style.apart([line.row for line in lines]) if lines[1:] else [style.recipe(lines[0].row)]
    model = one_line(model, style.LONGEST)
    ends = [
        f"{text}: {percent(float(line.curves[key].mean[-1]))} %"
        for line, text in zip(lines, names, strict=True)
        if (key := f"{solid or 'train'}_accuracy") in line.curves
    ]
    alt = f"Loss and accuracy by epoch of {len(lines)} row{'s' * bool(lines[1:])} of {model}."
    if ends:
        of = (solid or "training").capitalize()
        alt += f" {of} accuracy at the end: {'; '.join(ends)}."
    several = any(len(line.runs) > 1 for line in lines)
    without = any(len(line.runs) < line.row["n"] for line in lines)
    with style.drawing(name, 3.75 + 0.25 * len(lines)) as figure:
        for axes, value in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            _panel(axes, lines, solid, value)
        entries = [style.entry(solid, ls="-")] if solid else []
        entries.append(style.entry("training", ls=DASHES))
        if several:
            entries.append(style.entry("range of the seeds", ls="-", lw=8, alpha=style.BAND))
        style.legend(figure, entries, "upper")
        entries = [
            _entry(line, f"{text}: {accuracy} % on test, n = {line.row['n']}", solid)
            for line, text in zip(lines, names, strict=True)
            for accuracy in [METRICS["test_accuracy"].with_spread(*map(line.row.get, ACCURACY))]
        ]
        style.legend(figure, entries)
        longest = max(int(one.epochs[-1]) for line in lines for one in line.curves.values())
        sentences = {
            "Mean over the seeds of each row, and their range.": several,
            "One seed a row.": not several,
            "Dashed: training.": True,
            f"Solid: {solid}.": solid,
            HOW: solid is None,
            UNLIKE: unlike(lines),
            f"Of long runs {MOST_POINTS} epochs are drawn.": longest > MOST_POINTS,
            STOPPED: stopped(lines),
            "Seeds without a history are left out.": without,
            f"Rows without a solid line were not evaluated on {solid} images each epoch.": solid
            and any(f"{solid}_accuracy" not in line.curves for line in lines),
            f"The {len(lines)} best of {len(rows):,} rows that have a history.": len(rows)
            > len(lines),
        }
        caption = " ".join(sentence for sentence, holds in sentences.items() if holds)
        title = f"{model}: loss and accuracy by epoch"
        return style.saved(figure, name, data, title, caption, alt)


def lines_of(rows: Sequence[Row], budget: style.Budget) -> list[Line]:
    """The first rows that have curves of training."""
    lines: list[Line] = []
    for row in rows[: style.MOST_ASKED]:
        runs = histories(row, budget)
        found = {key: one for key in KEYS if (one := curve(runs, key)) is not None}
        if found.keys() & {"train_loss", "train_accuracy"}:
            lines.append(Line(row, style.LOOKS[len(lines)], runs, found))
        if len(lines) == MOST_ROWS:
            break
    return lines


def stopped(lines: Sequence[Line]) -> bool:
    """Whether a run of these rows stopped early, and others did not."""
    return any(
        len({line.row["epochs"] if one is None else one for one in found}) > 1
        for line in lines
        if (found := line.row.get("stopped_epochs"))
    )


def unlike(lines: Sequence[Line]) -> bool:
    """Whether the rows were trained by losses of different kinds."""
    return len({str(line.row.get("loss")) for line in lines}) > 1


def evaluated(lines: Sequence[Line]) -> str | None:
    """The kind of images beside those of training that most rows were evaluated on."""
    known = {of: sum(f"{of}_accuracy" in line.curves for line in lines) for of in EVALUATED}
    most = max(known, key=lambda of: known[of])
    return most if known[most] else None


def _entry(line: Line, text: str, solid: str | None) -> Any:
    """The entry of a row in a legend, in the line style that it is drawn in."""
    drawn = solid and any(f"{solid}_{value}" in line.curves for value in ("loss", "accuracy"))
    return style.entry(text, **({"ls": "-"} | line.look if drawn else _training(line.look)))


def _training(look: Mapping[str, str]) -> dict[str, Any]:
    return {"ls": DASHES, "lw": 1.4, "color": look["color"]}


def _panel(axes: "style.Axes", lines: Sequence[Line], solid: str | None, value: str) -> None:
    factor = 100 if value == "accuracy" else 1
    seen = []
    drawn = [
        (line.look, of, line.curves[f"{of}_{value}"])
        for line in lines
        for of in ("train", solid)
        if f"{of}_{value}" in line.curves
    ]
    for marks, of, found in drawn:
        colour = marks["color"]
        mean, low, high = (factor * part for part in (found.mean, found.low, found.high))
        look = _training(marks)
        if of == solid:
            every = 1 if len(mean) <= MOST_MARKERS else [-1]
            look = {"lw": 1.8, "ms": 5, "markevery": every, **marks}
        axes.plot(found.epochs, mean, **look)
        if len(found.runs) > 1 and of == (solid or "train"):
            axes.fill_between(found.epochs, low, high, color=colour, alpha=style.BAND, lw=0)
        seen += [low, high]
    if seen:
        ends = np.concatenate(seen)
        edge = 0.05 * float(np.ptp(ends)) or 0.05 * abs(float(ends[0])) or 1.0
        axes.set_ylim(ends.min() - edge, ends.max() + edge)
    axes.set(title="Loss" if value == "loss" else "Accuracy (%)", xlabel="epoch")
    whole_epochs(axes)


# --- rows of several models -----------------------------------------------------------------------


def best_of_each(rows: Sequence[Row]) -> list[Row]:
    """The best row of each model, the best first: of rows that stand in that order."""
    best: dict[Any, Row] = {}
    for row in rows:
        if row["command"] is not None:  # of several configurations in one row there are no curves
            best.setdefault(row["model"], row)
    return list(best.values())


def epochs(rows: Sequence[Row], data: str, name: str, budget: style.Budget) -> Figure | None:
    """Training loss and held-out accuracy by epoch, of the best row of each model.

    None where there are not two such rows with a history.
    """
    lines = lines_of(best_of_each(rows), budget)
    if len(lines) < 2:
        return None
    solid = evaluated(lines)
    shown = {"train_loss": "Training loss"}
    shown[f"{solid or 'train'}_accuracy"] = f"{(solid or 'training').capitalize()} accuracy (%)"
    names = [style.model_of(line.row) for line in lines]
    key = list(shown)[-1]
    ends = [
        f"{text} {percent(float(line.curves[key].mean[-1]))} %"
        for line, text in zip(lines, names, strict=True)
        if key in line.curves
    ]
    heading = shown[key].removesuffix(" (%)")
    title = "Several rows: training loss and accuracy by epoch"
    alt = f"{title}. {heading} at the end: {'; '.join(ends)}."
    several = any(len(line.runs) > 1 for line in lines)
    sentences = {
        "The best row of each model.": True,
        "Mean over the seeds, and their range.": several,
        STOPPED: stopped(lines),
        HOW: solid is None,
        UNLIKE: unlike(lines),
        f"Of long runs {MOST_POINTS} epochs are drawn.": any(
            len(one.epochs) == MOST_POINTS for line in lines for one in line.curves.values()
        ),
    }
    with style.drawing(name, 3.75 + 0.25 * math.ceil(len(lines) / 2)) as figure:
        panes = figure.subplots(1, 2, sharex=True)
        for axes, (key, heading) in zip(panes, shown.items(), strict=True):
            for line in lines:
                if key in line.curves:
                    drawn_curve(
                        axes, line, line.curves[key], 100 if key.endswith("accuracy") else 1
                    )
            axes.set(title=heading, xlabel="epoch")
        whole_epochs(panes[0])
        entries = [
            style.entry(f"{text}, n = {line.row['n']}", ls="-", **line.look)
            for line, text in zip(lines, names, strict=True)
        ]
        if several:
            entries.append(style.entry("range of the seeds", ls="-", lw=8, alpha=style.BAND))
        style.legend(figure, entries)
        caption = " ".join(sentence for sentence, holds in sentences.items() if holds)
        return style.saved(figure, name, data, title, caption, alt)


def drawn_curve(
    axes: "style.Axes", line: Line, found: Curve, factor: float, x: np.ndarray | None = None
) -> None:
    """A solid curve with its band; by epoch, or at other places."""
    x = found.epochs if x is None else x
    every = 1 if len(x) <= MOST_MARKERS else [-1]
    look: dict[str, Any] = {"lw": 1.8, "ms": 5, "markevery": every, **line.look}
    axes.plot(x, factor * found.mean, **look)
    if len(found.runs) > 1:
        ends = (factor * found.low, factor * found.high)
        axes.fill_between(x, *ends, color=line.look["color"], alpha=style.BAND, lw=0)


def whole_epochs(axes: "style.Axes") -> None:
    """No ticks between two epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
