"""What a run costs beyond its training: starting, reading the images, the jobs of a sweep.

    python -m benchmarks.overhead

Whole processes, as a user starts them: `--help`; `--cfg job`; `model=lenet` on the real images
until its first step is done; a tiny run; all 70,000 images read, verified and ready, in a fresh
process and again in the same one; sweeps of tiny runs beside the training and evaluation that their
records tell of. With `--two-at-once` also 8 LeNets one after the other, over the same by two
processes, once, since it takes minutes.
"""

import itertools
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import fmbench
from benchmarks.frame import Results, Spread, main, python

TINY = [
    "data=synthetic", "data.train_size=200", "data.test_size=50", "model=lenet5", "epochs=1",
    "threads=1",
]  # fmt: skip
LENETS = ["-m", "model=lenet", "epochs=2", "seed=range(8)"]
BY_TWO = ["hydra/launcher=processes", "hydra.launcher.n_jobs=2"]

#: A run as the command starts it, until an optimizer has made its first step.
FIRST_STEP = """\
import os, torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from fmbench.cli.main import main
def stop(*_):
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    os._exit(0)
register_optimizer_step_post_hook(stop)
main()
"""

#: Prints how long the images take; of several times the last.
IMAGES = """\
import sys, time
from benchmarks.throughput import compose
from fmbench.data.load import load
chosen = compose()["data"]
for _ in range(int(sys.argv[1])):
    start = time.perf_counter()
    load(chosen)
print(time.perf_counter() - start)
"""


def alone(*arguments: str) -> tuple[str, float]:
    """What `python ARGUMENTS` prints in a folder of its own, and the seconds it takes."""
    with tempfile.TemporaryDirectory() as folder:
        return python(*arguments, folder=folder)


def beside_training(jobs: int) -> float:
    """Seconds that a sweep of tiny runs takes beside training and evaluating."""
    with tempfile.TemporaryDirectory() as folder:
        _, taken = python("-m", "fmbench", "-m", *TINY, f"seed=range({jobs})", folder=folder)
        frame = fmbench.load_results(folder)
    return taken - float(frame["seconds_train"].sum() + frame["seconds_evaluate"].sum())


#: Each gives seconds.
QUESTIONS: Mapping[str, Callable[[], float]] = {
    "--help": lambda: alone("-m", "fmbench", "--help")[1],
    "--cfg job": lambda: alone("-m", "fmbench", "--cfg", "job")[1],
    "first step of lenet": lambda: alone("-c", FIRST_STEP, "model=lenet")[1],
    "a tiny run, start to end": lambda: alone("-m", "fmbench", *TINY)[1],
    "70,000 images, first time": lambda: float(alone("-c", IMAGES, "1")[0]),
    "70,000 images, next job": lambda: float(alone("-c", IMAGES, "2")[0]),
}


def measure(
    *, repeats: int = 5, jobs: Sequence[int] = (1, 20, 100), two_at_once: bool = False
) -> Iterator[Results]:
    """Seconds that each takes, in turns; `jobs` of the sweeps are in ascending order."""
    values: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name, ask in QUESTIONS.items():
            values[name].append(ask())
        beside = {count: beside_training(count) for count in jobs}
        for count, taken in beside.items():
            values[f"a sweep of {count}, beside its training"].append(taken)
        for less, more in itertools.pairwise(jobs):
            each = (beside[more] - beside[less]) / (more - less)
            values[f"a sweep's job beside its training, {less} to {more}"].append(each)
    yield {name: Spread.of(taken, "s") for name, taken in values.items()}
    if two_at_once:
        one, two = (alone("-m", "fmbench", *LENETS, *how)[1] for how in ((), BY_TWO))
        yield {"8 LeNets, two at once": Spread.of([one / two], "x")}


if __name__ == "__main__":
    main(measure)
