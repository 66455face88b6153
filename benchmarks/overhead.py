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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import fmbench
from benchmarks.frame import Results, Spread, main, python

TINY = [
    "data=synthetic", "data.train_size=200", "data.test_size=50", "model=lenet5", "epochs=1",
    "threads=1",
]  # fmt: skip
LENETS = ["-m", "model=lenet", "epochs=2", "seed=range(8)"]
BY_TWO = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]

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

IMAGES = """\
import sys, time
from benchmarks.contenders import compose
from fmbench.data.fashion_mnist import load
chosen = compose()["data"]
for _ in range(int(sys.argv[1])):
    start = time.perf_counter()
    load(chosen)
print(time.perf_counter() - start)
"""

QUICK = {"repeats": 2, "jobs": (1, 10)}


def seconds(*arguments: str) -> float:
    """How long `python ARGUMENTS` takes in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return timed(*arguments, folder=Path(folder))


def timed(*arguments: str, folder: Path) -> float:
    """The same in a folder that is there."""
    start = time.perf_counter()
    python(*arguments, folder=folder)
    return time.perf_counter() - start


def read_images(times: int) -> float:
    """Seconds to have all images ready in a process of its own; of several times the last."""
    with tempfile.TemporaryDirectory() as folder:
        return float(python("-c", IMAGES, str(times), folder=Path(folder)))


def beside_training(jobs: int) -> float:
    """Seconds that a sweep of tiny runs takes beside training and evaluating."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = ["-m", "fmbench", "-m", *TINY, f"seed=range({jobs})"]
        taken = timed(*sweep, folder=Path(folder))
        frame = fmbench.load_results(folder)
    return taken - float(frame["seconds_train"].sum() + frame["seconds_evaluate"].sum())


QUESTIONS: Mapping[str, Callable[[], float]] = {
    "--help": lambda: seconds("-m", "fmbench", "--help"),
    "--cfg job": lambda: seconds("-m", "fmbench", "--cfg", "job"),
    "first step of lenet": lambda: seconds("-c", FIRST_STEP, "model=lenet"),
    "a tiny run, start to end": lambda: seconds("-m", "fmbench", *TINY),
    "70,000 images, first time": lambda: read_images(1),
    "70,000 images, next job": lambda: read_images(2),
}


def measure(
    *, repeats: int = 5, jobs: Sequence[int] = (1, 20, 100), two_at_once: bool = False
) -> Iterator[Results]:
    """Seconds that each takes, in turns.

    Args:
        repeats: turns
        jobs: of the sweeps, ascending
        two_at_once: whether eight LeNets are also trained one after the other, and by two processes
    """
    values: dict[str, list[float]] = {}
    for _ in range(repeats):
        found = {name: ask() for name, ask in QUESTIONS.items()}
        beside = {count: beside_training(count) for count in jobs}
        found |= {f"a sweep of {count}, beside its training": beside[count] for count in jobs}
        for less, more in itertools.pairwise(jobs):
            each = (beside[more] - beside[less]) / (more - less)
            found[f"a sweep's job beside its training, {less} to {more}"] = each
        for name, value in found.items():
            values.setdefault(name, []).append(value)
    yield {name: Spread.of(taken, "s") for name, taken in values.items()}
    if two_at_once:
        one, two = (seconds("-m", "fmbench", *LENETS, *how) for how in ((), BY_TWO))
        yield {"8 LeNets, two at once": Spread.of([one / two], "x")}


if __name__ == "__main__":
    main(measure)
