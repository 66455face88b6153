"""Training speed: the machine's limit, fmbench, and the loops that people write instead.

    python -m benchmarks.throughput

Images per second, for every net and batch size, of

- limit: the bare step (forward, loss, backward, optimizer) on one batch that already lies on the
  device, in whichever memory format and precision is fastest (on a GPU also as a CUDA graph); and
  in those that fmbench takes ("same precision");
- fmbench: whole epochs through the product's own path, with crop and flip;
- usual: the loop of older projects: torchvision's data set, a PIL transform for each image, a
  DataLoader with 0 and with 2 workers, float32;
- lightning: the same net and DataLoader in a Lightning Trainer, where lightning is installed.

All on the real images. Each takes as many of them a turn as last about `--seconds`, one batch at
least; starting the workers of a DataLoader is not counted. On a GPU whose bf16 peak is known, one
more column has fmbench's share of it: three times the FLOPs of the way forward (a multiply-add as
two, as data sheets count), times images per second, over the chip's dense peak.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.contest import Contest, option_of_data
from benchmarks.peak import share_of_peak
from benchmarks.timing import Results, Spread, interleaved, number, ratio, save, table

NETS = ("lenet5", "lenet", "resnet18", "preact_resnet20", "densenet")
BATCH_SIZES = (8, 64, 256, 512)
REPEATS, SECONDS, BUDGET = 5, 2.0, 180.0

OVER, RUNS_IN, SHARE = "over ", "limit runs in", "share of bf16 peak"


def measure(
    nets: Sequence[str] = NETS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    *,
    repeats: int = REPEATS,
    seconds: float = SECONDS,
    budget: float = BUDGET,
    others: bool = True,
    data: str = "fashion_mnist",
    overrides: Sequence[str] = (),
    say: Callable[[str], None] = lambda _line: None,
    keep: Callable[[Results], None] = lambda _results: None,
) -> Results:
    """The speed of every contender, named "NET, batch SIZE: CONTENDER".

    Args:
        nets: options of the group `model`.
        batch_sizes: images a step.
        repeats: turns.
        seconds: of each contender's turn, about; one batch at least.
        budget: seconds after which a net at one batch size gets no more turns than three.
        others: whether others than the limit and fmbench compete.
        data: an option of the group `data`.
        overrides: of the config beside these.
        say: told each net's table as soon as it is measured.
        keep: given all that was measured so far, as often.
    """
    results: Results = {}
    for net, batch_size in itertools.product(nets, batch_sizes):
        contest = Contest(net, batch_size, data=data, seconds=seconds, overrides=overrides)
        contenders = contest.contenders(others=others)
        wait = contest.device.synchronize
        rates = contest.with_limit(interleaved(contenders, repeats, wait=wait, budget=budget))
        found: Results = {name: Spread.of(values, "images/s") for name, values in rates.items()}
        ours = rates["fmbench"]
        found |= {f"{OVER}{name}": ratio(ours, rates[name]) for name in rates if name != "fmbench"}
        shares = [share_of_peak(contest.flops, rate, contest.device.name) for rate in ours]
        if None not in shares:
            found[SHARE] = Spread.of([share for share in shares if share is not None])
        found[RUNS_IN] = contest.chosen
        where = f"{net}, batch {batch_size}"
        results |= {f"{where}: {name}": value for name, value in found.items()}
        keep(results)
        say(rows({f"{where}: {name}": value for name, value in found.items()}))
    return results


def about(nets: int, batch_sizes: int, *, repeats: int, seconds: float, contenders: int) -> float:
    """About how many seconds `measure` takes, nets of a second and more a batch left aside.

    Finding the fastest variant takes some 4 seconds, and the usual loops are slower than the limit
    by which the images of a turn are counted.
    """
    return nets * batch_sizes * (4 + 1.5 * contenders * (repeats + 1) * seconds)


def rows(results: Results) -> str:
    """The results as a table with a line for each net and batch size."""
    lines: dict[str, dict[str, str]] = {}
    for name, value in results.items():
        where, _, what = name.partition(": ")
        if isinstance(value, str):
            cell = value
        elif what.startswith(OVER):
            cell = f"{value.median:.2f} ({value.low:.2f}-{value.high:.2f})"
        elif what == SHARE:
            cell = f"{100 * value.median:.3g} %"
        else:
            cell = number(value.median)
        lines.setdefault(where, {})[what] = cell
    headings = list(dict.fromkeys(what for cells in lines.values() for what in cells))
    return table(
        ["images/s", *headings],
        [[where, *(cells.get(what, "") for what in headings)] for where, cells in lines.items()],
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, save it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=BATCH_SIZES)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each turn, about")
    parser.add_argument(
        "--budget", type=float, default=BUDGET, help="seconds for a net at one batch size, about"
    )
    parser.add_argument("--no-usual", action="store_true", help="only the limit and fmbench")
    parser.add_argument(
        "--data", type=option_of_data, default="fashion_mnist", help="an option, or a folder"
    )
    parser.add_argument("--overrides", nargs="+", default=(), help="of the config, e.g. threads=1")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)

    results = measure(
        arguments.nets,
        arguments.batch_sizes,
        repeats=arguments.repeats,
        seconds=arguments.seconds,
        budget=arguments.budget,
        others=not arguments.no_usual,
        data=arguments.data,
        overrides=arguments.overrides,
        say=lambda lines: print(f"{lines}\n", flush=True),
        keep=lambda so_far: save(arguments.json, "throughput", so_far),
    )
    print(rows(results))


if __name__ == "__main__":
    main()
