"""Our own results: keeps the records of runs, and writes the pages that show them.

    python scripts/results.py                              # docs/results.md, README.md, pictures
    python scripts/results.py --check                      # status 1 where one of them is old
    python scripts/results.py keep lenet multirun/FOLDER   # runs into docs/results/lenet

What is kept of a run is its record, its epochs and its answers; no images, weights or configs of
Hydra's. Of runs on other images, or made with uncommitted changes, nothing is.
"""

import argparse
import io
import json
import re
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "scripts")]

from results_page import Pages, with_short_form  # noqa: E402

from fmbench.data import OFFICIAL_SHA256  # noqa: E402
from fmbench.results import read_results  # noqa: E402

DOCS, README = CHECKOUT / "docs", CHECKOUT / "README.md"
PAGE, PICTURES, KEPT = DOCS / "results.md", DOCS / "images" / "results", DOCS / "results"

FILES = ("result.json", "history.jsonl", "predictions.npy", "labels.npy", "search.json")
ENDED = ("completed", "pruned", "diverged", "failed")

# Of a picture drawn by another processor a few edges may come out otherwise; a mark moves more.
FEW_PIXELS, MUCH = 20, 32


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
        if arguments.check:
            parser.error("--check writes nothing, and keep does")
        if not re.fullmatch(r"\w+", arguments.name):
            parser.error(f"{arguments.name}: letters, digits and _ alone make a name")
        count, before = keep(arguments.folder, KEPT / arguments.name)
        instead = f" in place of {before}" if before else ""
        sys.stdout.write(f"kept {count} runs in docs/results/{arguments.name}{instead}\n")
        return
    pages = Pages(KEPT)
    try:
        said, pictures = texts(pages), pages.pictures
    except (OSError, ValueError) as error:
        sys.exit(f"results: {error}")
    if arguments.check:
        old = [path.name for path, text in said.items() if not path.exists() or _read(path) != text]
        if is_pinned("matplotlib"):  # another version may draw letters otherwise
            old += stale({name: figure.png for name, figure in pictures.items()})
        sys.stdout.write("".join(f"{name} is not up to date\n" for name in old))
        if old:
            sys.exit("results: python scripts/results.py writes them")
        return
    for path, text in said.items():
        path.write_text(text, encoding="utf-8")
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures.items():
        (PICTURES / f"{name}.png").write_bytes(figure.png)
    for path in PICTURES.glob("*.png"):
        if path.stem not in pictures:
            path.unlink()


def texts(pages: Pages) -> dict[Path, str]:
    """What the pages should say, by their paths."""
    return {PAGE: pages.page, README: with_short_form(_read(README), pages.short_form)}


def is_pinned(package: str) -> bool:
    """Whether the version that is installed is the one of constraints.txt."""
    pin = f"{package}=={version(package)}"
    return pin in (CHECKOUT / "constraints.txt").read_text("utf-8").splitlines()


def stale(pictures: dict[str, bytes]) -> list[str]:
    """The pictures that are not there, or show something else, or should not be there.

    Args:
        pictures: What they should be, as PNG, by their names.
    """
    there = {path.stem: path.read_bytes() for path in PICTURES.glob("*.png")}
    return [
        f"{name}.png"
        for name in sorted({*there, *pictures})
        if name not in there or name not in pictures or not _alike(there[name], pictures[name])
    ]


def _alike(one: bytes, other: bytes) -> bool:
    a, b = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), int) for png in (one, other))
    return a.shape == b.shape and int((abs(a - b).max(-1) > MUCH).sum()) <= FEW_PIXELS


def keep(folder: Path, place: Path) -> tuple[int, int]:
    """Copy what is kept of the runs of a folder, each into a folder of the same name.

    Args:
        folder: A run, a sweep or a search.
        place: Where to; what is there is replaced.

    Returns:
        How many runs there are, and how many there were.

    Raises:
        SystemExit: There are no runs, or one cannot be read or has not ended, or it is of other
            images than the official ones, or was made with uncommitted changes.
    """
    if not folder.is_dir():
        sys.exit(f"{folder}: no such folder")
    results = read_results(folder)
    for problem in results.problems:
        sys.exit(str(problem))
    found = sorted(folder.rglob("result.json"))
    if not found:
        sys.exit(f"{folder}: no runs")
    if folder.resolve().is_relative_to(place.resolve()):
        sys.exit(f"{folder}: is kept already")
    for path in found:
        if why := _objection(json.loads(path.read_bytes())):
            sys.exit(f"{path}: {why}")
    before = len(list(place.rglob("result.json")))
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
    return len(found), before


def _objection(record: dict[str, Any]) -> str | None:
    """Why a run cannot be stood for."""
    if record["status"] not in ENDED:
        return f"{record['status']}: only runs that ended are kept"
    if record["data"].get("sha256") != OFFICIAL_SHA256:
        return f"made on {record['data'].get('name')}, not on the official images"
    if not record["git"] or record["git"].get("dirty") is not False:
        return "made with uncommitted changes, or outside a repository"
    return None


def _read(path: Path) -> str:
    return path.read_text("utf-8")


if __name__ == "__main__":
    main()
