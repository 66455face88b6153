"""All benchmarks.

    python -m benchmarks
    python -m benchmarks --quick --json performance.json

Training speed for every model and batch size beside the machine's limit and the usual loops, what a
run and a sweep cost beyond training, the report's time and memory, augmentation, and the time to
the published accuracy: some 45 minutes on two cores, or more; `--quick` is a smaller form of a few
minutes. The JSON file is written anew after each piece: a run that is stopped keeps what it has
measured. `python -m benchmarks.picture` draws it.
"""

from collections.abc import Iterator, Sequence

from benchmarks import accuracy, augment, overhead, report, throughput
from benchmarks.frame import Results, main

PARTS = {
    "throughput": throughput,
    "overhead": overhead,
    "report": report,
    "augment": augment,
    "accuracy": accuracy,
}


def measure(parts: Sequence[str] = tuple(PARTS), *, quick: bool = False) -> Iterator[Results]:
    """The results of each part."""
    for part in parts:
        if part not in PARTS:
            raise SystemExit(f"{part}: no such part; there are: {', '.join(PARTS)}")
        yield from PARTS[part].measure(**PARTS[part].QUICK if quick else {})


if __name__ == "__main__":
    main(measure)
