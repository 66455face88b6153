"""`fmbench suspects`: images whose label is contradicted by models that did not train on them."""

import argparse
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fmbench.config.keys import OF_DATA
from fmbench.core.console import Parser, printed, run_command, say, typed_path
from fmbench.core.errors import ConfigError, UserError
from fmbench.core.files import as_text, make_folder, write_whole
from fmbench.data.dataset import Dataset
from fmbench.records.gather import Problem
from fmbench.records.reader import read_records
from fmbench.records.suspects import SUSPECTS_NAME, Pool, Suspects, pools, suspected_tests

PROGRAM = "fmbench suspects"

#: Images that are printed of each part, and drawn.
MOST_PRINTED, MOST_DRAWN = 20, 48

TABLE, SHEET = "suspects.csv", "suspects_{part}.png"

DESCRIPTION = """\
List images whose label seems wrong, by confident learning (Northcutt et al. 2021): the
probabilities of models that did not train on them contradict it. Training images need
runs that hold images out (data.split=kfold, all folds, for each of them once)."""

EXAMPLES = """\
examples:
  fmbench -m model=lenet data.split=kfold data.split.fold=range(5)
  fmbench suspects multirun/2026-11-30/12-00-00
  fmbench suspects multirun --output doubtful --root my_data

files, in the folder of --output:
  suspects.csv                 every suspect, the least credible label first
  suspects.json                the suspected test images, for a report of the folder: it then has
                               a column of accuracy on those that nobody suspects
  suspects_train.png, suspects_test.png
                               contact sheets, where the images can be read

exit status:
  0  listed                    2  a DIR does not exist, or has no probabilities
  5  it could not be printed, or written
"""


def main(argv: Sequence[str] | None = None) -> None:
    """List suspected labels, then exit with the status that `--help` explains."""
    run_command(PROGRAM, lambda: _suspects(_parser().parse_args(argv)), typed=argv is None)


def _suspects(arguments: argparse.Namespace) -> int:
    problems: list[Problem] = []
    found = [pool.found() for pool in pools(read_records(*arguments.folders, problems=problems))]
    if not found:
        raise ConfigError(
            f"{arguments.folders[0]}: no completed run below has kept probabilities "
            "(keep_probabilities=true)"
        )
    output = arguments.output or arguments.folders[0]
    make_folder(output)
    write_whole(output / TABLE, _table(found).encode())
    write_whole(output / SUSPECTS_NAME, suspected_tests(found).to_json().encode())
    lines = [line for one in found for line in _lines(one)]
    for number, one in enumerate(found):
        if len(one) and all(other.pool.part != one.pool.part for other in found[:number]):
            lines.append(_sheet(one, output, arguments.root))
    return printed(PROGRAM, lambda: say(*lines))


def _names(pool: Pool) -> list[str]:
    classes = pool.sums.shape[1]
    known = pool.record.data.get("classes") or []
    return list(known) if len(known) == classes else list(map(str, range(classes)))


def _lines(found: Suspects) -> Iterator[str]:
    pool, names = found.pool, _names(found.pool)
    images, runs = int((pool.counts > 0).sum()), int(pool.counts.max())
    kind = "training" if pool.part == "train" else "test"
    of = f"{images:,} {kind} images of {pool.record.data['name']}"
    yield f"{of}, by up to {runs} runs each: {len(found):,} labels are suspected"
    for number, label, guess, given, guessed in list(_each(found))[:MOST_PRINTED]:
        said = f"{names[label]} ({given:.2%}), seems {names[guess]} ({guessed:.2%})"
        yield f"  {kind} image {number}: {said}"
    if not pool.answers:
        return
    kept = np.ones(len(pool.labels), dtype=bool)
    kept[found.numbers] = False
    if not kept.any():
        return
    yield "  accuracy on all, and on those that nobody suspects (the models chose them themselves):"
    for folder, right in pool.answers[:MOST_PRINTED]:
        yield f"    {right.mean():.2%}  {right[kept].mean():.2%}  {as_text(folder)}"


def _each(found: Suspects) -> Iterator[tuple[int, int, int, float, float]]:
    columns = (found.numbers, found.labels, found.guesses, found.given, found.guessed)
    yield from zip(*(column.tolist() for column in columns), strict=True)


def _table(found: Sequence[Suspects]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ("data", "part", "image", "label", "seems", "probability_of_label", "probability")
    writer.writerow(heads)
    for one in found:
        names, data = _names(one.pool), one.pool.record.data["name"]
        for number, label, guess, given, guessed in _each(one):
            shares = (f"{given:.6g}", f"{guessed:.6g}")
            writer.writerow([data, one.pool.part, number, names[label], names[guess], *shares])
    return text.getvalue()


def _sheet(found: Suspects, output: Path, root: Path | None) -> str:
    """Draw the contact sheet of a part; returns the line that says where it is, or why not."""
    name = SHEET.format(part=found.pool.part)
    try:
        images = _images(found, root)
    except UserError as error:
        return f"no {name}: {error}"
    from fmbench.report.figures.predictions import contact_sheet

    names = _names(found.pool)
    texts = [(names[label], names[guess], guessed) for _, label, guess, _, guessed in _each(found)][
        : len(images)
    ]
    write_whole(output / name, contact_sheet(images, texts, name.partition(".")[0]))
    return f"{output / name}: the first {len(images)}, label and what each seems"


def _images(found: Suspects, root: Path | None) -> np.ndarray:
    """The images of the first suspects, (N, C, H, W) uint8.

    Raises:
        UserError: the data cannot be read, or are others than those of the runs.
    """
    from fmbench.data.load import load
    from fmbench.data.splits import make_split

    record = found.pool.record
    config = dict(record.config.get("data") or {})
    if "_target_" in config or config.get("name") not in OF_DATA:
        raise ConfigError("the images are made by code of the user's, which is not run here")
    # A record that may be a stranger's names no places.
    places = {"root": str(root) if root else None, "test": None, "download": False}
    config |= {**places, "mirrors": [], "cache": None, "cache_gb": 1}
    try:
        dataset: Dataset = load(config)
        if dataset.sha256 != record.data["sha256"]:
            raise ConfigError("the images that are found are others than those of the runs")
        numbers = found.numbers[:MOST_DRAWN]
        if found.pool.part == "test":
            numbers = make_split(dataset, config).test[numbers]
        images: np.ndarray = dataset.images[numbers]
    except (KeyError, TypeError, ValueError, IndexError) as error:  # of a stranger's config
        raise ConfigError(f"the config of the runs does not say where they are ({error})") from None
    return images


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, DESCRIPTION, EXAMPLES)
    what = "run folders, sweep folders, or whatever holds them"
    parser.add_argument("folders", nargs="+", type=typed_path, metavar="DIR", help=what)
    where = "where the files go (default: the first DIR)"
    parser.add_argument("--output", type=typed_path, metavar="FOLDER", help=where)
    data = "where the images lie (default: FMBENCH_DATA, else data, of public sets)"
    parser.add_argument("--root", type=typed_path, metavar="DATA", help=data)
    return parser
