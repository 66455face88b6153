"""How long the workers of a search wait for their next trial.

    python -m benchmarks.idle
    python -m benchmarks.idle --seconds 4
    python -m benchmarks.idle 2 --trials 12 --training
    python -m benchmarks.idle 2 --trials 12 --training --data fashion_mnist

Trials take once to four times as long as the shortest; they sleep, so that cores are free for
what is measured. With `--training` they are LeNets of 2 or of 16 epochs, on few synthetic images,
or on all of a public set. A worker is idle between the end of a run, when its record is written,
and the start of its next one, when Hydra writes its config: until the last trial is handed out, and
over the whole span, in which the best one is evaluated on the test set at last.
"""

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.frame import Results, Spread, main, python

SLEEPER = """\
import time
import torch

class Sleeper(torch.nn.Module):
    def __init__(self, seconds, channels, classes):
        super().__init__()
        self.seconds = seconds
        self.linear = torch.nn.Linear(channels, classes)

    def forward(self, images):
        if self.training:
            time.sleep(self.seconds)
        return self.linear(images.mean((2, 3)))
"""
SLEEPING = [
    "--config-dir", ".", "-m", "model=sleeper", "data=synthetic",
    "data.train_size=20", "data.test_size=10", "data.split.validation=10",
    "batch_size=10", "epochs=1", "threads=1",
]  # fmt: skip
TRAINING = ["-m", "model=lenet", "epochs=choice(2,16)"]
FEW_IMAGES = ["data.train_size=3000", "data.test_size=500"]
SEARCH = [
    "hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0",
    "hydra.sweep.dir=here", "device=cpu",
]  # fmt: skip


def spans(folder: Path) -> list[tuple[float, float]]:
    """When each run of a search started and ended, in seconds; the best one twice.

    The best is started again for the test set, and its record and Hydra's files are written anew:
    its first start is that of Hydra's folder, and its first end that of its last epoch.
    """
    found = []
    for path in folder.glob("*/result.json"):
        hydra, end = path.parent / ".hydra", path.stat().st_mtime
        start, again = hydra.stat().st_mtime, (hydra / "overrides.yaml").stat().st_mtime
        trained = (path.parent / "history.jsonl").stat().st_mtime
        found += [(start, end)] if again < trained else [(start, trained), (again, end)]
    return sorted(found)


def idle(runs: Sequence[tuple[float, float]], workers: int, until: float) -> float:
    """The share of the workers' time in which they had no run, from the first run until a time."""
    begin = min(start for start, _ in runs)
    worked = sum(min(end, until) - start for start, end in runs if start < until)
    return 1 - worked / (workers * (until - begin))


def measure(
    workers: Sequence[int] = (2, 8),
    *,
    trials: int = 200,
    seconds: float = 0.3,
    repeats: int = 1,
    training: bool = False,
    data: str = "synthetic",
) -> Iterator[Results]:
    """Shares of the workers' time, for each number of workers; the shortest sleep in seconds."""
    trained = [*TRAINING, f"data={data}", *(FEW_IMAGES if data == "synthetic" else ())]
    lengths = ",".join(f"{seconds * times:g}" for times in (1, 2, 3, 4))
    os.environ["FMBENCH_TRUST"] = "sleepers"
    for count in workers:
        found: dict[str, list[float]] = {"until the last is handed out": [], "in all": []}
        spent = []
        for _ in itertools.repeat(None, repeats):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                (folder / "model").mkdir()
                (folder / "sleepers.py").write_text(SLEEPER, "utf-8")
                option = "_target_: sleepers.Sleeper\nseconds: 1.0\n"
                (folder / "model" / "sleeper.yaml").write_text(option, "utf-8")
                given = trained if training else [*SLEEPING, f"model.seconds=choice({lengths})"]
                asked = [f"sweep.trials={trials}", f"sweep.jobs={count}"]
                python("-m", "fmbench", *given, *SEARCH, *asked, folder=folder)
                runs = spans(folder / "here")
            last, end = runs[trials - 1][0], runs[trials][1]  # the best is evaluated after all
            found["until the last is handed out"].append(100 * idle(runs, count, last))
            found["in all"].append(100 * idle(runs, count, end))
            spent.append(end - runs[0][0])
        yield {
            **{
                f"{count} workers: idle {when}": Spread.of(each, "%")
                for when, each in found.items()
            },
            f"{count} workers: seconds": Spread.of(spent, "s"),
        }


if __name__ == "__main__":
    main(measure)
