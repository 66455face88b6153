"""All benchmarks.

    python -m benchmarks
    python -m benchmarks --quick --json performance.json

Training speed for every model and batch size beside the machine's limit and the usual loops, what a
run and a sweep cost beyond training, the report's time and memory, augmentation, and the time to
the published accuracy: some 45 minutes on two cores, or more; `--quick` is a smaller form of a few
minutes. The JSON file is written anew after each piece: a run that is stopped keeps what it has
measured. `python -m benchmarks.picture` draws it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import accuracy, augment, overhead, report, throughput
from benchmarks.frame import Results, gather, save

PARTS = {
    "throughput": throughput,
    "overhead": overhead,
    "report": report,
    "augment": augment,
    "accuracy": accuracy,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table of each part, save them where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--quick", action="store_true", help="a smaller form, a few minutes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    for part in arguments.parts:
        if part not in PARTS:
            parser.error(f"{part}: no such part; there are: {', '.join(PARTS)}")
    results: dict[str, Results] = {}
    for part in dict.fromkeys(arguments.parts or PARTS):
        print(f"== {part}\n", flush=True)
        pieces = PARTS[part].measure(**PARTS[part].QUICK if arguments.quick else {})
        results[part] = gather(
            pieces, lambda found, part=part: save(arguments.json, "all", results | {part: found})
        )


if __name__ == "__main__":
    main()
