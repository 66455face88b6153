"""Our own results: keeps the records of runs, and writes the pages that show them.

    python scripts/results.py                              # docs/results.md, README.md, pictures
    python scripts/results.py --check                      # status 1 where one of them is old
    python scripts/results.py keep lenet multirun/FOLDER   # runs into docs/results/lenet

No figure of a run on the pages is typed: they come from the rows of the report, the published ones
from conf/experiment, and the words between them from docs/results/tables.yaml and results.md.j2.

What is kept of a run is its record, its epochs and its predictions; no images, weights or configs
of Hydra's. Of runs on other images, or made with uncommitted changes, nothing is.
"""

import argparse
import io
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

import fmbench  # noqa: E402
from fmbench import report  # noqa: E402
from fmbench.config import schema  # noqa: E402
from fmbench.config.checks import CONFIG_DIR  # noqa: E402
from fmbench.core.errors import UserError, one_line  # noqa: E402
from fmbench.data.fashion_mnist import OFFICIAL_SHA256  # noqa: E402
from fmbench.records.reader import read_results  # noqa: E402
from fmbench.records.record import COMPLETED, leaves  # noqa: E402
from fmbench.report.escape import markdown  # noqa: E402
from fmbench.report.figures.curves import curves  # noqa: E402
from fmbench.report.figures.published import published_figure  # noqa: E402
from fmbench.report.figures.search import search_figure  # noqa: E402
from fmbench.report.render.markdown import code_block  # noqa: E402
from fmbench.report.table.columns import COLUMNS  # noqa: E402
from fmbench.report.table.compare import compare  # noqa: E402
from fmbench.report.table.describe import compared, is_like_with_like  # noqa: E402
from fmbench.report.table.formats import MISSING  # noqa: E402
from fmbench.stats import one_more  # noqa: E402

DOCS, README = CHECKOUT / "docs", CHECKOUT / "README.md"
PAGE, PICTURES, KEPT = DOCS / "results.md", DOCS / "images" / "results", DOCS / "results"
START, END = "<!-- results: written by scripts/results.py -->\n", "<!-- end of results -->\n"

FILES = ("result.json", "history.jsonl", "predictions.npy", "labels.npy", "search.json")
ENDED = ("completed", "pruned", "diverged", "failed")

#: Characters of a text of the report, at most.
LONGEST = 600

#: The same picture drawn on another processor may differ in a few pixels; a moved mark in more.
FEW_PIXELS, MUCH = 20, 32

#: The columns of the tables by the report's names; `one_run` is ours.
COLUMN = {column.key: column for column in COLUMNS}
TABLES = {
    "long": (
        *("model", "parameters", "published_accuracy", "test_accuracy", "test_accuracy_low"),
        *("best_test_accuracy", "difference", "one_run", "n", "seconds_train", "device"),
        "published_seconds",
    ),
    "short": (
        *("model", "published_accuracy", "test_accuracy", "best_test_accuracy", "difference"),
        *("n", "seconds_train", "device"),
    ),
    "search": (
        *("model", "test_accuracy", "test_accuracy_low", "n", "batch_size", "learning_rate"),
        *("epochs", "seconds_train", "device"),
    ),
}

#: How far a row followed what was published.
WHOLE, SHORTENED, OTHER = "with the published recipe", "shortened", "with another recipe"

#: What the rows beside a search are called, by the keys that name their folders in tables.yaml.
NAMES = {
    "best": "the search's best",
    "recipe": "the recipe",
    "unsearched": "the unsearched row",
}

#: Settings that a search sets in its trials, that repeat a row, or that decide what is kept alone.
NO_SETTING = {name for name, key in schema.KEYS.items() if key.repeats or key.role == "kept"}


