"""The lines of the tables of our own results: a published row, and what our runs of it gave."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from fmbench.config import CONFIG_DIR
from fmbench.report import Report
from fmbench.report.table import formats
from fmbench.report.table.columns import METRICS
from fmbench.report.table.published import compared, is_like_with_like
from fmbench.stats import one_more

NOT_RUN = "not run"

#: What a run of fewer epochs is of its recipe, by the recipe's schedule.
SHORTENED = {
    "constant": "The learning rate of each epoch run is the recipe's.",
    "multistep": "The learning rate of each epoch run is the recipe's.",
    "cosine": "The recipe's whole schedule was compressed into the {epochs}.",
}

HEADINGS = (
    *("net", "parameters", "published (%)", "last epoch (%)", "95 % interval (%)"),
    *("best epoch on test (%)", "difference (points)", "one run (%)", "n"),
    *("training time", "device", "published time"),
)
LEFT = ("net", "device", "published time")

ACCURACY = METRICS["test_accuracy"]


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        experiment: The name of the published row.
        reference: The published figures.
        row: Of the benchmark table, as plain values; None where it was not run, or no run
            completed.
        apart: The hardware, where the row was run on several.
        lost: Runs of it that did not complete, as plain values.
    """

    experiment: str
    reference: dict[str, Any]
    row: dict[str, Any] | None = None
    apart: str = ""
    lost: tuple[dict[str, Any], ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it was run, with the published recipe."""
        return self.row is not None and not self.row["deviations"]

    @property
    def is_shortened(self) -> bool:
        """Whether it was run with the published recipe, but for fewer epochs."""
        return (
            self.row is not None
            and len(self.row["deviations"]) == 1
            and self.row["deviations"][0].startswith("epochs=")
            and self.row["epochs"] < recipe(self.experiment)["epochs"]
        )

    @property
    def name(self) -> str:
        """The experiment, what was done otherwise, and where, if that tells it apart."""
        changes = list(self.row["deviations"]) if self.row is not None else []
        if self.row is not None and self.is_shortened:
            changes = [f"{self.row['epochs']} of {recipe(self.experiment)['epochs']} epochs"]
        arithmetic = self.row["difference_in"] if self.row is not None else None
        said = ", ".join((*changes, *filter(None, [self.apart or arithmetic])))
        return f"{self.experiment} ({said})" if said else self.experiment

    @property
    def verdict(self) -> str | None:
        """What follows for the published figure; None where nothing does."""
        row, theirs = self.row, self.reference["accuracy"]
        if row is not None and theirs is not None and self.is_shortened:
            whole = recipe(self.experiment)["epochs"]
            how = SHORTENED.get(row["scheduler"], "Its schedule is another one.")
            return (
                f"**{self.name}**: not comparable with the published"
                f" {formats.percent(theirs)} %, which is of {whole} epochs."
                f" {how.format(epochs=row['epochs'])}"
            )
        if row is None or row["deviations"] or theirs is None:
            return None
        if row["difference_in"] is not None:
            return (
                f"**{self.name}**: the published {formats.percent(theirs)} % and ours lie"
                f" {100 * abs(row['difference']):.2f} points apart, but ours was computed in"
                f" {row['difference_in']}: not like with like."
            )
        if not is_like_with_like(row):
            return None
        said = f"**{self.name}**: the published {formats.percent(theirs)} %"
        ends = one_more(compared(row))
        if ends is None:
            return (
                f"{said} and ours lie {100 * abs(row['difference']):.2f} points apart; one seed"
                " does not say how far another would."
            )
        between = ACCURACY.interval(*ends)
        if theirs > ends[1]:
            return f"{said} is more than one more run of ours would give, {between} %."
        if theirs < ends[0]:
            return f"{said} is less than one more run of ours would give, {between} %."
        few = " Of two seeds that is a wide range." if row["n"] == 2 else ""
        return (
            f"{said} is within what one more run of ours would give, {between} %: ours does not"
            f" contradict it.{few}"
        )

    @property
    def falls_short(self) -> bool:
        """Whether the published figure is higher by more than the uncertainty of ours.

        That is where one more run would land. Of one or two seeds, whose spread says little, it is
        the 95 % interval that as many test images give a share.
        """
        row, theirs = self.row, self.reference["accuracy"]
        if row is None or row["deviations"] or theirs is None:
            return False
        values = compared(row)
        mean = float(np.mean(values))
        ends = one_more(values)
        if ends is not None and len(values) > 2:
            return bool(theirs > ends[1])
        return bool(theirs - mean > 1.96 * (mean * (1 - mean) / row["split_test"]) ** 0.5)

    @property
    def cells(self) -> dict[str, str]:
        """By heading."""
        theirs, row = self.reference, self.row
        cells = dict.fromkeys(HEADINGS, formats.MISSING) | {
            "net": self.name,
            "parameters": formats.count(theirs["parameters"]),
            "published (%)": formats.published(theirs["accuracy"], theirs["protocol"]),
            "published time": formats.published_time(
                theirs["seconds"], theirs.get("approximate"), theirs["device"]
            ),
        }
        if row is None:
            lost = f"none of {len(self.lost)} runs completed"
            return cells | {"last epoch (%)": lost if self.lost else NOT_RUN}
        if self.is_shortened and theirs["seconds"] is not None:
            whole = f"{recipe(self.experiment)['epochs']} epochs"
            cells["published time"] = f"{whole}: {cells['published time']}"
        best = row["best_accuracies"]
        if row["best_test_accuracy"] is not None:
            spread = float(np.std(best, ddof=1)) if len(best) > 1 else None
            looked = ACCURACY.with_spread(row["best_test_accuracy"], spread)
            cells["best epoch on test (%)"] = looked
        if self.is_whole and theirs["accuracy"] is not None and is_like_with_like(row):
            ends = one_more(compared(row))
            cells["one run (%)"] = ACCURACY.interval(*ends) if ends else formats.MISSING
        published = (
            *(row["published_accuracy"], row["published_protocol"], row["deviations"]),
            row["difference_in"],
        )
        return cells | {
            "parameters": formats.count(row["parameters"]),
            "last epoch (%)": ACCURACY.with_spread(row["test_accuracy"], row["test_accuracy_sd"]),
            "95 % interval (%)": ACCURACY.interval(
                row["test_accuracy_low"], row["test_accuracy_high"]
            ),
            "difference (points)": formats.points(
                row["difference"], row["difference_of"], *published
            ),
            "n": seeds_of(row),
            "training time": METRICS["seconds_train"].with_spread(
                row["seconds_train"], row["seconds_train_sd"]
            ),
            "device": formats.hardware(row["device"], row["precision"]),
        }


def lines(
    report: Report,
    unfinished: Sequence[dict[str, Any]],
    experiments: Sequence[str],
    without: Sequence[Path] = (),
) -> list[Line]:
    """The lines of some experiments; one that was run in several ways has a line for each.

    Args:
        report: Of the records.
        unfinished: The runs among them that did not complete, as plain values.
        experiments: Their names.
        without: Folders whose runs have their place elsewhere.
    """
    return [line for name in experiments for line in _lines(report, unfinished, name, without)]


@cache  # read for each line of each table
def recipe(experiment: str) -> dict[str, Any]:
    """What an experiment's file says; nobody may change it."""
    file = CONFIG_DIR / "experiment" / f"{experiment}.yaml"
    said = OmegaConf.to_object(OmegaConf.load(file))
    assert isinstance(said, dict)
    return said


def _lines(
    report: Report,
    unfinished: Sequence[dict[str, Any]],
    experiment: str,
    without: Sequence[Path],
) -> Iterator[Line]:
    reference = recipe(experiment)["reference"]
    rows = [
        row
        for row in report.rows
        if row["experiment"] == experiment
        and not all(_lies_in(folder, without) for folder in row["folders"])
    ]
    lost = [
        run
        for run in unfinished
        if run["experiment"] == experiment and not _lies_in(run["folder"], without)
    ]
    for row in sorted(rows, key=lambda row: len(row["deviations"])):
        alike = [other for other in rows if other["deviations"] == row["deviations"]]
        hardware = formats.hardware(row["device"], row["precision"])
        of_it = [run for run in lost if _may_be_of(run, row)]
        lost = [run for run in lost if run not in of_it]
        yield Line(experiment, reference, row, hardware if len(alike) > 1 else "", tuple(of_it))
    if lost or not rows:
        yield Line(experiment, reference, lost=tuple(lost))


def _may_be_of(run: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a run that did not complete would have been of a row; it may not know its device."""
    of_it = run["configuration"] == row["configuration"]
    return of_it and run["device"] in (None, row["device"])


def seeds_of(row: Mapping[str, Any]) -> str:
    """How many seeds a row has, of how many runs if not all completed."""
    others = (row[key] for key in ("n_failed", "n_unfinished", "n_pruned", "n_interrupted"))
    return formats.seeds(row["n"], *others)


def _lies_in(folder: str, places: Sequence[Path]) -> bool:
    return any(Path(folder).is_relative_to(place) for place in places)
