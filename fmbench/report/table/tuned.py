"""A tuned comparison in the report: what its contestants reached, what that cost, what it says.

Nothing is opened by a name that the comparison's file gives: its runs are looked for among those
that were found anyway.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from fmbench import stats
from fmbench.config.tuning import FINAL
from fmbench.core.errors import one_line
from fmbench.records.record import COMPLETED
from fmbench.records.trials import FAILED, Search, Trial
from fmbench.records.tuned import Block, Contestant, Tuned, knows_source
from fmbench.report.table import formats
from fmbench.report.table.formats import MISSING
from fmbench.report.table.ranks import MOST_PREDICTIONS, MOST_RANKED, evidence
from fmbench.report.table.rows import plain_rows
from fmbench.report.table.search import (
    LONGEST,
    LONGEST_SPACE,
    Table,
    about_flips,
    metric_of,
    settings,
)
from fmbench.stats import Sample, t_half_width

#: Of pairs of contestants in a table: those of ten.
MOST_PAIRS = 45

#: The share of a contestant's trials from which on it counts as one that failed.
_HALF = 0.5

#: Accuracies of each contestant without which there is no spread to test a difference by.
_LEAST_UNITS = 2

#: What must be the same of all final runs.
_IMAGES = ("data_sha256", "split_hash", "split_test")

_CHOSEN_ON = {
    "train": "the training images alone",
    "train_and_validation": "the training and the validation images",
}


@dataclass(frozen=True)
class Entry:
    """A contestant as it stands: its searches, and the final runs of their best settings."""

    contestant: Contestant
    blocks: tuple[Block, ...]
    finals: tuple[tuple[Mapping[str, Any], ...], ...]  # of each block, those that were evaluated
    epochs: int | None  # that the trials of its searches trained
    wanted: int  # final runs
    lost: Mapping[str, int] = field(default_factory=dict)  # what became of the others
    sources: int = 1  # versions of the user's own code that its trials and final runs are of
    sample: Sample | None = field(default=None, repr=False)  # what it is ranked by
    rank: int | None = None

    @property
    def label(self) -> str:
        """What it is called."""
        return one_line(self.contestant.label, LONGEST)

    @property
    def searches(self) -> list[Search]:
        """Its searches, as far as they have begun."""
        return [block.search for block in self.blocks if block.search is not None]

    @property
    def best(self) -> list[Trial]:
        """The trial that each search chose; none where no trial has completed."""
        by_number = ({t.number: t for t in s.trials} for s in self.searches)
        pairs = zip(self.searches, by_number, strict=True)
        return [trials[search.best[0]] for search, trials in pairs if search.best]

    @property
    def failed(self) -> int:
        """How many of its trials failed."""
        return sum(trial.state == FAILED for s in self.searches for trial in s.trials)

    @property
    def trials(self) -> int:
        """How many trials its searches have begun."""
        return sum(len(search.trials) for search in self.searches)

    @property
    def is_broken(self) -> bool:
        """Whether half of its trials failed, or more."""
        return self.trials > 0 and self.failed >= _HALF * self.trials

    @property
    def runs(self) -> list[Mapping[str, Any]]:
        """Its final runs that were evaluated."""
        return [run for of_search in self.finals for run in of_search]

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies: of one search its final runs', of several the mean of each search."""
        if len(self.blocks) == 1:
            return [run["test_accuracy"] for run in self.runs]
        return [fmean(run["test_accuracy"] for run in runs) for runs in self.finals if runs]

    @property
    def seconds(self) -> float:
        """Of training, in its trials and final runs."""
        trials = (trial.seconds or 0.0 for search in self.searches for trial in search.trials)
        return sum(trials) + sum(run["seconds_train"] or 0.0 for run in self.runs)

    @property
    def is_whole(self) -> bool:
        """Whether all of its final runs were evaluated: without some its mean flatters it."""
        return 0 < self.wanted == len(self.runs)

    @property
    def may_rank(self) -> bool:
        """Whether its mean is of one method, by all of its final runs."""
        return self.is_whole and self.sources <= 1

    @property
    def images(self) -> set[tuple[Any, ...]]:
        """What its final runs were trained and evaluated on."""
        return {tuple(run[key] for key in _IMAGES) for run in self.runs}

    def with_sample(self, most: int) -> "Entry":
        """The same with what it is ranked by; of at most so many predictions.

        Its final runs are of the same images, and there is at least one.
        """
        runs = self.runs
        first = runs[0]
        accuracies = np.array(self.accuracies, dtype=float)
        row = {key: first[key] for key in ("split_test", "data_sha256", "about_data", "data")}
        row |= {
            "folders": tuple(run["folder"] for run in runs),
            "accuracies": tuple(run["test_accuracy"] for run in runs),
            "run_seeds": tuple(run["seed"] for run in runs),
        }
        found = evidence(row, most)
        if found is None:
            return replace(self, sample=Sample(accuracies, int(first["split_test"] or 1)))
        correct = found.correct.mean(axis=0, dtype=np.float32)
        sample = Sample(accuracies, found.correct.shape[1], found.test_set, correct)
        return replace(self, sample=sample)

    def row(self) -> dict[str, Any]:
        """Its values for programs."""
        values = self.accuracies
        mean = fmean(values) if values else None
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        half = None if deviation is None else float(t_half_width(deviation, len(values)))
        chosen = [trial.values[0] for trial in self.best if trial.values]
        return {
            "rank": self.rank,
            "contestant": self.contestant.label,
            "searches": len(self.blocks),
            "trials": self.trials,
            "failed_trials": self.failed,
            "epochs": self.epochs,
            "seconds_train": self.seconds,
            "final_runs": len(self.runs),
            "final_runs_wanted": self.wanted,
            "images_train": self.runs[0]["split_train"] if self.runs else None,
            "test_accuracy": mean,
            "test_accuracy_sd": deviation,
            "test_accuracy_low": None if mean is None or half is None else max(mean - half, 0.0),
            "test_accuracy_high": None if mean is None or half is None else min(mean + half, 1.0),
            "chosen_by": fmean(chosen) if chosen else None,
            "space": "; ".join(f"{k}: {v}" for k, v in self.contestant.space.items()),
            "best_setting": " | ".join(settings(trial) for trial in self.best),
        }