@cache
def recipe(experiment: str) -> dict[str, Any]:
    """What an experiment's file says, its published figures as `reference`; to be left as it is."""
    found = OmegaConf.to_object(OmegaConf.load(CONFIG_DIR / "experiment" / f"{experiment}.yaml"))
    assert isinstance(found, dict)
    return found


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        experiment: Whose published figures stand beside it.
        row: Of the report; None for what was not run, or did not complete.
        lost: `folder`, `seed` and `status` of runs that did not complete.
        several: Whether another line differs in the hardware alone.
    """

    experiment: str
    row: Mapping[str, Any] | None
    lost: Sequence[Mapping[str, Any]] = ()
    several: bool = False

    @property
    def recipe(self) -> dict[str, Any]:
        """What was published."""
        return recipe(self.experiment)

    @property
    def kind(self) -> str:
        """How far it followed what was published."""
        if self.row is None:
            return "not completed" if self.lost else "not run"
        match self.row["deviations"]:
            case ():
                return WHOLE
            case (only,) if only == f"epochs={self.row['epochs']}":
                return SHORTENED if self.row["epochs"] < self.recipe["epochs"] else OTHER
        return OTHER

    @property
    def name(self) -> str:
        """The experiment, what was done otherwise, and where, if that tells it apart."""
        if self.row is None:
            return self.experiment
        said = list(self.row["deviations"])
        if self.kind == SHORTENED:
            said = [f"{self.row['epochs']} of {self.recipe['epochs']} epochs"]
        hardware = COLUMN["device"].cell(self.row) if self.several else self.row["difference_in"]
        said += [hardware] if hardware else []
        return f"{self.experiment} ({', '.join(said)})" if said else self.experiment

    @property
    def one_run(self) -> tuple[float, float] | None:
        """Where one more run would land, of several that were chosen as the published one."""
        if self.row is None or self.kind != WHOLE or self.recipe["reference"]["accuracy"] is None:
            return None
        return one_more(compared(self.row)) if is_like_with_like(self.row) else None

    @property
    def has_verdict(self) -> bool:
        """Whether something follows for the published figure."""
        if self.row is None or self.recipe["reference"]["accuracy"] is None:
            return False
        like = is_like_with_like(self.row) or self.row["difference_in"]
        return self.kind == SHORTENED or bool(self.kind == WHOLE and like)

    @property
    def cells(self) -> dict[str, str]:
        """By the name of the column."""
        theirs = {"approximate": None, **self.recipe["reference"]}
        row = {f"published_{key}": value for key, value in theirs.items()} | (
            self.row or {"parameters": theirs["parameters"]}
        )
        known = COLUMN if self.row else ("parameters", "published_accuracy", "published_seconds")
        cells = dict.fromkeys(TABLES["long"], MISSING)
        cells |= {key: COLUMN[key].cell(row) for key in known} | {"model": self.name}
        if self.row is None:
            lost = f"{len(self.lost)} not completed"
            return cells | {"test_accuracy": lost if self.lost else self.kind}
        if row["best_test_accuracy"] is not None and row["n"] > 1:
            spread = float(np.std(row["best_accuracies"], ddof=1))
            show = COLUMN["test_accuracy"].show
            cells["best_test_accuracy"] = show(row["best_test_accuracy"], spread)
        if self.one_run:
            cells["one_run"] = COLUMN["test_accuracy_low"].show(*self.one_run)
        if self.kind == SHORTENED and theirs["seconds"] is not None:
            whole = self.recipe["epochs"]
            cells["published_seconds"] = f"{whole} epochs: {cells['published_seconds']}"
        return cells

    @property
    def made_by(self) -> tuple[Any, ...]:
        """Its name, what its runs are called and their folders, and the command."""
        if self.row is not None:
            return made_by(self.name, self.row)
        runs = [(f"seed {run['seed']} {run['status']}", run["folder"]) for run in self.lost]
        return self.name, runs, f"python -m fmbench experiment={self.experiment}"


def made_by(name: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """As `Line.made_by`."""
    seeds = (f"seed {seed}" for seed in row["run_seeds"])
    return name, [*zip(seeds, row["folders"], strict=True)], row["command"]


def table(headings: Sequence[str], right: Sequence[bool], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown of plain texts; `right` says which columns stand flush right."""
    lines = [[_escaped(cell) for cell in row] for row in (headings, *rows)]
    lines.insert(1, ["---:" if flush else "---" for flush in right])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def columns(cells: Sequence[Mapping[str, str]], name: str) -> str:
    """One of `TABLES` without the columns that say nothing."""
    known = [key for key in TABLES[name] if any(one[key] != MISSING for one in cells)]
    titles = [COLUMN[key].title if key in COLUMN else "one run (%)" for key in known]
    right = [key not in COLUMN or COLUMN[key].right for key in known]
    return table(titles, right, [[one[key] for key in known] for one in cells])


def _escaped(text: str) -> str:
    return markdown(one_line(text, LONGEST))


