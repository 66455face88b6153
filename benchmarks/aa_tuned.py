"""How often a tuned comparison ranks a contestant apart from itself.

    python -m benchmarks.aa_tuned compute FILE --seeds 36
    python -m benchmarks.aa_tuned FILE

The first command trains LeNet-5 on 5,000 images of Fashion-MNIST for 3 epochs, at 12 learning rates
with each of the seeds: 432 runs, one thread each. FILE gets a line for each, with its accuracies on
6,000 validation images and on the test set, and FILE.bits which test images it has right. What is
there is not computed again.

The second one simulates comparisons on these results: one contestant under two names, which have
samplers' seeds of their own. A search draws learning rates by TPE, and is told the validation
accuracy of the stored run that is nearest; its final runs are stored runs of the best with other
seeds. No two searches have a run in common: they stand for two contestants that are equally good.
Beside that stands the share where both names have the seeds of their runs in common, as contestants
do: where both choose one learning rate their final runs are the very same then, so it is lower than
that of two contestants. A repetition counts where the two names have unlike ranks. With r searches
the unit is a search with its final runs; with one, ranks are of the settings that the two searches
happened to find, which may differ.
"""

import argparse
import csv
import math
import random
import statistics
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

import fmbench
from benchmarks import samplers
from fmbench.records.predictions import read_labels, read_predictions
from fmbench.search import sampler
from fmbench.stats import Sample, ranks

LEARNING_RATES = tuple(float(f"{value:.4g}") for value in np.geomspace(1e-3, 0.3, 12))

COLUMNS = ("lr", "seed", "validation_accuracy", "test_accuracy", "seconds")

#: Images of the test set, a bit each.
IMAGES = 10_000


def overrides(lr: float, seed: int) -> list[str]:
    """A run, as it is typed."""
    return [
        *("model=lenet5", "data.split=holdout", "data.limit=5000", "epochs=3", "threads=1"),
        *("precision=fp32", f"optimizer.lr={lr}", f"seed={seed}"),
    ]


def compute(path: Path, seeds: int) -> None:
    """Run what the file does not have yet, and add a line for each."""
    runs = [(lr, seed) for seed in range(seeds) for lr in LEARNING_RATES]
    frame = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=COLUMNS)
    bits = path.with_suffix(".bits")
    size = IMAGES // 8
    there = bits.stat().st_size // size if bits.is_file() else 0
    frame = frame[: min(len(frame), there)]  # of a run that was killed as it wrote
    frame.to_csv(path, index=False, lineterminator="\n")
    with bits.open("ab") as file:
        file.truncate(len(frame) * size)
    done = set(frame[["lr", "seed"]].itertuples(index=False, name=None))
    for number, (lr, seed) in enumerate(runs, 1):
        if (lr, seed) in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            record = fmbench.run([*overrides(lr, seed), f"hydra.run.dir={folder}/run"])
            labels, found = read_labels(f"{folder}/run"), read_predictions(f"{folder}/run")
        right = np.zeros(IMAGES, dtype=bool)
        accuracies: tuple[Any, Any] = ("", "")  # of a run that diverged
        if record.status == "completed" and labels is not None and found is not None:
            right = found == labels
            accuracies = record.validation_accuracy, record.test_accuracy
        with bits.open("ab") as file:
            file.write(np.packbits(right).tobytes())
        with path.open("a", encoding="utf-8", newline="") as file:
            line = [lr, seed, *accuracies, f"{record.seconds['train']:.3f}"]
            csv.writer(file, lineterminator="\n").writerow(line)
        print(f"{number} of {len(runs)}: lr {lr}, seed {seed}: {accuracies}", flush=True)


