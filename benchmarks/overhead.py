"""What a run costs beyond its training: starting, reading the images, the jobs of a sweep.

    python -m benchmarks.overhead

Whole processes, as a user starts them, each several times; medians and quartiles.

- start-up: `--help` and `--cfg job`; from the start of the process until the first step of
  `model=lenet` on the real images is done; and a tiny run from its start to its end;
- images: all 70,000, found, verified and ready, in a fresh process and again in the same one;
- a job of a sweep: what sweeps of 1, 20 and 100 tiny runs take beside the training and evaluation
  that their records tell of; from 1 to 20 jobs and from 20 to 100, for each job more;
- two at once: a sweep of 8 LeNets of 2 epochs one after the other, over the same by two processes;
  once, with `--two-at-once`, since it takes minutes.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import fmbench
from benchmarks.commands import environment, python, timed
from benchmarks.timing import Results, Spread, listing, save

TINY = [
    "data=synthetic", "data.train_size=200", "data.test_size=50", "model=lenet5", "epochs=1",
    "threads=1",
]  # fmt: skip
LENETS = ["-m", "model=lenet", "epochs=2", "seed=range(8)"]
BY_TWO = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
JOBS = (1, 20, 100)

#: A run as the command starts it, until an optimizer has made its first step.
FIRST_STEP = """\
import os, torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from fmbench.cli.main import main
def stop(*_):
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    os.write(1, b"\\nfirst step\\n")
    os._exit(0)
register_optimizer_step_post_hook(stop)
main()
"""

IMAGES = """\
import sys, time
from omegaconf import OmegaConf
from fmbench import config, data
config.register()
chosen = OmegaConf.load(config.CONFIG_DIR / "data" / "fashion_mnist.yaml")
chosen = OmegaConf.to_container(chosen, resolve=True)
for _ in range(int(sys.argv[1])):
    start = time.perf_counter()
    data.load(chosen)
print(time.perf_counter() - start)
"""


def seconds(*arguments: str) -> float:
    """How long `python -m fmbench ARGUMENTS` takes in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return timed(*arguments, folder=Path(folder))


def first_step(*overrides: str) -> float:
    """Seconds from the start of a process until the first training step of a run is done.

    By this process's clock. The other one says when by a hook that PyTorch calls after a step of
    any optimizer, and ends there.

    Raises:
        SystemExit: the run ended before.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-c", FIRST_STEP, *overrides],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                if line == b"first step\n":
                    return time.perf_counter() - start
                said.append(line.decode(errors="replace"))
    raise SystemExit(f"no training step was made:\n{''.join(said)[-2000:]}")


def read_images(times: int) -> float:
    """Seconds to have all images ready in a process of its own; of several times the last."""
    with tempfile.TemporaryDirectory() as folder:
        return float(python("-c", IMAGES, str(times), folder=Path(folder)))


def beside_training(jobs: int) -> float:
    """Seconds that a sweep of tiny runs takes beside training and evaluating."""
    with tempfile.TemporaryDirectory() as folder:
        taken = timed("-m", *TINY, f"seed=range({jobs})", folder=Path(folder))
        frame = fmbench.load_results(Path(folder) / "multirun")
    return taken - float(frame["seconds_train"].sum() + frame["seconds_evaluate"].sum())


def for_each_more(beside: Mapping[int, float]) -> dict[str, float]:
    """Seconds for each job more, from one size of a sweep to the next.

    Args:
        beside: what sweeps of so many jobs take beside their training, ascending.
    """
    return {
        f"a sweep's job beside its training, {less} to {more}": (beside[more] - beside[less])
        / (more - less)
        for less, more in itertools.pairwise(beside)
    }


def two_at_once() -> float:
    """How many times as fast eight LeNets are by two processes."""
    return seconds(*LENETS) / seconds(*LENETS, *BY_TWO)


QUESTIONS: dict[str, Callable[[], float]] = {
    "--help": lambda: seconds("--help"),
    "--cfg job": lambda: seconds("--cfg", "job"),
    "first step of lenet": lambda: first_step("model=lenet"),
    "a tiny run, start to end": lambda: seconds(*TINY),
    "70,000 images, first time": lambda: read_images(1),
    "70,000 images, next job": lambda: read_images(2),
}


def measure(
    *,
    repeats: int = 5,
    jobs: Sequence[int] = JOBS,
    questions: Mapping[str, Callable[[], float]] = QUESTIONS,
    sweep: Callable[[int], float] = beside_training,
) -> Results:
    """Seconds that each takes, in turns.

    Args:
        repeats: turns.
        jobs: of the sweeps, ascending.
        questions: by name what is timed once a turn.
        sweep: seconds that a sweep of so many jobs takes beside its training.
    """
    values: dict[str, list[float]] = {}
    for _ in range(repeats):
        found = {name: ask() for name, ask in questions.items()}
        beside = {count: sweep(count) for count in jobs}
        found |= {f"a sweep of {count}, beside its training": beside[count] for count in jobs}
        found |= for_each_more(beside)
        for name, value in found.items():
            values.setdefault(name, []).append(value)
    return {name: Spread.of(taken, "s") for name, taken in values.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, save it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jobs", nargs="+", type=int, default=JOBS, help="of sweeps, ascending")
    parser.add_argument("--two-at-once", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    results = measure(repeats=arguments.repeats, jobs=arguments.jobs)
    if arguments.two_at_once:
        results["8 LeNets, two at once"] = Spread.of([two_at_once()], "x")
    print(listing(results))
    save(arguments.json, "overhead", results)


if __name__ == "__main__":
    main()