def differences(one: Mapping[str, Any], other: Mapping[str, Any], but: Iterable[str]) -> list[str]:
    """The settings that two rows differ in: "optimizer.nesterov false, not true".

    Args:
        one: Of the report.
        other: The row that it differs from.
        but: Settings to pass over, beside `NO_SETTING`.
    """
    a, b = (
        dict(leaves(json.loads(row["config"]))) | {"scheduler": row["scheduler"]}
        for row in (one, other)
    )
    return [
        f"{key} {_typed(a.get(key))}, not {_typed(b.get(key))}"
        for key in sorted({*a, *b} - {*but, *NO_SETTING})
        # What a schedule is made of differs with the schedule.
        if a.get(key) != b.get(key) and not key.startswith("scheduler.")
    ]


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Pages:
    """What the pages say.

    Attributes:
        kept: The folder of the records, with `tables.yaml`.
    """

    kept: Path

    @cached_property
    def layout(self) -> dict[str, Any]:
        """What tables.yaml says."""
        said = OmegaConf.to_object(OmegaConf.load(self.kept / "tables.yaml"))
        assert isinstance(said, dict)
        return said

    @cached_property
    def report(self) -> report.Report:
        """Of the records.

        Raises:
            ValueError: One cannot be read.
        """
        found = report.build([self.kept])
        if found.problems:
            raise ValueError("; ".join(map(str, found.problems)))
        return found

    @cached_property
    def tables(self) -> list[dict[str, Any]]:
        """What tables.yaml says of each, its `lines`, its `recipes`, and what these agree in."""
        tables = []
        for said in self.layout["tables"]:
            (first, *others) = recipes = [recipe(name) for name in said["rows"]]
            alike = {k: v for k, v in first.items() if all(one.get(k) == v for one in others)}
            lines = [line for name in said["rows"] for line in self._lines(name)]
            tables.append({**said, "lines": lines, "recipes": recipes, "alike": alike})
        return tables

    def _lines(self, experiment: str) -> Iterator[Line]:
        """The lines of an experiment; one that was run in several ways has a line for each."""
        rows = [row for row in self.report.rows if row["experiment"] == experiment]
        ways = Counter(row["deviations"] for row in rows)
        for row in sorted(rows, key=lambda row: len(row["deviations"])):
            yield Line(experiment, row, several=ways[row["deviations"]] > 1)
        frame = self.runs
        lost = frame[(frame["experiment"] == experiment) & (frame["status"] != COMPLETED)]
        if len(lost) or not rows:
            yield Line(experiment, None, lost.to_dict("records"))

    @cached_property
    def runs(self) -> pd.DataFrame:
        """All runs."""
        return fmbench.load_results(self.kept)

    @property
    def lines(self) -> list[Line]:
        """Of all tables."""
        return [line for table in self.tables for line in table["lines"]]

    @cached_property
    def search(self) -> dict[str, Any] | None:
        """The search that tables.yaml names, and its best, trained again, beside the recipe.

        Raises:
            ValueError: It is not kept.
            ConfigError: A folder holds no runs, or runs of several rows.
        """
        said = self.layout.get("search")
        if said is None:
            return None
        place = self.kept / said["folder"]
        part = next((one for one in self.report.searches if Path(one.folder) == place), None)
        if part is None:
            raise ValueError(f"{place.name}: tables.yaml names this search, and it is not kept")
        pairs = [("best", "recipe"), ("best", "unsearched"), ("unsearched", "recipe")]
        found = [compare(*(str(self.kept / said[key]) for key in pair)) for pair in pairs]
        rows = {
            "best": found[0].rows[0],
            "unsearched": found[2].rows[0],
            "recipe": found[0].rows[1],
        }
        trials = part.search.trials
        epochs = [len(trial.reports) for trial in trials]
        rates = [trial.parameters["optimizer.lr"] for trial in trials]
        return {
            "part": part,
            "epochs": (sum(epochs), len(epochs) * max(epochs)),
            "sizes": sorted({trial.parameters["batch_size"] for trial in trials}),
            "rates": (min(rates), max(rates)),
            "rows": rows,
            "cells": [
                {key: COLUMN[key].cell(row) for key in TABLES["search"]} | {"model": NAMES[name]}
                for name, row in rows.items()
            ],
            "differences": differences(rows["recipe"], rows["best"], trials[0].parameters),
            # Without their times, which were taken with others at work.
            "comparisons": [
                replace(one, names=(NAMES[a], NAMES[b]), time_ratio=None)
                for (a, b), one in zip(pairs, found, strict=True)
            ],
            "made_by": [made_by(NAMES[key], row) for key, row in rows.items()],
        }

    @cached_property
    def pictures(self) -> dict[str, Any]:
        """By name; those of a table's curves begin with `curves_` and its letter."""
        found = [
            published_figure(
                [line.row for line in self.lines if line.row], "fashion_mnist", "published"
            )
        ]
        for table in self.tables:
            rows = [line.row for line in table["lines"] if line.row]
            for model in dict.fromkeys(row["model"] for row in rows):
                alike = [row for row in rows if row["model"] == model]
                epochs = {row["epochs"] for row in alike}
                title = f"{model}, {epochs.pop()} epochs" if len(epochs) == 1 else model
                name = f"curves_{table['title'][0].lower()}_{model}"
                found.append(curves(title, alike, "fashion_mnist", name))
        if self.search is not None:
            found.append(search_figure(self.search["part"], "search"))
        return {figure.name: figure for figure in found if figure is not None}

    def text(self, *, short: bool = False) -> str:
        """The text of docs/results.md, or the short one of the README."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
        )
        environment.filters |= {
            "markdown": _escaped,
            "code": code_block,
            "columns": columns,
            "place": lambda folder: Path(folder).relative_to(self.kept).as_posix(),
            "of_recipes": lambda text, part: environment.from_string(text).render(
                part["alike"], recipes=part["recipes"]
            ),
        }
        page = environment.get_template("results.md.j2").render(
            pages=self, short=short, table=table
        )
        return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def main(argv: list[str] | None = None) -> None:
    """Write, check or keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    kept = parser.add_subparsers(dest="command").add_parser("keep", help="copy runs' records")
    kept.add_argument("name", help="of the folder in docs/results")
    kept.add_argument("folder", type=Path, help="a run, a sweep or a search")
    arguments = parser.parse_args(argv)
    if arguments.command == "keep":
        if not re.fullmatch(r"\w+", arguments.name):
            parser.error(f"{arguments.name}: letters, digits and _ alone make a name")
        count, before = keep(arguments.folder, KEPT / arguments.name)
        instead = f" in place of {before}" if before else ""
        print(f"kept {count} runs in docs/results/{arguments.name}{instead}")
        return
    pages = Pages(KEPT)
    try:
        files = contents(pages)
    except (OSError, ValueError, UserError) as error:
        sys.exit(f"results: {error}")
    old = [path for path in {*files, *PICTURES.glob("*.png")} if is_old(path, files.get(path))]
    if arguments.check:
        print("".join(f"{path.name} is not up to date\n" for path in sorted(old)), end="")
        if old:
            sys.exit("results: python scripts/results.py writes them")
        return
    PICTURES.mkdir(parents=True, exist_ok=True)
    for path in old:
        if path in files:
            path.write_bytes(files[path])
        else:
            path.unlink()


