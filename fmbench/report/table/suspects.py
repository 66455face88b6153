"""Accuracy on the test images that nobody suspects, by what `fmbench suspects` has left."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from fmbench.records.suspects import SuspectedTest
from fmbench.report.table.columns import UNSUSPECTED
from fmbench.report.table.ranks import MOST_PREDICTIONS, MOST_RANKED, Evidence, evidence
from fmbench.report.table.rows import plain_rows


def note(table: pd.DataFrame, found: Sequence[SuspectedTest]) -> None:
    """Give rows, in place, `unsuspected_accuracy` and how many `suspected_images` that leaves out.

    Those among the first `MOST_RANKED` whose runs kept predictions on a test set of which the
    suspects are known. An image that one of several files suspects is suspected.
    """
    suspected: dict[str, set[int]] = defaultdict(set)
    for one in found:
        suspected[one.test_set].update(one.suspects)
    masks: dict[str, np.ndarray] = {}  # a stranger's file may name millions
    known = table["data_sha256"].isin({one.data_sha256 for one in found})
    left = MOST_PREDICTIONS
    for row in plain_rows(table[known][:MOST_RANKED]):
        answers = evidence(row, left)
        if answers is None or answers.test_set not in suspected:
            continue
        left -= answers.correct.size
        if answers.test_set not in masks:
            masks[answers.test_set] = _kept(answers, suspected[answers.test_set])
        kept = masks[answers.test_set]
        if not kept.any():
            continue
        accuracies = pd.Series(answers.correct[:, kept].mean(axis=1))
        if row["folds"]:  # the seeds of one fold are one measurement of it
            accuracies = accuracies.groupby(list(row["run_folds"])).mean()
        place = row["number"] - 1
        table.at[place, UNSUSPECTED] = float(accuracies.mean())
        table.at[place, "suspected_images"] = int((~kept).sum())


def _kept(answers: Evidence, suspected: set[int]) -> np.ndarray:
    """(N,) which test images nobody suspects."""
    kept = np.ones(len(answers.labels), dtype=bool)
    # A stranger's file may name images that are not there.
    kept[[image for image in suspected if image < len(kept)]] = False
    return kept