@dataclass(frozen=True)
class ComparisonPart:
    """A tuned comparison, and its runs as far as the report knows them."""

    tuned: Tuned
    runs: Mapping[int, Mapping[str, Any]]  # by their numbers, as plain values
    folder: str = ""  # of its file

    @property
    def title(self) -> str:
        """The heading of the part."""
        return f"Tuned comparison: {one_line(os.path.basename(self.folder) or '.', LONGEST)}"  # noqa: PTH119

    @cached_property
    def trials(self) -> list[str]:
        """The folders of the runs of its trials."""
        finals = {number for block in self.tuned.blocks for number in self._finals(block)}
        return [run["folder"] for number, run in self.runs.items() if number not in finals]

    def _finals(self, block: Block) -> range:
        return block.finals(self.tuned.trials * self.tuned.runs)

    @cached_property
    def entries(self) -> list[Entry]:
        """The contestants with their ranks, the best mean first.

        Behind them stand those that have no rank: final runs are missing, or their code changed.
        """
        found = list(map(self._entry, range(len(self.tuned.contestants))))
        found.sort(key=lambda e: (not e.may_rank, -fmean(e.accuracies) if e.runs else 1.0))
        if len(set[tuple[Any, ...]]().union(*(entry.images for entry in found))) != 1:
            return found
        compared, left = (
            [entry for entry in found if entry.may_rank][:MOST_RANKED],
            MOST_PREDICTIONS,
        )
        for place, entry in enumerate(compared):
            found[place] = entry.with_sample(left)
            left -= len(entry.runs) * int(entry.runs[0]["split_test"] or 0)
        samples = [entry.sample for entry in found if entry.sample is not None]
        if len(samples) > 1 and self.units >= _LEAST_UNITS:
            for place, rank in enumerate(stats.ranks(samples)):
                found[place] = replace(found[place], rank=rank)
        return found

    @property
    def units(self) -> int:
        """How many accuracies of each contestant are compared: without two nothing is told."""
        return self.tuned.final_seeds if self.tuned.searches == 1 else self.tuned.searches

    def _entry(self, place: int) -> Entry:
        contestant = self.tuned.contestants[place]
        blocks = [block for block in self.tuned.blocks if block.contestant == place]
        blocks.sort(key=lambda block: block.repeat)
        finals, lost, label = [], Counter[str](), contestant.label
        for block in blocks:
            there = []
            for number, seed in zip(self._finals(block), block.seeds, strict=True):
                run = self.runs.get(number)
                if run is None or not _is_final(run, label, block.repeat, seed):
                    lost["not there"] += 1
                elif run["status"] != COMPLETED:
                    lost[run["status"]] += 1
                elif run["test_accuracy"] is None:
                    lost["not evaluated"] += 1
                else:
                    there.append(run)
            finals.append(tuple(there))
        trained = [self._trained(block) for block in blocks]
        epochs = sum(one or 0 for one in trained) if None not in trained else None
        wanted = sum(len(block.seeds) for block in blocks)
        sources = len(self._sources(blocks))
        return Entry(contestant, tuple(blocks), tuple(finals), epochs, wanted, lost, sources)

    def _sources(self, blocks: Sequence[Block]) -> set[str | None]:
        """The hashes of the user's own code in all runs of a contestant; None where there is none.

        A run that ended before its parts were built has not got so far as to know.
        """
        runs = [
            self.runs.get(number)
            for block in blocks
            for number in range(block.first, block.first + self.tuned.block_size)
        ]
        return {
            run["source"] for run in runs if run and knows_source(run["source"], run["parameters"])
        }

    def _trained(self, block: Block) -> int | None:
        """How many epochs the trials of a search have trained; None where that is not known."""
        if block.epochs is not None:
            return block.epochs
        for number in self._finals(block):
            if (run := self.runs.get(number)) and run.get("tuning_epochs") is not None:
                return int(run["tuning_epochs"])
        trials = block.search.trials if block.search else ()
        # Of several runs a trial reports one value each, rather than one an epoch.
        return sum(len(t.reports) for t in trials) if self.tuned.runs == 1 or not trials else None

    @property
    def sentences(self) -> list[str]:
        """What was done, and what the ranks are of."""
        tuned, entries = self.tuned, self.entries
        search = next((one for entry in entries for one in entry.searches), None)
        count = len(entries)
        how = "was searched once" if tuned.searches == 1 else f"was searched {tuned.searches} times"
        said = [f"Each of {count:,} contestants {how}, with {tuned.trials:,} trials"]
        if search is not None:
            pruner = "no pruner" if search.pruner == "none" else f"pruner {search.pruner}"
            objective = metric_of(search.objectives[0]).heading
            said[0] += (
                f" ({one_line(search.sampler, LONGEST)}, {one_line(pruner, LONGEST)}), of which "
                f"{objective} chose the best"
            )
        said[0] += "."
        runs = "1 run" if tuned.final_seeds == 1 else f"{tuned.final_seeds:,} runs"
        said.append(
            f"Then {runs} of that setting with seeds of their own, trained on "
            f"{_CHOSEN_ON[tuned.final_on]}, were evaluated on the test set once each."
        )
        said += about_flips(self.runs.values())
        if self.units >= _LEAST_UNITS:
            said.append(_UNITS.get(tuned.searches, _UNIT_OF_MANY).format(tuned.searches))
        else:
            said.append(_NO_UNITS)
        if len(set[tuple[Any, ...]]().union(*(entry.images for entry in entries))) > 1:
            said.append(
                "The final runs were not trained and evaluated on the same images, so that no "
                "contestant has a rank."
            )
        for entry in entries:
            if entry.is_broken:
                said.append(
                    f"{entry.label}: {entry.failed:,} of its {entry.trials:,} trials failed, so "
                    "that its search was not what those of the others were."
                )
            if entry.sources > 1:
                said.append(
                    f"{entry.label}: has no rank, for its trials and final runs are of "
                    f"{entry.sources:,} versions of the user's own code (the hash `source`)."
                )
            if not entry.runs:
                said.append(f"{entry.label}: no final run has been evaluated.")
            elif not entry.is_whole:
                lost = ", ".join(f"{count:,} {what}" for what, count in entry.lost.items())
                said.append(
                    f"{entry.label}: has no rank, for {entry.wanted - len(entry.runs):,} of its "
                    f"{entry.wanted:,} final runs are missing in its accuracy ({lost})."
                )
        ranks = Counter(entry.rank for entry in entries if entry.rank is not None)
        if max(ranks.values(), default=0) > 1:
            said.append(
                "A rank is 1, and one more for each contestant that is better beyond doubt: "
                "contestants that share one need not be equal."
            )
        keys = {len(entry.contestant.space) for entry in entries}
        if len(keys) > 1:
            said.append(
                f"The searches were of {min(keys):,} to {max(keys):,} keys, with as many trials "
                "each: the more keys, the less densely they were searched."
            )
        epochs = {entry.epochs for entry in entries if entry.epochs is not None}
        if len(epochs) > 1:
            said.append(
                "The contestants had as many trials each, and trained other numbers of epochs in "
                f"them: {min(epochs):,} to {max(epochs):,}."
            )
        return said

    @cached_property
    def tables(self) -> list[Table]:
        """The contestants, and how each pair differs."""
        return [self._contestants(), *([pairs] if (pairs := self._pairs()).rows else [])]

    def _contestants(self) -> Table:
        several = self.tuned.searches > 1
        metric = next((metric_of(s.objectives[0]) for e in self.entries for s in e.searches), None)
        headings: dict[str, bool] = {
            "rank": True, "contestant": False, "test accuracy (%)": True,
            "95 % interval (%)": True, "searches" if several else "": True, "final runs": True,
            "trials": True, "epochs": True, "training": True,
            metric.title if metric else "chosen by": True, "best setting": False, "space": False,
        }  # fmt: skip
        rows = []
        for entry in self.entries:
            row = entry.row()
            trials = f"{row['trials']:,}"
            trials += f" ({entry.failed:,} failed)" if entry.failed else ""
            wanted = f" of {entry.wanted:,}" if len(entry.runs) < entry.wanted else ""
            low, high = row["test_accuracy_low"], row["test_accuracy_high"]
            spread = row["test_accuracy_sd"]
            mean = formats.percent(row["test_accuracy"])
            interval = f"{formats.percent(low)} to {formats.percent(high)}"
            chosen = MISSING if metric is None else metric.show(row["chosen_by"])
            rows.append((
                MISSING if entry.rank is None else str(entry.rank),
                entry.label,
                mean if spread is None else f"{mean} ± {formats.percent(spread)}",
                MISSING if low is None else interval,
                str(len(entry.blocks)),
                f"{len(entry.runs):,}{wanted}",
                trials,
                MISSING if entry.epochs is None else f"{entry.epochs:,}",
                formats.duration(row["seconds_train"]),
                chosen,
                one_line(row["best_setting"] or MISSING, LONGEST_SPACE),
                one_line(row["space"], LONGEST_SPACE),
            ))  # fmt: skip
        kept = [place for place, heading in enumerate(headings) if heading]
        return Table(
            "Contestants",
            tuple(heading for heading in headings if heading),
            [tuple(row[place] for place in kept) for row in rows],
            tuple(right for heading, right in headings.items() if heading),
        )

    @cached_property
    def pairs(self) -> list[dict[str, Any]]:
        """How each pair differs, the better first: what programs read."""
        found: list[dict[str, Any]] = []
        entries = [entry for entry in self.entries if entry.sample is not None]
        for place, a in enumerate(entries):
            for b in entries[place + 1 :]:
                if len(found) == MOST_PAIRS or a.sample is None or b.sample is None:
                    break
                apart = stats.difference(a.sample, b.sample)
                beats = stats.outperforms(a.accuracies, b.accuracies)
                ends = {"low": apart.low, "high": apart.high, "p": apart.p}
                told = {
                    key: None if self.units < _LEAST_UNITS or np.isnan(value) else value
                    for key, value in ends.items()
                }
                found.append({
                    "a": a.contestant.label, "b": b.contestant.label, "difference": apart.mean,
                    **told,
                    "a_beats_b": beats and beats.share, "a_beats_b_low": beats and beats.low,
                    "a_beats_b_high": beats and beats.high,
                })  # fmt: skip
        return found

    def _pairs(self) -> Table:
        unit = "run" if self.tuned.searches == 1 else "search"
        rows = []
        for pair in self.pairs:
            beats, chance = pair["a_beats_b"], MISSING
            if beats is not None:
                chance = (
                    f"{beats:.2f} ({pair['a_beats_b_low']:.2f} to {pair['a_beats_b_high']:.2f})"
                )
            low, high = pair["low"], pair["high"]
            rows.append((
                one_line(pair["a"], LONGEST), one_line(pair["b"], LONGEST),
                f"{100 * pair['difference']:+.2f}",
                MISSING if low is None else f"{100 * low:+.2f} to {100 * high:+.2f}",
                MISSING if pair["p"] is None else formats.probability(pair["p"]), chance,
            ))  # fmt: skip
        every = len(self.entries) * (len(self.entries) - 1) // 2
        some = f" (the first {len(rows)} of {every})" if len(rows) == MOST_PAIRS < every else ""
        headings = ("A", "B", "A less B (points)", "95 % interval", "p")
        chance = f"one {unit} of A beats one of B"
        right = (False, False, True, True, True, True)
        return Table(f"Pairs of contestants{some}", (*headings, chance), rows, right)