def contents(pages: Pages) -> dict[Path, bytes]:
    """What each page and picture should be.

    Raises:
        ValueError: README.md has lost the marks around its results.
    """
    page, block = pages.text(), pages.text(short=True)
    before, start, rest = README.read_text("utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError("README.md has lost the marks around its results")
    readme = f"{before}{START}\n{block}\n{END}{after}"
    files = {PAGE: page.encode(), README: readme.encode()}
    return files | {PICTURES / f"{name}.png": one.png for name, one in pages.pictures.items()}


def is_old(path: Path, content: bytes | None) -> bool:
    """Whether a file is not what it should be; None stands for a file that should not be there."""
    if content is None or not path.exists():
        return True
    if path.suffix != ".png":
        return path.read_bytes() != content
    pin = f"matplotlib=={version('matplotlib')}"
    if pin not in (CHECKOUT / "constraints.txt").read_text("utf-8").splitlines():
        return False  # another version may draw letters otherwise
    a, b = (
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), int)
        for png in (path.read_bytes(), content)
    )
    return a.shape != b.shape or int((abs(a - b).max(-1) > MUCH).sum()) > FEW_PIXELS


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
    results = read_results(folder)
    for problem in results.problems:
        sys.exit(str(problem))
    if results.frame.empty:
        sys.exit(f"{folder}: no runs")
    if folder.resolve().is_relative_to(place.resolve()):
        sys.exit(f"{folder}: is kept already")
    for run in results.frame.to_dict("records"):
        if run["status"] not in ENDED:
            sys.exit(f"{run['folder']}: {run['status']}: only runs that ended are kept")
        if run["data_sha256"] != OFFICIAL_SHA256:
            sys.exit(f"{run['folder']}: made on {run['data']}, not on the official images")
        if run["git_dirty"] is not False:
            sys.exit(f"{run['folder']}: made with uncommitted changes, or outside a repository")
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
    return len(results.frame), before


if __name__ == "__main__":
    main()