class Stored:
    """The results of the runs: validation accuracies, and which test images are right.

    Raises:
        ValueError: a run is missing.
    """

    def __init__(self, path: Path) -> None:
        frame = pd.read_csv(path)
        raw = np.frombuffer(path.with_suffix(".bits").read_bytes(), np.uint8)
        right = np.unpackbits(raw.reshape(-1, IMAGES // 8), axis=1).astype(bool)
        if len(right) < len(frame):
            raise ValueError(f"{path}: has more lines than {path.with_suffix('.bits')} has runs")
        self.rates, self.seeds = (sorted(frame[key].unique()) for key in ("lr", "seed"))
        if len(frame) != len(self.rates) * len(self.seeds):
            raise ValueError(f"{path}: {len(frame)} runs are not all rates with all seeds")
        order = frame.sort_values(["lr", "seed"]).index.to_numpy()
        shape = len(self.rates), len(self.seeds)
        self.validation = frame["validation_accuracy"].to_numpy()[order].reshape(shape)
        self.right = right[order].reshape(*shape, IMAGES)

    def nearest(self, lr: float) -> int:
        """The place of the learning rate that is nearest."""
        return int(np.argmin(np.abs(np.log(self.rates) - math.log(lr))))


@cache
def _tpe() -> DictConfig:
    return samplers.config("tpe", 0)  # to compose it takes a while


def search(stored: Stored, seed: int, *, run: int, trials: int) -> int:
    """The place of the learning rate that a search chooses, told the results of one seed."""
    made = OmegaConf.merge(_tpe(), {"seed": seed})
    assert isinstance(made, DictConfig)
    space = {"optimizer.lr": FloatDistribution(stored.rates[0], stored.rates[-1], log=True)}
    study = optuna.create_study(direction="maximize")
    best, place = -1.0, 0
    for number in range(trials):
        study.sampler = sampler.make(made, space, [number])
        trial = study.ask(space)
        tried = stored.nearest(trial.params["optimizer.lr"])
        value = float(stored.validation[tried, run])
        diverged = math.isnan(value)
        study.tell(trial, None if diverged else value, TrialState.PRUNED if diverged else None)
        if not diverged and value > best:
            best, place = value, tried
    return place


def are_apart(
    stored: Stored, repetition: int, *, searches: int, trials: int, finals: int, shared: bool
) -> tuple[bool, float]:
    """Whether the two names get unlike ranks; and how far apart their means are.

    `shared` says whether both have the seeds of their runs in common.

    Raises:
        ValueError: there are too few seeds for runs of its own for each search.
    """
    size, needed = 1 + finals, seeds_of(searches, finals, shared=shared)
    if needed > len(stored.seeds):
        raise ValueError(f"needs {needed} seeds, and the file has {len(stored.seeds)}")
    drawn = random.Random(repetition).sample(range(len(stored.seeds)), needed)
    seeds = [drawn[place : place + size] for place in range(0, needed, size)]
    samples = []
    for name in range(2):
        means, right = [], []
        own_seeds = seeds if shared else seeds[name * searches : (name + 1) * searches]
        for number, (run, *others) in enumerate(own_seeds):
            own = ((repetition * 2 + name) * searches) + number
            chosen = search(stored, own, run=run, trials=trials)
            found = stored.right[chosen, others]
            means.append(found.mean(axis=1))
            right.append(found)
        accuracies = means[0] if searches == 1 else np.array([one.mean() for one in means])
        correct = np.concatenate(right).mean(axis=0, dtype=np.float32)
        samples.append(Sample(accuracies, stored.right.shape[-1], "test", correct))
    one, two = ranks(samples)
    return one != two, abs(float(samples[0].accuracies.mean() - samples[1].accuracies.mean()))


def seeds_of(searches: int, finals: int, *, shared: bool) -> int:
    """How many seeds a repetition takes."""
    return searches * (1 + finals) * (1 if shared else 2)


def simulate(path: Path, *, repetitions: int, trials: int, finals: int) -> None:
    """Print how often the two names are ranked apart, by one search each and by three."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    stored = Stored(path)
    for searches, shared in ((1, False), (1, True), (3, False), (3, True)):
        how = f"searches={searches}, seeds {'shared' if shared else 'of their own'}"
        needed = seeds_of(searches, finals, shared=shared)
        if needed > len(stored.seeds):
            print(f"{how}: needs {needed} seeds, and the file has {len(stored.seeds)}")
            continue
        found = [
            are_apart(stored, one, searches=searches, trials=trials, finals=finals, shared=shared)
            for one in range(repetitions)
        ]
        share = statistics.fmean(apart for apart, _ in found)
        error = math.sqrt(share * (1 - share) / repetitions)
        distance = 100 * statistics.fmean(points for _, points in found)
        print(
            f"{how}: ranked apart in {share:.1%} ± {error:.1%} of {repetitions} "
            f"repetitions; their means are {distance:.2f} points apart"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", metavar="[compute] FILE")
    parser.add_argument("--seeds", type=int, default=36, help="of each learning rate")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--finals", type=int, default=5)
    options = parser.parse_args()
    if options.words[0] == "compute":
        compute(Path(options.words[1]), options.seeds)
    else:
        simulate(
            Path(options.words[0]),
            repetitions=options.repetitions,
            trials=options.trials,
            finals=options.finals,
        )
