"""A search in the report: sentences and tables, as plain text.

Escaping belongs to the outputs. Nothing is opened by a name that a search gives: its trials are
looked for among the runs that were found anyway.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from fmbench.core.errors import one_line
from fmbench.records.record import leaves
from fmbench.records.trials import (
    COMPLETE,
    FAILED,
    INFEASIBLE,
    MAXIMIZE,
    PRUNED,
    RUNNING,
    Objective,
    Parameter,
    Search,
    Trial,
)
from fmbench.report.table import formats
from fmbench.report.table.columns import METRICS, Metric
from fmbench.report.table.formats import MISSING
from fmbench.report.table.rows import plain_rows

MOST_BEST = 5
MOST_FRONT = 20
MOST_FAILED = 10

# A name or a value may be of any length; what is longer than this is cut.
LONGEST = 60
LONGEST_ERROR = 300

#: A space or a setting may be of any length; what is longer than this is cut.
LONGEST_SPACE = 200


class Table(NamedTuple):
    """A table of a search: its heading, those of its columns, cells, and which are flush right."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: tuple[bool, ...]


def about_flips(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is said of runs that evaluated each image with its mirror; where some did, rows say it.

    No accuracy may stand without.
    """
    configs = [json.loads(run.get("config") or "{}") for run in runs]
    flips = {(config.get("evaluation") or {}).get("flips") is True for config in configs}
    said = "Each image was evaluated with its mirror (evaluation.flips=true)."
    return [said] if flips == {True} else []


@dataclass(frozen=True)
class SearchPart:
    """A search, and its runs as far as the report knows them."""

    search: Search
    # Of each trial by its number, as plain values; several where they differ in seed or fold.
    runs: Mapping[int, Sequence[Mapping[str, Any]]]
    folder: str = ""  # of its file
    apart: str = ""  # the same for people, where another search of the report has its name

    @property
    def title(self) -> str:
        """The heading of the part."""
        where = f" ({one_line(self.apart)})" if self.apart else ""
        return f"Search: {_cut(self.search.study)}{where}"

    @property
    def sentences(self) -> list[str]:
        """The result of the search."""
        search = self.search
        pruner = "no pruner" if search.pruner == "none" else f"pruner {_cut(search.pruner)}"
        goals = " and ".join(
            f"the {'highest' if one.direction == MAXIMIZE else 'lowest'} {metric_of(one).heading}"
            for one in search.objectives
        )
        said = [f"{_cut(search.sampler)}, {pruner}, looked for {goals}: {counts(search)}."]
        seconds = [trial.seconds for trial in search.trials if trial.seconds is not None]
        if seconds:
            said.append(f"Training took {formats.duration(sum(seconds))} in all.")
        if not self.best:
            said.append("There is no best trial.")
        elif len(search.objectives) > 1:
            trials = "1 trial is" if len(self.best) == 1 else f"{len(self.best):,} trials are"
            said.append(
                f"{trials} on the Pareto front: no other is at least as good in all objectives and "
                "better in one."
            )
        else:
            said += self._best_sentences(self.best[0])
        every = [run for runs in self.runs.values() for run in runs]
        said += about_flips(every)
        sources = {run["source"] for run in every if run.get("source")}
        if len(sources) > 1:
            said.append(
                f"The user's own code was changed between trials: they are of {len(sources)} "
                "different codes, and the best of them is a choice among these too."
            )
        return said

    @property
    def tables(self) -> list[Table]:
        """The best trials or the Pareto front, the importances, the trials that failed."""
        search = self.search
        tables = []
        if len(search.objectives) > 1 and self.best:
            front = self.best[:MOST_FRONT]
            tables.append(self._trials(_first("Pareto front", front, self.best), front))
        elif ranked := ranking(search)[:MOST_BEST]:
            tables.append(self._trials("Best trials", ranked))
        if search.importances:
            several = len(search.objectives) > 1
            heading = f"Importances{f' for {self._objective.heading}' if several else ''}"
            rows = self.importance_rows
            tables.append(Table(heading, ("parameter", "importance"), rows, (False, True)))
        failed = [trial for trial in search.trials if trial.state == FAILED]
        if failed:
            listed = sorted(failed, key=lambda trial: trial.number)[:MOST_FAILED]
            reasons = [one_line(t.error or "no reason recorded", LONGEST_ERROR) for t in listed]
            cells = [
                (str(t.number), settings(t), why) for t, why in zip(listed, reasons, strict=True)
            ]
            heading = _first("Trials that failed", listed, failed)
            headings = ("trial", "parameters", "reason")
            tables.append(Table(heading, headings, cells, (True, False, False)))
        return tables

    @property
    def importance_rows(self) -> list[tuple[str, str]]:
        """The parameters and their importances as texts, the largest first."""
        return [(_cut(name), f"{share:.2f}") for name, share in importances(self.search)]

    @cached_property
    def best(self) -> list[Trial]:
        """The best trial, or the Pareto front, by the first objective."""
        named = set(self.search.best)
        return [trial for trial in ranking(self.search) if trial.number in named]

    @property
    def _objective(self) -> Metric:
        return metric_of(self.search.objectives[0])

    def _best_sentences(self, best: Trial) -> Iterator[str]:
        assert best.values is not None
        metric, tested = self._objective, self._tested(best)
        named = f" ({settings(best)})" if best.parameters else ""
        value = f"{metric.heading} {metric.with_unit(best.values[0])}"
        of = f", each the mean of {best.runs} runs" if best.runs > 1 else ""
        said = f"Best is trial {best.number}{named}: {value}"
        if tested is not None:
            yield f"{said}, test accuracy {formats.percent(tested)} %{of}."
            yield (
                f"It was chosen by its {metric.heading}, which is therefore likely too high; the "
                "test set had no part in the choice."
            )
        else:
            yield f"{said}."
            here = self.runs.get(best.number)
            why = "was not evaluated on the test set" if here else "is not in this report"
            yield f"Of its test accuracy nothing is known: its run {why}."

    def _tested(self, trial: Trial) -> float | None:
        """The mean test accuracy of a trial's runs; None where one has none, or is not here."""
        found = [run["test_accuracy"] for run in self.runs.get(trial.number, ())]
        known = [accuracy for accuracy in found if accuracy is not None]
        return fmean(known) if len(known) == trial.runs else None

    def _trials(self, title: str, trials: Sequence[Trial]) -> Table:
        columns = [("trial", True, [str(trial.number) for trial in trials])]
        reached = zip(*(trial.values or () for trial in trials), strict=True)
        for objective, values in zip(self.search.objectives, reached, strict=True):
            metric = metric_of(objective)
            columns.append((metric.title, True, list(map(metric.show, values))))
        if any(trial.runs > 1 for trial in trials):
            columns.insert(1, ("n", True, [str(trial.runs) for trial in trials]))
        tested = [self._tested(trial) for trial in trials]
        if any(value is not None for value in tested):
            columns.append(("test accuracy (%)", True, list(map(formats.percent, tested))))
        for key in dict.fromkeys(key for trial in trials for key in trial.parameters):
            tried = [trial.parameters.get(key, MISSING) for trial in trials]
            columns.append((_cut(key), False, list(map(parameter_text, tried))))
        times = [formats.duration(trial.seconds) for trial in trials]
        headings, right, cells = zip(*columns, ("training", True, times), strict=True)
        return Table(title, headings, [*zip(*cells, strict=True)], right)


def search_parts(searches: Mapping[str, Search], frame: pd.DataFrame) -> list[SearchPart]:
    """Find the runs of searches, which are given by folder, in the frame of all runs."""
    if not searches:
        return []
    runs = {}
    for row in plain_rows(frame[["folder", "test_accuracy", "source", "config"]]):
        # Another driver names its folders as it sees them: from the root, links followed.
        runs[os.path.abspath(row["folder"])] = runs[os.path.realpath(row["folder"])] = row  # noqa: PTH100
    parts = []
    names = Counter(_cut(search.study) for search in searches.values())
    for folder, search in searches.items():
        found = {}
        for trial in search.trials:
            places = (os.path.abspath(os.path.join(folder, name)) for name in _folders(trial))  # noqa: PTH100, PTH118
            if here := [runs[place] for place in places if place in runs]:
                found[trial.number] = here
        apart = os.path.relpath(folder) if names[_cut(search.study)] > 1 else ""
        parts.append(SearchPart(search, found, folder, apart))
    return parts


def _folders(trial: Trial) -> list[str]:
    """The folders of a trial's runs: the first, and those numbered next."""
    if trial.folder is None:
        return []
    parent, name = os.path.split(trial.folder)
    if trial.runs == 1 or not name.isdecimal():
        return [trial.folder]
    return [os.path.join(parent, str(int(name) + place)) for place in range(trial.runs)]  # noqa: PTH118


def chosen_by(table: pd.DataFrame, searches: Sequence[SearchPart]) -> list[str | None]:
    """For each row of the table how a search came to choose its run, if one did."""
    said: dict[str, str] = {}
    for part in searches:
        goals = " and ".join(metric_of(one).heading for one in part.search.objectives)
        how = f"best of {_trials(len(part.search.trials))} by {goals}"
        best = (part.runs.get(number, ()) for number in part.search.best)
        said |= {run["folder"]: how for runs in best for run in runs}
    return [
        next((said[folder] for folder in folders if folder in said), _tuned_by(tuning, config))
        for folders, tuning, config in zip(
            table["folders"], table["tuning"], table["config"], strict=True
        )
    ]


def _tuned_by(text: object, config: object) -> str | None:
    """How many trials of which space chose the settings of a row, as its records say."""
    if not isinstance(text, str):
        return None
    tuning = json.loads(text)
    space = "; ".join(f"{key}: {values}" for key, values in tuning.get("space", {}).items())
    said = f"tuned by {_trials(tuning.get('trials', 0))}"
    said += f" of {one_line(space, LONGEST_SPACE)}" if space else ""
    values = dict(leaves(json.loads(config))) if isinstance(config, str) else {}
    changed = [
        key
        for key, value in tuning.get("best", {}).get("parameters", {}).items()
        if key in values and values[key] != value
    ]
    return (
        f"{said}; then changed: {one_line(', '.join(changed), LONGEST_SPACE)}" if changed else said
    )


def _trials(number: int) -> str:
    return f"{number:,} trial" + "s" * (number != 1)


def counts(search: Search) -> str:
    """How many trials ended in which way: 12 of 20 trials completed, 7 pruned, 1 failed."""
    states = Counter(trial.state for trial in search.trials)
    made = len(search.trials)
    said = [f"{states[COMPLETE]:,} of {max(search.total, made):,} trials completed"]
    others = {
        "pruned": states[PRUNED],
        "infeasible": states[INFEASIBLE],
        "failed": states[FAILED],
        "still running, or killed": states[RUNNING],
        "not begun": max(search.total - made, 0),
    }
    return ", ".join([*said, *(f"{number:,} {word}" for word, number in others.items() if number)])


def ranking(search: Search) -> list[Trial]:
    """The complete trials, the best in the first objective first."""
    sign = search.objectives[0].sign
    complete = [
        (-sign * trial.values[0], trial.number, trial)
        for trial in search.trials
        if trial.state == COMPLETE and trial.values is not None
    ]
    return [trial for _, _, trial in sorted(complete, key=lambda entry: entry[:2])]


def importances(search: Search) -> list[tuple[str, float]]:
    """The parameters and their importances, the largest first."""
    return sorted((search.importances or {}).items(), key=lambda item: (-item[1], item[0]))


def metric_of(objective: Objective) -> Metric:
    """How an objective is called and its values are written."""
    name = {"train_seconds": "seconds_train"}.get(objective.name, objective.name)
    return METRICS.get(name) or Metric(_cut(name.replace("_", " ")), formats.number)


def parameter_text(value: Parameter) -> str:
    """A value that was tried, as a command has it: 64, 0.01234, true, null, adam."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return _cut(value if isinstance(value, str) else json.dumps(value))


def settings(trial: Trial) -> str:
    """The parameters of a trial: batch_size=64, optimizer.lr=0.01."""
    return ", ".join(
        f"{_cut(key)}={parameter_text(value)}" for key, value in trial.parameters.items()
    )


def _first(title: str, listed: Sequence[Any], everything: Sequence[Any]) -> str:
    """The title, and how many of how many are listed where that is not all."""
    if len(listed) == len(everything):
        return title
    return f"{title} (the first {len(listed):,} of {len(everything):,})"


def _cut(text: str) -> str:
    return one_line(text, LONGEST)
