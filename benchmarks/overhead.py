"""What a run costs beyond its training: starting, reading the images, the jobs of a sweep.

    python -m benchmarks.overhead

Whole processes, as a user starts them, each several times; medians and quartiles.

- start-up: `--help` and `--cfg job`, and a tiny run from its start to its end;
- images: all 70,000, found, verified and ready, in a fresh process and again in the same one;
- a job of a sweep: what a sweep of 21 tiny runs takes longer than one of 1, a twentieth of it, less
  the training and evaluation that their records tell of;
- two at once: a sweep of 8 LeNets of 2 epochs one after the other, over the same by two processes;
  once, with `--two-at-once`, since it takes minutes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fmbench
from benchmarks.timing import Spread, number, save, table

TINY = [
    "data=synthetic", "data.train_size=200", "data.test_size=50", "model=lenet5", "epochs=1",
    "threads=1",
]  # fmt: skip
LENETS = ["-m", "model=lenet", "epochs=2", "seed=range(8)"]
BY_TWO = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def seconds(*arguments: str) -> float:
    """How long `python -m fmbench ARGUMENTS` takes in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return timed(*arguments, folder=Path(folder))


def timed(*arguments: str, folder: Path) -> float:
    """How long `python -m fmbench ARGUMENTS` takes in a folder."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "fmbench", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - start


def job_overhead() -> float:
    """Seconds that a job of a sweep takes beside training and evaluating."""
    taken, inside = [], []
    for jobs in (1, 21):
        with tempfile.TemporaryDirectory() as folder:
            taken.append(timed("-m", *TINY, f"seed=range({jobs})", folder=Path(folder)))
            frame = fmbench.load_results(Path(folder) / "multirun")
        inside.append(float(frame["seconds_train"].sum() + frame["seconds_evaluate"].sum()))
    return ((taken[1] - inside[1]) - (taken[0] - inside[0])) / 20


def read_images(again: bool) -> float:
    """Seconds to have all images verified and ready, in a process of its own."""
    code = (
        "import time\n"
        "from omegaconf import OmegaConf\n"
        "from fmbench import config, data\n"
        "config.register()\n"
        "chosen = OmegaConf.load(config.CONFIG_DIR / 'data' / 'fashion_mnist.yaml')\n"
        "chosen = OmegaConf.to_container(chosen, resolve=True)\n"
        f"for _ in range({1 + again}):\n"
        "    start = time.perf_counter()\n"
        "    data.load(chosen)\n"
        "print(time.perf_counter() - start)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout)


def two_at_once() -> float:
    """How many times as fast eight LeNets are by two processes."""
    return seconds(*LENETS) / seconds(*LENETS, *BY_TWO)


def main() -> None:
    """Measure, print a table, save it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--two-at-once", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    results: dict[str, Any] = {}
    questions: dict[str, Callable[[], float]] = {
        "--help": lambda: seconds("--help"),
        "--cfg job": lambda: seconds("--cfg", "job"),
        "a tiny run, start to end": lambda: seconds(*TINY),
        "70,000 images, first time": lambda: read_images(again=False),
        "70,000 images, next job": lambda: read_images(again=True),
        "a sweep's job beside its training": job_overhead,
    }
    if arguments.two_at_once:
        results["8 LeNets, two at once"] = Spread.of([two_at_once()])
        print(f"8 LeNets, two at once: {number(results['8 LeNets, two at once'].median)} x")
    values: dict[str, list[float]] = {name: [] for name in questions}
    for _ in range(arguments.repeats):
        for name, ask in questions.items():
            values[name].append(ask())
    rows = []
    for name in questions:
        spread = results[name] = Spread.of(values[name])
        quartiles = f"{number(spread.low)} - {number(spread.high)} s"
        rows.append([name, f"{number(spread.median)} s", quartiles])
    print(table(["what", "median", "quartiles"], rows))
    save(arguments.json, "overhead", results)


if __name__ == "__main__":
    main()
