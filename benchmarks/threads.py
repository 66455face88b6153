"""How many threads train fastest, on a machine with nothing else to do and beside other programs.

    python -m benchmarks.threads

Images per second of training steps of LeNet-5 out of fmbench's own loader: with one thread, with
all, and with the number that a run chooses which was not told `threads=`. It chooses anew in every
turn, outside the clock, as a run does before its first step. Quiet, and beside as many processes
that do nothing but count as there are cores; what the machine does besides is not known here.
"""

import argparse
import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.contest import compose
from benchmarks.timing import Results, Spread, Timed, interleaved, number, ratio, save, table
from fmbench.runs import assembly
from fmbench.training.cost import count_flops
from fmbench.training.device import settings_kept
from fmbench.training.trainer import Trainer, train_epoch

BATCH_SIZES = (8, 64, 256)
REPEATS, SECONDS = 5, 0.7

ONE, ALL, CHOSEN, TRIAL = "one thread", "all threads", "chosen", "seconds to choose"
OVER = {ONE: "chosen over one", ALL: "chosen over all"}


class Training:
    """One net at one batch size.

    Attributes:
        trials: seconds that each choice took.
        chosen: the numbers of threads.
    """

    def __init__(self, config: dict[str, Any], seconds: float) -> None:
        inputs = assembly.prepare(config)
        torch.manual_seed(0)
        model = assembly.make_model(config).train()
        self.flops = count_flops(model)
        device = inputs.device
        self.trainer: Trainer = assembly.make_trainer(config, inputs, model, device, self.flops)
        self.most = device.threads
        self.seconds = seconds
        self.trials: list[float] = []
        self.chosen: list[int] = []

    def contenders(self) -> dict[str, Callable[[], Timed]]:
        """By name; each trains for a while and says on how many images."""
        return {
            ONE: lambda: self._train(1),
            ALL: lambda: self._train(self.most),
            CHOSEN: lambda: self._train(self._choose()),
        }

    def _choose(self) -> int:
        start = time.perf_counter()
        self.chosen.append(self.trainer.faster_threads(self.flops))
        self.trials.append(time.perf_counter() - start)
        return self.chosen[-1]

    def _train(self, threads: int) -> Timed:
        torch.set_num_threads(threads)
        trainer, images = self.trainer, 0
        batches = itertools.chain.from_iterable(map(trainer.loader.epoch, itertools.count()))
        train_epoch(  # makes what is made once, and leaves the turn before behind
            *(trainer.model, itertools.islice(batches, 2), trainer.step, trainer.schedule),
            report=lambda *_sums: None,
        )
        start = time.perf_counter()

        def until() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            nonlocal images
            for batch in batches:
                yield batch
                images += len(batch[1])
                if time.perf_counter() - start >= self.seconds:
                    return

        train_epoch(
            *(trainer.model, until(), trainer.step, trainer.schedule), report=lambda *_sums: None
        )
        return Timed(images, time.perf_counter() - start)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that only count, meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(
    net: str = "lenet5",
    batch_sizes: Sequence[int] = BATCH_SIZES,
    *,
    others: Sequence[int] | None = None,
    repeats: int = REPEATS,
    seconds: float = SECONDS,
    data: str = "fashion_mnist",
    overrides: Sequence[str] = (),
    say: Callable[[str], None] = lambda _line: None,
) -> Results:
    """The speeds, named "SITUATION, batch SIZE: CONTENDER".

    Args:
        net: an option of the group `model`.
        batch_sizes: images a step.
        others: how many busy processes there are beside it, one situation each; by default none,
            and as many as this process may use cores.
        repeats: turns.
        seconds: of each contender's turn.
        data: an option of the group `data`.
        overrides: of the config beside these.
        say: told each line as soon as it is measured.
    """
    results: Results = {}
    for batch_size in batch_sizes:
        with settings_kept():
            training = Training(compose(net, batch_size, data, overrides), seconds)
            for count in (0, training.most) if others is None else others:
                with busy(count):
                    training.trials.clear()
                    training.chosen.clear()
                    rates = interleaved(training.contenders(), repeats)
                where = f"{f'{count} busy' if count else 'quiet'}, batch {batch_size}"
                found: Results = {name: Spread.of(rate, "images/s") for name, rate in rates.items()}
                found |= {name: ratio(rates[CHOSEN], rates[other]) for other, name in OVER.items()}
                found[TRIAL] = Spread.of(training.trials, "s")
                found["threads"] = " ".join(map(str, training.chosen[1:]))
                results |= {f"{where}: {name}": value for name, value in found.items()}
                say(rows({f"{where}: {name}": value for name, value in found.items()}))
    return results


def rows(results: Results) -> str:
    """The results as a table with a line for each situation."""
    lines: dict[str, list[str]] = {}
    for name, value in results.items():
        where, _, _ = name.partition(": ")
        if isinstance(value, str):
            shown = value
        elif value.unit == "images/s":
            shown = f"{number(value.median)} ({number(value.low)}-{number(value.high)})"
        else:
            shown = number(value.median)
        lines.setdefault(where, []).append(shown)
    headings = ["images/s", ONE, ALL, CHOSEN, *OVER.values(), TRIAL, "threads"]
    return table(headings, [[where, *cells] for where, cells in lines.items()])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, save it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", default="lenet5")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=BATCH_SIZES)
    parser.add_argument("--busy", nargs="+", type=int, help="processes beside it, as 0 2")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each turn")
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    results = measure(
        arguments.net,
        arguments.batch_sizes,
        others=arguments.busy,
        repeats=arguments.repeats,
        seconds=arguments.seconds,
        data=arguments.data,
        say=lambda lines: print(f"{lines}\n", flush=True),
    )
    print(rows(results))
    save(arguments.json, "threads", results)


if __name__ == "__main__":
    main()
