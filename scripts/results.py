"""Our own results: keeps the records of runs, and writes the pages that show them.

    python scripts/results.py                              # docs/results.md, README.md, pictures
    python scripts/results.py --check                      # status 1 where a page is not up to date
    python scripts/results.py keep lenet multirun/FOLDER   # runs into docs/results/lenet

What is kept of a run is its record, its epochs and its answers; no images, weights or configs of
Hydra's. Of runs that were made with uncommitted changes nothing is.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "scripts")]

from results_page import KEPT, PICTURES, page, pictures, short_form, with_short_form  # noqa: E402

from fmbench import report  # noqa: E402
from fmbench.report.figure import Figure  # noqa: E402

PAGE, README = CHECKOUT / "docs" / "results.md", CHECKOUT / "README.md"

FILES = ("result.json", "history.jsonl", "predictions.npy", "labels.npy", "search.json")
ENDED = ("completed", "pruned", "diverged", "failed")


def main(argv: list[str] | None = None) -> None:
    """Write, check or keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    commands = parser.add_subparsers(dest="command")
    kept = commands.add_parser("keep", help="copy what is kept of some runs")
    kept.add_argument("name", help="the folder in docs/results")
    kept.add_argument("folder", type=Path, help="a run, a sweep or a search")
    arguments = parser.parse_args(argv)
    if arguments.command == "keep":
        count = keep(arguments.folder, KEPT / arguments.name)
        sys.stdout.write(f"kept {count} runs in {KEPT / arguments.name}\n")
        return
    made = report.build([KEPT])
    drawn = pictures(made)
    pages = texts(made, drawn)
    if arguments.check:
        old = [
            path.name for path, text in pages.items() if not path.exists() or _read(path) != text
        ]
        sys.stdout.write("".join(f"{name} is not up to date\n" for name in old))
        sys.exit(bool(old))
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir(parents=True)
    for name, figure in drawn.items():
        (PICTURES / f"{name}.png").write_bytes(figure.png)


def texts(made: report.Report, drawn: Mapping[str, Figure]) -> dict[Path, str]:
    """What the pages should say, by their paths."""
    short = short_form(made, drawn)
    return {PAGE: page(made, drawn), README: with_short_form(_read(README), short)}


def _read(path: Path) -> str:
    return path.read_text("utf-8")


def keep(folder: Path, place: Path) -> int:
    """Copy what is kept of the runs of a folder, each into a folder of the same name.

    Args:
        folder: A run, a sweep or a search.
        place: Where to; what is there is replaced.

    Returns:
        How many runs there are.

    Raises:
        SystemExit: A run has not ended, or was made with uncommitted changes.
    """
    records = sorted(folder.rglob("result.json"))
    for path in records:
        record = json.loads(path.read_bytes())
        if record["status"] not in ENDED:
            sys.exit(f"{path}: {record['status']}: only runs that ended are kept")
        if not record["git"] or record["git"]["dirty"]:
            sys.exit(f"{path}: made with uncommitted changes, or outside a repository")
    if not records:
        sys.exit(f"{folder}: no runs")
    shutil.rmtree(place, ignore_errors=True)
    for name in FILES:
        for path in sorted(folder.rglob(name)):
            target = place / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return len(records)


if __name__ == "__main__":
    main()
