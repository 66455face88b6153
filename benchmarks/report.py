"""What a report of many runs costs: time and peak memory of the command, and how both grow.

    python -m benchmarks.report

The whole process `python -m fmbench.report`, over 100, 10,000 and 100,000 records that the record
module wrote, five seeds a row, in a temporary folder. Growth is by ten times as many records.
"""

import argparse
import itertools
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands import python
from benchmarks.timing import Results, Spread, listing, per_tenfold, save
from fmbench.records.record import COMPLETED, RESULT_NAME, Record

SIZES = (100, 10_000, 100_000)
SEEDS = 5

#: The process says itself what it held: what its parent knows of it has the parent's own memory in.
REPORT = """\
import runpy
from pathlib import Path
try:
    runpy.run_module("fmbench.report", run_name="__main__", alter_sys=True)
finally:
    status = Path("/proc/self/status")
    print(status.read_text() if status.exists() else "")
"""


def write_records(folder: Path, count: int) -> None:
    """Write records below a folder, each in a run folder of its own, as sweeps leave them."""
    template = _record().to_json()
    for number in range(count):
        row, seed = divmod(number, SEEDS)
        text = template.replace('"@seed"', str(seed)).replace('"@lr"', f"{1e-6 * (row + 1):g}")
        text = text.replace("@lr", f"{1e-6 * (row + 1):g}").replace("@row", f"{row:032x}")
        text = text.replace("@key", f"{number:032x}")
        text = text.replace('"@accuracy"', f"{0.9 - (row % 1000) * 1e-5 + seed * 1e-4:.4f}")
        run = folder / f"sweep_{number // 1000}" / str(number % 1000)
        run.mkdir(parents=True)
        (run / RESULT_NAME).write_text(text, encoding="utf-8")


def _record() -> Record:
    """A completed run of LeNet; what tells runs apart is a text with an @ in front."""
    target = {"_target_": "fmbench.models.lenet.LeNet", "in_channels": 1, "num_classes": 10}
    optimizer = {"_target_": "torch.optim.SGD", "lr": "@lr", "momentum": 0.9, "nesterov": True}
    groups = {"model": target, "optimizer": optimizer, "augmentation": {"flip": 0.5}}
    made = Record(
        key="@key",
        configuration="@row",
        config={"batch_size": 64, "epochs": 12, "seed": "@seed", **groups},
        choices={"model": "lenet", "optimizer": "sgd", "scheduler": "onecycle"},
        overrides=["model=lenet", "optimizer.lr=@lr", "augmentation=flip"],
        model="lenet",
        augmentation="flip",
        optimizer="sgd",
        scheduler="onecycle",
        data={"name": "fashion_mnist", "sha256": "0" * 64},
        split={"name": "standard", "train": 60000, "validation": 0, "test": 10000, "hash": "0"},
        batch_size=64,
        learning_rate="@lr",  # type: ignore[arg-type]
        epochs=12,
        seed="@seed",  # type: ignore[arg-type]
        started="2026-01-01T00:00:00Z",
        status=COMPLETED,
    )
    made.parameters, made.flops = 61_706, 833_040
    made.train_loss, made.test_loss, made.train_accuracy = 0.31, 0.28, 0.89
    made.test_accuracy = "@accuracy"  # type: ignore[assignment]
    made.seconds = {"train": 8.1, "evaluate": 0.4, "total": 9.2}
    made.images_per_second, made.peak_memory = 22_000.0, 512_000_000
    made.device = "a processor, 2 threads"
    made.fingerprint = {"device": "cpu", "threads": 2, "precision": "fp32", "torch": "2.15.0"}
    made.git = {"commit": "0" * 40, "dirty": False}
    return made


def report(folder: Path, output: Path) -> tuple[float, float | None]:
    """Seconds that a report takes, and the megabytes it held at most, where the system tells."""
    start = time.perf_counter()
    said = python("-c", REPORT, str(folder), "--output", str(output), folder=output)
    taken = time.perf_counter() - start
    found = re.search(r"^VmHWM:\s+(\d+) kB", said, re.MULTILINE)
    return taken, int(found[1]) * 1024 / 1e6 if found else None


def measure(sizes: Sequence[int] = SIZES, *, repeats: int = 3) -> Results:
    """Time and memory for each number of records, and how both grow from one to the next."""
    times: dict[int, list[float]] = {size: [] for size in sizes}
    memory: dict[int, list[float]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as temporary:
        for size in sizes:
            write_records(Path(temporary) / str(size), size)
        os.sync()  # else the report's own files wait for these to get to the disk
        for turn, size in itertools.product(range(repeats), sizes):
            output = Path(temporary) / f"report_{turn}_{size}"
            output.mkdir()
            taken, held = report(Path(temporary) / str(size), output)
            times[size].append(taken)
            memory[size] += [] if held is None else [held]
    results: Results = {}
    results |= {f"{size:,} records": Spread.of(times[size], "s") for size in sizes}
    results |= {
        f"{size:,} records, memory": Spread.of(memory[size], "MB") for size in sizes if memory[size]
    }
    for less, more in itertools.pairwise(sizes):
        for what, values in (("time", times), ("memory", memory)):
            if values[less]:
                pairs = zip(values[less], values[more], strict=True)
                factors = [per_tenfold((less, small), (more, large)) for small, large in pairs]
                name = f"{less:,} to {more:,} records: {what} by tenfold"
                results[name] = Spread.of(factors, "x")
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, save it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="ascending")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    results = measure(arguments.sizes, repeats=arguments.repeats)
    print(listing(results))
    save(arguments.json, "report", results)


if __name__ == "__main__":
    main()
