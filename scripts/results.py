"""Our own results: keeps the records of runs, and writes the pages that show them.

    python scripts/results.py                              # docs/results.md, README.md, pictures
    python scripts/results.py --check                      # status 1 where a page is not up to date
    python scripts/results.py keep lenet multirun/FOLDER   # runs into docs/results/lenet

What is kept of a run is its record, its epochs and its answers; no images, weights or configs of
Hydra's. Of runs on other images, or made with uncommitted changes, nothing is.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "scripts")]

from results_page import Pages, with_short_form  # noqa: E402

DOCS, README = CHECKOUT / "docs", CHECKOUT / "README.md"
PAGE, PICTURES, KEPT = DOCS / "results.md", DOCS / "images" / "results", DOCS / "results"

FILES = ("result.json", "history.jsonl", "predictions.npy", "labels.npy", "search.json")
ENDED = ("completed", "pruned", "diverged", "failed")


def main(argv: list[str] | None = None) -> None:
    """Write, check or keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    kept = parser.add_subparsers(dest="command").add_parser(
        "keep", help="copy what is kept of some runs"
    )
    kept.add_argument("name", help="of the folder in docs/results")
    kept.add_argument("folder", type=Path, help="a run, a sweep or a search")
    arguments = parser.parse_args(argv)
    if arguments.command == "keep":
        if not re.fullmatch(r"\w+", arguments.name):
            parser.error(f"{arguments.name}: letters, digits and _ alone make a name")
        count = keep(arguments.folder, KEPT / arguments.name)
        sys.stdout.write(f"kept {count} runs in docs/results/{arguments.name}\n")
        return
    pages = Pages(KEPT)
    said = texts(pages)
    if arguments.check:
        old = [path for path, text in said.items() if not path.exists() or _read(path) != text]
        sys.stdout.write("".join(f"{path.name} is not up to date\n" for path in old))
        sys.exit(bool(old))
    for path, text in said.items():
        path.write_text(text, encoding="utf-8")
    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir(parents=True)
    for name, figure in pages.pictures.items():
        (PICTURES / f"{name}.png").write_bytes(figure.png)


def texts(pages: Pages) -> dict[Path, str]:
    """What the pages should say, by their paths."""
    return {PAGE: pages.page, README: with_short_form(_read(README), pages.short_form)}


def keep(folder: Path, place: Path) -> int:
    """Copy what is kept of the runs of a folder, each into a folder of the same name.

    Args:
        folder: A run, a sweep or a search.
        place: Where to; what is there is replaced.

    Returns:
        How many runs there are.

    Raises:
        SystemExit: There are no runs, or one has not ended, or it is of other images than the
            official ones, or was made with uncommitted changes.
    """
    found = sorted(folder.rglob("result.json"))
    if not found:
        sys.exit(f"{folder}: no runs")
    if folder.resolve().is_relative_to(place.resolve()):
        sys.exit(f"{folder}: is kept already")
    for path in found:
        record = json.loads(path.read_bytes())
        if record["status"] not in ENDED:
            sys.exit(f"{path}: {record['status']}: only runs that ended are kept")
        if record["data"]["name"] != "fashion_mnist":
            sys.exit(f"{path}: made on {record['data']['name']}")
        if not record["git"] or record["git"]["dirty"]:
            sys.exit(f"{path}: made with uncommitted changes, or outside a repository")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as temporary:
        whole = Path(temporary) / place.name
        for name in FILES:
            for path in sorted(folder.rglob(name)):
                target = whole / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        if place.exists():
            shutil.rmtree(place)
        whole.rename(place)
    return len(found)


def _read(path: Path) -> str:
    return path.read_text("utf-8")


if __name__ == "__main__":
    main()
