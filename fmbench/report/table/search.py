"""A search in the report: sentences and tables, as plain text.

Escaping belongs to the outputs. Nothing is opened by a name that a search gives: its trials are
looked for among the runs that were found anyway.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from fmbench.core.errors import one_line
from fmbench.records.trials import (
    COMPLETE,
    FAILED,
    MAXIMIZE,
    PRUNED,
    Objective,
    Parameter,
    Search,
    Trial,
)
from fmbench.report.table import formats
from fmbench.report.table.formats import MISSING
from fmbench.report.table.rows import plain_rows

MOST_BEST = 5
MOST_FRONT = 20
MOST_FAILED = 10

# A name or a value may be of any length; what is longer than this is cut.
LONGEST = 60
LONGEST_ERROR = 300

#: Groups where the name of what a run built may differ from its option's name.
_BUILT = ("model", "optimizer", "scheduler")

_WORDS = {"flops": "FLOPs", "train_seconds": "training time"}
_FORMATS = {
    "parameters": formats.count,
    "flops": formats.flops,
    "train_seconds": formats.duration,
}


class Table(NamedTuple):
    """A table of a search: its heading, those of its columns, cells, and which are flush right."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: tuple[bool, ...]


@dataclass(frozen=True)
class SearchPart:
    """A search, and its runs as far as the report knows them.

    Attributes:
        search: What its file says.
        runs: By the number of the trial, as plain values: `folder` and `test_accuracy`.
        folder: Where its file lies.
        apart: The same as people read it, where another search of the report has its name.
    """

    search: Search
    runs: Mapping[int, Mapping[str, Any]]
    folder: str = ""
    apart: str = ""

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
            f"the {'highest' if one.direction == MAXIMIZE else 'lowest'} {objective_name(one)}"
            for one in search.objectives
        )
        said = [f"{_cut(search.sampler)}, {pruner}, looked for {goals}: {counts(search)}."]
        seconds = [trial.seconds for trial in search.trials if trial.seconds is not None]
        if seconds:
            said.append(f"Training took {formats.duration(sum(seconds))} in all.")
        if len(search.objectives) > 1 and self.best:
            trials = "1 trial is" if len(self.best) == 1 else f"{len(self.best):,} trials are"
            said.append(
                f"{trials} on the Pareto front: no other is at least as good in all objectives and "
                "better in one."
            )
        elif self.best:
            said += self._best_sentences(self.best[0])
        elif not any(trial.state == COMPLETE for trial in search.trials):
            said.append("No trial completed, so there is no best one.")
        sources = {run["source"] for run in self.runs.values() if run.get("source")}
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
            of = f" for {objective_name(search.objectives[0])}" if search.objectives[1:] else ""
            heading, rows = f"Importances{of}", self.importance_rows
            tables.append(Table(heading, ("parameter", "importance"), rows, (False, True)))
        failed = [trial for trial in search.trials if trial.state == FAILED]
        if failed:
            listed = sorted(failed, key=lambda trial: trial.number)[:MOST_FAILED]
            cells = [(str(trial.number), settings(trial), _reason(trial)) for trial in listed]
            heading = _first("Trials that failed", listed, failed)
            headings = ("trial", "parameters", "reason")
            tables.append(Table(heading, headings, cells, (True, False, False)))
        return tables

    @property
    def importance_rows(self) -> list[tuple[str, str]]:
        """The parameters and their importances as texts, the largest first."""
        return [(_cut(name), f"{share:.2f}") for name, share in importances(self.search)]

    @property
    def alt_text(self) -> str:
        """The alternative text of a figure of the search."""
        objective = self.search.objectives[0]
        said = [f"{objective_name(objective)} of the trials"]
        if self.best and self.best[0].values:
            value = value_text(objective, self.best[0].values[0], unit=True)
            said.append(f"best {value} in trial {self.best[0].number}")
        return "; ".join([*said, counts(self.search)])

    @cached_property
    def best(self) -> list[Trial]:
        """The best trial, or the Pareto front, by the first objective."""
        named = set(self.search.best)
        return [trial for trial in ranking(self.search) if trial.number in named]

    def _best_sentences(self, best: Trial) -> Iterator[str]:
        assert best.values is not None
        objective = self.search.objectives[0]
        value = f"{objective_name(objective)} {value_text(objective, best.values[0], unit=True)}"
        named = settings(best)
        said = f"Best is trial {best.number}{f' ({named})' if named else ''}: {value}"
        run = self.runs.get(best.number)
        test = run["test_accuracy"] if run else None
        if test is not None:
            yield f"{said}, test accuracy {formats.percent(test)} %."
            yield (
                f"It was chosen by its {objective_name(objective)}, which is therefore likely too "
                "high; the test set had no part in the choice."
            )
        else:
            yield f"{said}."
            missing = (
                "its run is not in this report"
                if run is None
                else "it was not evaluated on the test set"
            )
            yield f"Of its test accuracy nothing is known: {missing}."

    def _trials(self, title: str, trials: Sequence[Trial]) -> Table:
        objectives = self.search.objectives
        keys = list(dict.fromkeys(key for trial in trials for key in trial.parameters))
        tested = [self.runs.get(trial.number, {}).get("test_accuracy") for trial in trials]
        has_test = any(value is not None for value in tested)
        headings = ["trial", *map(objective_heading, objectives)]
        headings += ["test accuracy (%)"] * has_test
        rows = []
        for trial, accuracy in zip(trials, tested, strict=True):
            cells = [str(trial.number), *map(value_text, objectives, trial.values or ())]
            cells += [formats.percent(accuracy)] * has_test
            cells += [
                parameter_text(trial.parameters[key]) if key in trial.parameters else MISSING
                for key in keys
            ]
            rows.append((*cells, formats.duration(trial.seconds)))
        right = (*[True] * len(headings), *[False] * len(keys), True)
        return Table(title, (*headings, *map(_cut, keys), "training"), rows, right)


