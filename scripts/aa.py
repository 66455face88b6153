"""How often ranks part rows that do not differ: an A/A test over real runs of one configuration.

    python -m fmbench -m model=lenet5 data.limit=5000 epochs=2 'seed=range(1200)' hydra.sweep.dir=aa
    python scripts/aa.py aa

Runs of one configuration, each with another seed, are divided into rows of 3 seeds by a drawn
order, and rows into pairs, none used twice. Each pair is a table of two rows that do not differ:
`ranks` of the report should part at most 5 % of them. Beside the share stand its exact 95 %
interval (Clopper and Pearson 1934), and how often their training times do not overlap.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

import fmbench
from fmbench.core.errors import UserError
from fmbench.records.record import COMPLETED
from fmbench.report.table.compare import time_span
from fmbench.report.table.ranks import evidence, sample
from fmbench.stats import difference, ranks, t_half_width

SEEDS, PAIRS = 3, 200


def pairs(frame: pd.DataFrame, seeds: int, most: int) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Disjoint pairs of rows of so many runs each, in an order drawn from seed 0."""
    order = np.random.default_rng(0).permutation(len(frame))
    rows = [frame.iloc[order[start : start + seeds]] for start in range(0, len(frame), seeds)]
    rows = [row for row in rows if len(row) == seeds]
    return list(zip(rows[0::2], rows[1::2], strict=False))[:most]


def row(runs: pd.DataFrame) -> dict[str, Any]:
    """What ranks and times of a row are made of."""
    seconds = runs["seconds_train"].tolist()
    half = float(t_half_width(float(np.std(seconds, ddof=1)), len(seconds)))
    mean = float(np.mean(seconds))
    first = runs.iloc[0]
    return {
        "folders": tuple(runs["folder"]),
        "accuracies": tuple(runs["test_accuracy"]),
        "run_seeds": tuple(runs["seed"]),
        "split_test": int(first["split_test"]),
        "data_sha256": first["data_sha256"],
        "about_data": first["about_data"],
        "run_seconds": tuple(seconds),
        "seconds_train": mean,
        "seconds_train_low": mean - half,
        "seconds_train_high": mean + half,
    }


def main(argv: list[str] | None = None) -> None:
    """Print how many pairs were parted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of runs that differ in their seed alone")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of a row")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="at most")
    arguments = parser.parse_args(argv)
    try:
        frame = fmbench.load_results(arguments.folder)
    except UserError as error:
        sys.exit(f"aa: {error}")
    frame = frame[(frame["status"] == COMPLETED) & frame["test_accuracy"].notna()]
    frame = frame.drop_duplicates("key").sort_values("seed")
    if frame["configuration"].nunique() != 1:
        sys.exit(f"aa: {arguments.folder} holds {frame['configuration'].nunique()} configurations")
    made = pairs(frame, arguments.seeds, arguments.pairs)
    if not made:
        sys.exit(f"aa: {len(frame)} runs make no pair of rows of {arguments.seeds} seeds")
    parted, timed, ps = 0, 0, []
    for one, two in made:
        a, b = row(one), row(two)
        samples = [sample(each, evidence(each)) for each in (a, b)]
        parted += max(ranks(samples)) > 1
        ps.append(difference(*samples).p)
        (low_a, high_a), (low_b, high_b) = time_span(a), time_span(b)
        timed += high_a < low_b or high_b < low_a
    low, high = scipy_stats.binomtest(parted, len(made)).proportion_ci(0.95, method="exact")
    said = {
        "runs": len(frame),
        "pairs": len(made),
        "seeds": arguments.seeds,
        "parted": parted,
        "percent": round(100 * parted / len(made), 1),
        "interval": [round(100 * low, 1), round(100 * high, 1)],
        "median_p": round(float(np.median(ps)), 2),
        "times_apart": timed,
        "accuracy": [round(float(frame["test_accuracy"].agg(how)), 4) for how in ("mean", "std")],
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
