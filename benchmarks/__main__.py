"""All benchmarks, one table.

    python -m benchmarks
    python -m benchmarks --quick --json performance.json

Training speed for every net and batch size beside the machine's limit and the usual loops, what a
run and a sweep cost beyond training, the report's time and memory, augmentation, and the time to
the published accuracy. Says at the start about how long it takes on two cores; `--quick` is a
smaller form of a few minutes. The JSON file is written anew after each part: a run that is stopped
keeps what it has measured. `python -m benchmarks.picture` draws it.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import accuracy, augment, overhead, report, throughput
from benchmarks.timing import Results, listing, save
from fmbench.report.table.formats import duration
from fmbench.training.device import settings_kept


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        nets: for training speed.
        batch_sizes: for training speed.
        seconds: of each contender's turn, about.
        repeats: turns of training speed and overhead.
        jobs: of the sweeps, ascending.
        records: of the reports, ascending.
        images: augmented a turn.
        recipe: overrides of the run that is timed to the published accuracy.
        seeds: of that run.
        data: an option of the group `data`, for training speed.
        overrides: of its config.
    """

    nets: tuple[str, ...] = throughput.NETS
    batch_sizes: tuple[int, ...] = throughput.BATCH_SIZES
    seconds: float = throughput.SECONDS
    repeats: int = throughput.REPEATS
    jobs: tuple[int, ...] = overhead.JOBS
    records: tuple[int, ...] = report.SIZES
    images: int = 60_000
    recipe: tuple[str, ...] = accuracy.RECIPE
    seeds: tuple[int, ...] = accuracy.SEEDS
    data: str = "fashion_mnist"
    overrides: tuple[str, ...] = ()


FULL = Plan()
QUICK = Plan(
    nets=("lenet5", "lenet"),
    batch_sizes=(64, 256),
    seconds=0.5,
    repeats=2,
    jobs=(1, 10),
    records=(100, 10_000),
    images=6_000,
    seeds=(0,),
)

Say = Callable[[str], None]


def _throughput(plan: Plan, say: Say) -> Results:
    return throughput.measure(
        plan.nets,
        plan.batch_sizes,
        repeats=plan.repeats,
        seconds=plan.seconds,
        data=plan.data,
        overrides=plan.overrides,
        say=say,
    )


PARTS: dict[str, Callable[[Plan, Say], Results]] = {
    "throughput": _throughput,
    "overhead": lambda plan, _: overhead.measure(repeats=plan.repeats, jobs=plan.jobs),
    "report": lambda plan, _: report.measure(plan.records, repeats=min(3, plan.repeats)),
    "augment": lambda plan, _: augment.measure(
        images=plan.images, subset=plan.images // 10, repeats=plan.repeats
    ),
    "accuracy": lambda plan, _: accuracy.measure(plan.recipe, plan.seeds),
}


def about(plan: Plan, parts: Sequence[str]) -> float:
    """About how many seconds a plan takes on two cores, from what its pieces took on such."""
    pieces = {
        "throughput": throughput.about(
            len(plan.nets),
            len(plan.batch_sizes),
            repeats=plan.repeats,
            seconds=plan.seconds,
            contenders=6,
        ),
        "overhead": plan.repeats * (12 + sum(4 + 0.2 * jobs for jobs in plan.jobs)),
        "report": sum(plan.records) * 2e-4 * (1 + min(3, plan.repeats)),
        "augment": (1 + plan.repeats) * plan.images * 1.5e-4,
        "accuracy": 15 * len(plan.seeds),
    }
    return sum(pieces[part] for part in parts)


def measure(
    plan: Plan, parts: Sequence[str], *, keep: Path | None = None, say: Say = lambda _line: None
) -> dict[str, Results]:
    """The results of each part.

    Args:
        plan: how much is measured.
        parts: names of `PARTS`.
        keep: where to write them as JSON, anew after each part.
        say: told what is being done.
    """
    results: dict[str, Results] = {}
    for part in parts:
        say(f"== {part}")
        with settings_kept():
            results[part] = PARTS[part](plan, say)
        save(keep, "all", results)
    return results


def main(argv: Sequence[str] | None = None, *, full: Plan = FULL, quick: Plan = QUICK) -> None:
    """Measure, print one table, save it where asked.

    Args:
        argv: the arguments; those of the command line by default.
        full: what is measured without `--quick`.
        quick: what is measured with it.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--quick", action="store_true", help="a smaller form, a few minutes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    parts = list(dict.fromkeys(arguments.parts)) or list(PARTS)
    for part in parts:
        if part not in PARTS:
            parser.error(f"{part}: no such part; there are: {', '.join(PARTS)}")
    plan = quick if arguments.quick else full

    print(f"This takes about {duration(about(plan, parts))} on two cores.", flush=True)
    results = measure(
        plan, parts, keep=arguments.json, say=lambda line: print(f"{line}\n", flush=True)
    )
    print(
        listing(
            {f"{part}: {name}": value for part in parts for name, value in results[part].items()}
        )
    )


if __name__ == "__main__":
    main()
