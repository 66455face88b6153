"""How many threads train fastest, on a machine with nothing else to do and beside other programs.

    python -m benchmarks.threads

Images per second of training steps of LeNet-5 out of fmbench's own loader: with one thread, with
all, and with the number that a run chooses which was not told `threads=`. It chooses anew in every
turn, outside the clock, as a run does before its first step. Quiet, and beside as many processes
that do nothing but count as there are cores, or as `--busy` says; what the machine does besides is
not known here.

    python -m benchmarks.threads --ways

The same of whole runs, of images the program draws, by each way in: the command, `fmbench.run`, and
two workers of a sweep, which take their share. Told nothing, and told what should be best: one
thread beside other programs, all on a quiet machine; by the training clocks of the runs, of two at
once together.
"""

import contextlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

import fmbench
from benchmarks.frame import Results, Spread, Timed, interleaved, main, python, ratio
from benchmarks.throughput import Setup
from fmbench.core import machine
from fmbench.training.trainer import Trainer


@contextlib.contextmanager
def others_at_work(count: int) -> Iterator[None]:
    """So many processes that only count, meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(
    *,
    model: str = "lenet5",
    batch_sizes: Sequence[int] = (8, 64, 256),
    busy: Sequence[int] = (0, machine.threads()),
    repeats: int = 5,
    seconds: float = 0.7,
    overrides: Sequence[str] = (),
    ways: bool = False,
) -> Iterator[Results]:
    """The speeds, named "SITUATION, batch SIZE: CONTENDER"; with `ways` those of whole runs."""
    for batch_size, count in itertools.product(batch_sizes, busy):
        where = f"{f'{count} busy' if count else 'quiet'}, batch {batch_size}"
        if ways:
            images = max(IMAGES, STEPS * batch_size)
            run = (f"model={model}", f"batch_size={batch_size}", f"data.train_size={images}")
            for name, way in WAYS.items():
                with others_at_work(count):
                    best = 1 if count else machine.threads()
                    found = whole_runs(way, (*run, *overrides), best, repeats)
                yield {f"{where}, {name}: {key}": value for key, value in found.items()}
            continue
        setup = Setup(f"model={model}", f"batch_size={batch_size}", *overrides)
        with others_at_work(count):
            found = situation(setup, repeats, seconds)
        yield {f"{where}: {name}": value for name, value in found.items()}


def situation(setup: Setup, repeats: int, seconds: float) -> Results:
    """The speeds of one model at one batch size."""
    threads: list[int] = []
    trials: list[float] = []

    def train(number: int) -> Timed:
        torch.set_num_threads(number)
        return train_for(setup.trainer, seconds)

    def choose() -> int:
        start = time.perf_counter()
        threads.append(setup.trainer.faster_threads(setup.flops))
        trials.append(time.perf_counter() - start)
        return threads[-1]

    works = {
        "one thread": lambda: train(1),
        "all threads": lambda: train(setup.device.threads),
        "chosen": lambda: train(choose()),
    }
    rates = interleaved(works, repeats)
    return {
        **{name: Spread.of(values, "images/s") for name, values in rates.items()},
        "chosen over one": ratio(rates["chosen"], rates["one thread"]),
        "chosen over all": ratio(rates["chosen"], rates["all threads"]),
        "seconds to choose": Spread.of(trials, "s"),
        "threads": " ".join(map(str, threads[1:])),
    }


#: Steps of a run, and its least images: it chooses, and trains for some seconds.
STEPS, IMAGES = 60, 3_000


def by_command(run: Sequence[str], folder: Path) -> None:
    """A run of `python -m fmbench`."""
    python("-m", "fmbench", *run, f"hydra.run.dir={folder}/0", folder=folder)


def by_call(run: Sequence[str], folder: Path) -> None:
    """A run in this process."""
    fmbench.run([*run, f"hydra.run.dir={folder}/0"])


def by_workers(run: Sequence[str], folder: Path) -> None:
    """Two runs at once."""
    two = ("seed=0,1", "sweep.jobs=2", f"hydra.sweep.dir={folder}")
    python("-m", "fmbench", "-m", *run, *two, folder=folder)


WAYS: dict[str, Callable[[Sequence[str], Path], None]] = {
    "command": by_command, "fmbench.run": by_call, "two workers": by_workers,
}  # fmt: skip


def whole_runs(
    way: Callable[[Sequence[str], Path], None], run: Sequence[str], best: int, repeats: int
) -> Results:
    """The speeds of runs that are started in one way, told nothing or what should be best."""
    used: list[str] = []  # by runs at once
    usual = ("data=synthetic", "data.test_size=100", "epochs=1")

    def train(*threads: str) -> Timed:
        with tempfile.TemporaryDirectory() as folder:
            way([*usual, *run, *threads], Path(folder))
            records = fmbench.load_results(folder)
        if not threads:
            used.append("+".join(map(str, records["threads"])))
        return Timed(float(records["images_per_second"].sum()), 1.0)

    told = f"threads={best}"
    rates = interleaved({told: lambda: train(told), "chosen": train}, repeats)
    return {
        **{name: Spread.of(values, "images/s") for name, values in rates.items()},
        "chosen over told": ratio(rates["chosen"], rates[told]),
        "threads": " ".join(used[1:]),
    }


def train_for(trainer: Trainer, seconds: float) -> Timed:
    """Train on whole batches for about so long, after two that are not timed."""
    batches = itertools.chain.from_iterable(map(trainer.loader.epoch, itertools.count()))
    images = 0
    trainer.model.train()
    trainer.step.begin_epoch()
    for number, batch in enumerate(batches):
        if number == 2:
            trainer.device.synchronize()
            start = time.perf_counter()
        trainer.step(*batch)
        trainer.schedule.after_batch()
        if number >= 2:
            images += len(batch[1])
            if time.perf_counter() >= start + seconds:
                break
    trainer.device.synchronize()
    return Timed(images, time.perf_counter() - start)


if __name__ == "__main__":
    main(measure)
