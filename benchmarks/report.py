"""What a report of many runs costs: time and peak memory of the command, and how both grow.

    python -m benchmarks.report
    python -m benchmarks.report --page

The whole process `python -m fmbench.report`, and the seconds of `fmbench status`, over 100, 10,000
and 100,000 records, those of a tiny run with other seeds and learning rates, five seeds a row, in a
temporary folder. The runs of the first 500 rows have the files that a run on 10,000 test images
leaves: predictions, labels, probabilities, mistakes and a history. Growth is by ten times as many
records. With `--page` also the size of benchmark.html, and how long a headless Chromium on PATH
takes to open, sort and filter it, until what that changes is drawn.
"""

import itertools
import json
import math
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import fmbench
from benchmarks.frame import CHECKOUT, Results, Spread, main, python
from benchmarks.overhead import TINY

SEEDS = 5

#: Files of a run that others may share.
SHARED = ("labels.npy", "probabilities.npy", "mistakes.npy", "history.jsonl")

#: The process prints its own peak memory, and that of the one beside it: the parent's figure would
#: include the parent's memory.
REPORT = """\
import resource, runpy
from pathlib import Path
try:
    runpy.run_module("fmbench.report", run_name="__main__", alter_sys=True)
finally:
    status = Path("/proc/self/status")
    print(status.read_text() if status.exists() else "")
    print(f"VmHWM: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss} kB")
"""

#: Milliseconds until what an action changes is on the screen.
TIMED = """(async () => {{
    const start = performance.now();
    {action};
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - start;
}})()"""
ACTIONS = {
    "sort": "[...document.querySelectorAll('.rows thead [role=button]')].at(-1).click()",
    "filter": (
        "const box = document.querySelector('input[type=search]');"
        "box.value = box.value ? '' : 'lenet batch_size=64';"
        "box.dispatchEvent(new Event('input'));"
        "await new Promise((done) => setTimeout(done, 150))"  # the page waits for the next letter
    ),
}


#: Rows whose runs have files, and test images of these.
WITH_FILES, IMAGES = 500, 10_000


def write_files(made: Path, run: Path, accuracy: float, seed: int) -> None:
    """Give a run files of so many right answers; those that all runs may share are linked."""
    labels = np.arange(IMAGES, dtype=np.uint8) % 10
    wrong = np.random.default_rng(seed).permutation(IMAGES)[: round((1 - accuracy) * IMAGES)]
    predicted = labels.copy()
    predicted[wrong] = (labels[wrong] + 1) % 10
    np.save(run / "predictions.npy", predicted)
    for name in SHARED:
        os.link(made / name, run / name)


def shared_files(made: Path) -> None:
    """The files of a run that do not differ from run to run."""
    labels = np.arange(IMAGES, dtype=np.uint8) % 10
    np.save(made / "labels.npy", labels)
    shares = np.full((IMAGES, 10), 0.01, np.float32)
    shares[np.arange(IMAGES), labels] = 0.91
    np.save(made / "probabilities.npy", shares)


def write_records(folder: Path, count: int) -> None:
    """Write records below a folder, each in a run folder of its own, as sweeps leave them."""
    made = folder.with_suffix(".made")
    fmbench.run([*TINY, f"hydra.run.dir={made}"])
    record = json.loads((made / "result.json").read_bytes())
    record["split"]["test"] = IMAGES
    shared_files(made)
    for number in range(count):
        row, seed = divmod(number, SEEDS)
        rate = 1e-6 * (row + 1)
        record |= {"key": f"{number:032x}", "configuration": f"{row:032x}", "seed": seed}
        record |= {"learning_rate": rate, "overrides": ["model=lenet5", f"optimizer.lr={rate:g}"]}
        record["test_accuracy"] = 0.9 - (row % 1000) * 1e-5 + seed * 1e-4
        record["config"]["seed"], record["config"]["optimizer"]["lr"] = seed, rate
        run = folder / f"sweep_{number // 1000}" / str(number % 1000)
        run.mkdir(parents=True)
        (run / "result.json").write_text(json.dumps(record), "utf-8")
        if row < WITH_FILES:
            write_files(made, run, record["test_accuracy"], number)


def report(folder: Path, output: Path) -> tuple[float, float]:
    """Seconds that a report takes, and the megabytes it held at most, where the system tells.

    Those of both its processes, where it has two.
    """
    output.mkdir(exist_ok=True)
    said, taken = python("-c", REPORT, str(folder), "--output", str(output), folder=output)
    found = [int(size) for size in re.findall(r"^VmHWM:\s+(\d+) kB", said, re.MULTILINE)]
    return taken, sum(found) * 1024 / 1e6 if len(found) == 2 else math.nan  # the system tells


def status(folder: Path, output: Path) -> float:
    """Seconds that `fmbench status` takes to say how far each run is."""
    said, taken = python("-m", "fmbench", "status", str(folder), folder=output)
    assert said.count(" completed ") >= len(list(folder.glob("*/*")))
    return taken


def measure(
    *, sizes: Sequence[int] = (100, 10_000, 100_000), repeats: int = 3, page: bool = False
) -> Iterator[Results]:
    """Time and memory for each number of records, ascending, and how both grow to the next."""
    found: dict[int, dict[str, list[float]]] = {size: defaultdict(list) for size in sizes}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {size: Path(temporary) / str(size) for size in sizes}
        for size, folder in folders.items():
            write_records(folder, size)
        os.sync()  # else the report's own files wait for these to get to the disk
        for _, (size, folder) in itertools.product(range(repeats), folders.items()):
            output = folder.with_suffix(".report")
            values = (*report(folder, output), status(folder, output))
            for unit, value in zip(("s", "MB", "s of status"), values, strict=True):
                found[size][unit].append(value)
        results: Results = {
            f"{size:,} records: {unit}": Spread.of(values, unit)
            for size in sizes
            for unit, values in found[size].items()
        }
        for (less, more), unit in itertools.product(itertools.pairwise(sizes), ("s", "MB")):
            pairs = zip(found[less][unit], found[more][unit], strict=True)
            factors = [(large / small) ** (1 / math.log10(more / less)) for small, large in pairs]
            results[f"{less:,} to {more:,} records: {unit} by tenfold"] = Spread.of(factors, "x")
        yield results
        for size, folder in folders.items() if page else ():
            values = used(folder.with_suffix(".report") / "benchmark.html")
            yield {f"page of {size:,} records: {what}": Spread.of([one]) for what, one in values}


def used(path: Path) -> Iterator[tuple[str, float]]:
    """The size of a page; where there is Chromium, what it takes to open, sort and filter it."""
    sys.path.insert(0, str(CHECKOUT / "tests"))
    from browser import browser, found

    yield "MiB", path.stat().st_size / 2**20
    if found() is None:
        return
    with browser(path.parent / "browser") as chromium:
        tab = chromium.page()
        start = time.perf_counter()
        tab.open(path)
        yield "open (ms)", 1000 * (time.perf_counter() - start)
        for name, action in ACTIONS.items():
            tab.run(TIMED.format(action=action))  # the first time is slower
            yield f"{name} (ms)", tab.run(TIMED.format(action=action))


if __name__ == "__main__":
    main(measure)