#: What ranks and intervals are of, by the number of searches of each contestant.
_UNITS = {
    1: (
        "These are the best settings found by one search each: ranks and intervals are of the "
        "settings, by the spread of their seeds, and say nothing of what another search would "
        "have found (sweep.searches=3 does)."
    ),
    2: (
        "The unit of ranks and intervals is the search with its final runs. Of two the spread is "
        "known by one difference alone: only what is far apart is told apart, and that two "
        "contestants are not told apart says little."
    ),
}
_NO_UNITS = (
    "Each contestant has one final run, which says nothing of the spread of its seeds, so that "
    "none has a rank (sweep.final_seeds=5 gives it five)."
)
_UNIT_OF_MANY = (
    "The unit of ranks and intervals is the repeated search, the mean of its final runs: they "
    "count what the luck of a search is worth, by {} of them."
)


def _is_final(run: Mapping[str, Any], label: str, repeat: int, seed: int) -> bool:
    """Whether a run says of itself that it is this final run."""
    said = json.loads(run["tuning"] or "{}")
    own = (said.get("stage"), said.get("contestant"), said.get("search"), run["seed"])
    return own == (FINAL, label, repeat, seed)


def comparison_parts(
    comparisons: Mapping[str, Tuned], frame: pd.DataFrame
) -> Sequence[ComparisonPart]:
    """Find the runs of comparisons, which are given by folder, in the frame of all runs."""
    if not comparisons:
        return []
    runs: dict[str, dict[int, Any]] = {folder: {} for folder in comparisons}
    found = frame[frame["folder"].map(os.path.dirname).isin(list(runs))]
    for row in plain_rows(found):
        parent, name = os.path.split(row["folder"])
        if name.isdecimal() and len(name) < 10:
            runs[parent][int(name)] = row
    return [ComparisonPart(tuned, runs[folder], folder) for folder, tuned in comparisons.items()]
