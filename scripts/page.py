"""How large benchmark.html is, and how long it takes to make, to open, to sort and to filter.

    python scripts/page.py
    python scripts/page.py --records 100000

Records of five seeds a row, in a temporary folder. Opening, sorting and filtering are timed in a
headless Chromium on PATH, until what they change is drawn; without one they are left out.
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests")]

from browser import browser, found  # noqa: E402

from benchmarks.report import write_records  # noqa: E402
from fmbench import report  # noqa: E402
from fmbench.report.render import html  # noqa: E402

TIMES = 5

#: Milliseconds until what an action changes is on the screen.
TIMED = """(async () => {{
    const start = performance.now();
    {action};
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - start;
}})()"""

SORT = (
    "[...document.querySelectorAll('.rows thead [role=button]')]"
    ".find((one) => one.textContent.startsWith('{heading}')).click()"
)
ACTIONS = {
    "sort by accuracy": SORT.format(heading="test accuracy"),
    "sort by net": SORT.format(heading="net"),
    "filter": (
        "const box = document.querySelector('input[type=search]');"
        "box.value = box.value ? '' : 'lenet batch_size=128';"
        "box.dispatchEvent(new Event('input'));"
        "await new Promise((done) => setTimeout(done, 150))"  # the page waits for the next letter
    ),
    "show 200 more": "document.querySelector('.further button').click()",
}


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000])
    for count in parser.parse_args().records:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), count)


def measure(folder: Path, count: int) -> None:
    """Make a page of so many records, open it, use it."""
    write_records(folder / "multirun", count)
    made = report.build([folder])
    seconds = []
    for _ in range(TIMES):
        start = time.perf_counter()
        text = html.page(replace(made, base=folder))
        seconds.append(time.perf_counter() - start)
    path = folder / "benchmark.html"
    path.write_text(text, "utf-8")
    print(f"{count:,} records, {len(made.table):,} rows: {path.stat().st_size / 2**20:.1f} MiB")
    print(f"  made in {statistics.median(seconds):.2f} s (median of {TIMES})")
    if found() is None:
        return
    with browser(folder / "browser") as chromium:
        tab = chromium.page()
        start = time.perf_counter()
        tab.open(path)
        print(f"  opened in {time.perf_counter() - start:.2f} s")
        for name, action in ACTIONS.items():
            tab.open(path)
            taken = [tab.run(TIMED.format(action=action)) for _ in range(TIMES)]
            print(f"  {name}: {statistics.median(taken):.0f} ms")


if __name__ == "__main__":
    main()
