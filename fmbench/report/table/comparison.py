"""What there is to say of two rows of the benchmark, and how it is said."""

import os
import sys
import textwrap
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console

from fmbench.core.console import say
from fmbench.core.errors import PartialResultsError, one_line
from fmbench.records.reader import Problem
from fmbench.report.render.aligned import aligned
from fmbench.report.table import formats
from fmbench.report.table.columns import SHOWN, Row
from fmbench.stats import CONFIDENCE, MODELS, NEITHER, Difference

_LEVEL = f"{100 * CONFIDENCE:g} %"


@dataclass(frozen=True)
class SeedPair:
    """One run of either row, with the same seed.

    Attributes:
        seed: Of both.
        a: Test accuracy of A.
        b: Of B.
        only_a: Images that A alone has right.
        only_b: Images that B alone has right.
        p: McNemar's exact test, two-sided.
    """

    seed: int
    a: float
    b: float
    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class ClassPair:
    """The test images of one class.

    Attributes:
        name: Of the class.
        a: Share of them that A has right, mean over its seeds.
        b: The same of B.
        p: That there is no difference, corrected by Holm's method for the number of classes; NaN
            where there is no test.
    """

    name: str
    a: float
    b: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """What there is to say of two rows.

    Attributes:
        names: What to call them.
        rows: The rows of `benchmark_table`, as plain values.
        difference: A less B.
        seeds: Runs with the same seed, where both answered the same images.
        classes: Where the answers of both are known.
        time_ratio: Training time of A over that of B; None where the two do not compare.
        time_note: Why they do not.
        problems: The records that could not be read.
    """

    names: tuple[str, str]
    rows: tuple[Row, Row]
    difference: Difference
    seeds: list[SeedPair]
    classes: list[ClassPair]
    time_ratio: float | None
    time_note: str | None
    problems: list[Problem] = field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """0, or 4 where some records could not be read."""
        return PartialResultsError.exit_status if self.problems else 0

    @property
    def sentence(self) -> str:
        """What follows, in one sentence."""
        found = self.difference
        points = f"{abs(100 * found.mean):.2f} points"
        low, high = sorted(np.sign(found.mean or 1) * 100 * np.array([found.low, found.high]))
        first, second = self.names if found.mean >= 0 else self.names[::-1]
        time = self._time(first, second)
        if found.about == NEITHER:
            few, several = sorted(zip(self.names, self.rows, strict=True), key=lambda x: x[1]["n"])
            side = "ahead" if few[0] == first else "behind"
            lead = f"it is {side} by {points}" if found.mean else "both are equally accurate"
            return (
                f"{few[0]} has one seed and {several[0]} has {several[1]['n']}: how far another "
                "seed of the first would land is not known, so that neither is called more "
                f"accurate; on these images {lead}{time}."
            )
        detail = f"{_LEVEL} interval {low:.2f} to {high:.2f}, {formats.equals(found.p)}"
        if found.p < 1 - CONFIDENCE and found.about == MODELS:
            said = (
                f"the trained model of {first} is more accurate on these images than that of "
                f"{second} by {points} ({detail})"
            )
        elif found.p < 1 - CONFIDENCE:
            said = f"{first} is more accurate than {second} by {points} ({detail})"
        else:
            said = (
                f"{first} and {second} cannot be told apart: {points} lie between them ({detail})"
            )
        if found.about == MODELS:
            said += (
                "; with one seed each this is about these two trained models, not about their "
                "recipes"
            )
        if not found.paired:
            said += "; their answers could not be compared image by image"
        return f"{said}{time}."

    def _time(self, first: str, second: str) -> str:
        if self.time_ratio is None:
            return ""
        ratio = self.time_ratio if first == self.names[0] else 1 / self.time_ratio
        if 0.95 < ratio < 1.05:
            return f"; {first} and {second} train equally long"
        longer, shorter = (second, first) if ratio < 1 else (first, second)
        times = f"{formats.factor(max(ratio, 1 / ratio))} times as long"
        if all(row["n"] == 1 for row in self.rows):
            return f"; the one run of {longer} trained {times} as that of {shorter}"
        return f"; {longer} trains {times} as {shorter}"


def print_comparison(found: Comparison) -> None:
    """Print a comparison to standard output."""
    say(*lines(found))


def lines(found: Comparison) -> list[str]:
    """A comparison as lines of text."""
    seeds = ["seeds", *(", ".join(map(str, row["seeds"])) for row in found.rows)]
    keys = (
        *("test_accuracy", "test_accuracy_low", "parameters"),
        *("seconds_train", "runs_at_once", "device"),
    )
    shown = [column for column in SHOWN if column.key in keys]
    cells = [[c.title, *(one_line(c.cell(row)) for row in found.rows)] for c in shown]
    said = []
    for letter, name, row in zip("AB", found.names, found.rows, strict=True):
        runs = f"{len(row['folders'])} run{'s' * (len(row['folders']) > 1)}"
        where = os.path.relpath(os.path.commonpath(row["folders"]) or ".")
        said.append(f"{letter}: {one_line(name)} ({runs} in {one_line(where)})")
    said.append("")
    said += aligned([["", "A", "B"], seeds, *cells], [False, True, True])
    d = found.difference
    detail = (
        "no test: one seed does not tell how far another would land"
        if d.about == NEITHER
        else f"{_LEVEL} interval {100 * d.low:+.2f} to {100 * d.high:+.2f}, {formats.equals(d.p)}"
    )
    said += ["", f"Difference, A less B: {100 * d.mean:+.2f} points, {detail}"]
    if d.about != NEITHER:
        said += ["The ranks of a table are of the same test, corrected for all its pairs."]
    if found.seeds:
        said += ["", "McNemar's test, runs of one seed"]
        heading = ["seed", "A (%)", "B (%)", "A alone right", "B alone right", "p"]
        body = [
            [
                str(pair.seed),
                formats.percent(pair.a),
                formats.percent(pair.b),
                formats.count(pair.only_a),
                formats.count(pair.only_b),
                formats.probability(pair.p),
            ]
            for pair in found.seeds
        ]
        said += aligned([heading, *body], [True] * 6)
    if found.classes:
        said += ["", "By class (p corrected for their number)"]
        heading = ["class", "A (%)", "B (%)", "difference (points)", "p"]
        body = [
            [
                one.name,
                formats.percent(one.a),
                formats.percent(one.b),
                f"{100 * (one.a - one.b):+.2f}",
                formats.probability(one.p),
            ]
            for one in found.classes
        ]
        said += aligned([heading, *body], [False, True, True, True, True])
    said.append("")
    if found.time_ratio is not None:
        said.append(f"Training time, A over B: {formats.factor(found.time_ratio)}")
    elif found.time_note is not None:
        said.append(f"Training times do not compare: {found.time_note}")
    if found.problems:
        said += ["", "Records that could not be read, so that runs may be missing:"]
        said += [f"- {one_line(f'{p.path}: {p.reason}', 300)}" for p in found.problems[:10]]
        said += [f"- and {len(found.problems) - 10:,} more"] if len(found.problems) > 10 else []
    sentence = one_line(found.sentence)
    if sys.stdout is not None and sys.stdout.isatty():
        return [*said, "", *textwrap.wrap(sentence, max(Console().width, 20))]
    return [*said, "", sentence]