def search_parts(searches: Mapping[str, Search], frame: pd.DataFrame) -> list[SearchPart]:
    """Find the runs of searches, which are given by folder, in the frame of all runs."""
    if not searches:
        return []
    runs = {}
    for row in plain_rows(frame[["folder", "test_accuracy", "source", *_BUILT]]):
        # Another driver names its folders as it sees them: from the root, links followed.
        runs[os.path.abspath(row["folder"])] = runs[os.path.realpath(row["folder"])] = row  # noqa: PTH100
    parts = []
    names = Counter(_cut(search.study) for search in searches.values())
    for folder, search in searches.items():
        places = {
            trial.number: os.path.abspath(os.path.join(folder, trial.folder))  # noqa: PTH100, PTH118
            for trial in search.trials
            if trial.folder is not None
        }
        found = {number: runs[place] for number, place in places.items() if place in runs}
        apart = os.path.relpath(folder) if names[_cut(search.study)] > 1 else ""
        parts.append(SearchPart(_as_built(search, found), found, folder, apart))
    return parts


def _as_built(search: Search, runs: Mapping[int, Mapping[str, Any]]) -> Search:
    """The search with the names that its runs have for what was built.

    With a target of its own, `optimizer._target_=...`, an option builds something else.
    """
    trials = []
    for trial in search.trials:
        run = runs.get(trial.number, {})
        built = {
            key: run[key]
            for key, value in trial.parameters.items()
            if key in _BUILT and run.get(key) and run[key].partition("/")[0] != value
        }
        trials.append(replace(trial, parameters={**trial.parameters, **built}))
    return replace(search, trials=tuple(trials))


def chosen_by(table: pd.DataFrame, searches: Sequence[SearchPart]) -> list[str | None]:
    """For each row of the table how a search came to choose its run, if one did."""
    said: dict[str, str] = {}
    for part in searches:
        goals = " and ".join(map(objective_name, part.search.objectives))
        how = f"best of {len(part.search.trials):,} trials by {goals}"
        best = (part.runs[number] for number in part.search.best if number in part.runs)
        said |= {run["folder"]: how for run in best}
    return [
        next((said[folder] for folder in folders if folder in said), None)
        for folders in table["folders"]
    ]


def counts(search: Search) -> str:
    """How many trials ended in which way: 12 of 20 trials completed, 7 pruned, 1 failed."""
    states = Counter(trial.state for trial in search.trials)
    made = len(search.trials)
    said = [f"{states[COMPLETE]:,} of {max(search.total, made):,} trials completed"]
    others = {
        "pruned": states[PRUNED],
        "failed": states[FAILED],
        "still running, or killed": made - states[COMPLETE] - states[PRUNED] - states[FAILED],
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


def objective_name(objective: Objective) -> str:
    """The name of an objective in words: validation accuracy."""
    return _WORDS.get(objective.name, _cut(objective.name.replace("_", " ")))


def is_share(objective: Objective) -> bool:
    """Whether it is an accuracy, shown in percent."""
    return objective.name.endswith("accuracy")


def objective_heading(objective: Objective) -> str:
    """The heading of a column: validation accuracy (%)."""
    return f"{objective_name(objective)}{' (%)' if is_share(objective) else ''}"


def value_text(objective: Objective, value: float, *, unit: bool = False) -> str:
    """The value of an objective, with its unit if asked for: 90.12 %."""
    if is_share(objective):
        return f"{formats.percent(value)}{' %' if unit else ''}"
    show = _FORMATS.get(objective.name)
    return show(value) if show else f"{value:g}"


def parameter_text(value: Parameter) -> str:
    """A value that was tried, as a command has it: 64, 0.01234, true, null, adam."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    return one_line(str(value), LONGEST)


def settings(trial: Trial) -> str:
    """The parameters of a trial: batch_size=64, optimizer.lr=0.01."""
    return ", ".join(
        f"{_cut(key)}={parameter_text(value)}" for key, value in trial.parameters.items()
    )


def _reason(trial: Trial) -> str:
    return one_line(trial.error or "no reason recorded", LONGEST_ERROR)


def _first(title: str, listed: Sequence[Any], everything: Sequence[Any]) -> str:
    """The title, and how many of how many are listed where that is not all."""
    if len(listed) == len(everything):
        return title
    return f"{title} (the first {len(listed):,} of {len(everything):,})"


def _cut(text: str) -> str:
    return one_line(text, LONGEST)
