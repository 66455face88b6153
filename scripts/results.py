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
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
from fmbench.records.record import leaves  # noqa: E402
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
UNFINISHED, NOT_RUN = "not completed", "not run"

#: What the rows beside a search are called, by the keys that name their folders in tables.yaml.
NAMES = {
    "best": "the search's best",
    "unsearched": "the unsearched row",
    "recipe": "the recipe",
}

#: Settings that a search sets in its trials, that repeat a row, or that decide what is kept alone.
NO_SETTING = {name for name, key in schema.KEYS.items() if key.repeats or key.role == "kept"}


@cache
def recipe(experiment: str) -> dict[str, Any]:
    """What an experiment's file says, its published figures as `reference`; to be left as it is."""
    found = OmegaConf.to_object(OmegaConf.load(CONFIG_DIR / "experiment" / f"{experiment}.yaml"))
    assert isinstance(found, dict)
    return found


def nothing(experiment: str, unfinished: pd.DataFrame) -> dict[str, Any]:
    """The row of an experiment of which no run completed."""
    published = {
        f"published_{key}": value for key, value in recipe(experiment)["reference"].items()
    }
    counts = dict.fromkeys(("n", "n_unfinished", "n_pruned", "n_interrupted"), 0)
    return {
        **dict.fromkeys(COLUMN),
        **published,
        **counts,
        "n_failed": len(unfinished),
        "parameters": published["published_parameters"],
        "deviations": (),
        "run_seeds": unfinished["seed"].tolist(),
        "folders": unfinished["folder"].tolist(),
        "command": f"python -m fmbench experiment={experiment}",
    }


def line(experiment: str, row: dict[str, Any]) -> dict[str, Any]:
    """A line of a table: a row of the report with what follows for the published figure.

    Returns:
        The row, its `recipe`, its `kind`, its `name`: the experiment and what was done otherwise;
        `one_run`, where one more run would land if that compares with the published figure;
        whether there is a `verdict`; and its `cells` by the name of the column.
    """
    published = recipe(experiment)
    theirs, changes = published["reference"]["accuracy"], list(row["deviations"])
    like = bool(row["n"]) and theirs is not None and is_like_with_like(row)
    kind = OTHER if changes else WHOLE
    if not row["n"]:
        kind = UNFINISHED if row["folders"] else NOT_RUN
    elif changes == [f"epochs={row['epochs']}"] and row["epochs"] < published["epochs"]:
        kind = SHORTENED
        changes = [f"{row['epochs']} of {published['epochs']} epochs"]
    changes += [row["difference_in"]] if row["difference_in"] else []
    name = f"{experiment} ({', '.join(changes)})" if changes else experiment
    one_run = one_more(compared(row)) if kind == WHOLE and like else None
    cells = cells_of(row, name)
    if not row["n"]:
        cells["test_accuracy"] = kind
    if one_run:
        cells["one_run"] = COLUMN["test_accuracy_low"].show(*one_run)
    if row["n"] > 1 and row["best_test_accuracy"] is not None:
        spread = float(np.std(row["best_accuracies"], ddof=1))
        show = COLUMN["test_accuracy"].show
        cells["best_test_accuracy"] = show(row["best_test_accuracy"], spread)
    if kind == SHORTENED and cells["published_seconds"] != MISSING:
        cells["published_seconds"] = f"{published['epochs']} epochs: {cells['published_seconds']}"
    return {
        **row,
        "experiment": experiment,
        "recipe": published,
        "kind": kind,
        "name": name,
        "one_run": one_run,
        "verdict": theirs is not None
        and (kind == SHORTENED or (kind == WHOLE and (like or row["difference_in"] is not None))),
        "cells": cells,
    }


def cells_of(row: Mapping[str, Any], name: str) -> dict[str, str]:
    """The cells of a row by the name of the column, with another name for its model."""
    keys = {*TABLES["long"], *TABLES["search"]} - {"model", "one_run"}
    return {"model": name, "one_run": MISSING} | {key: COLUMN[key].cell(row) for key in keys}


def table(headings: Sequence[str], right: Sequence[bool], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown of plain texts; `right` says which columns stand flush right."""
    lines = [[_escaped(cell) for cell in row] for row in (headings, *rows)]
    lines.insert(1, ["---:" if flush else "---" for flush in right])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def columns(lines: Iterable[Mapping[str, Any]], name: str) -> str:
    """One of `TABLES` of lines with their `cells`, without the columns that say nothing."""
    cells = [line["cells"] for line in lines]
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
        frame = fmbench.load_results(self.kept)
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in sorted(self.report.rows, key=lambda row: len(row["deviations"])):
            rows[row["experiment"]].append(row)
        tables = []
        for said in self.layout["tables"]:
            (first, *others) = recipes = [recipe(name) for name in said["rows"]]
            alike = {k: v for k, v in first.items() if all(one.get(k) == v for one in others)}
            lines = [
                line(name, row)
                for name in said["rows"]
                for row in rows[name] or [nothing(name, frame[frame["experiment"] == name])]
            ]
            tables.append({**said, "lines": lines, "recipes": recipes, "alike": alike})
        return tables

    @property
    def lines(self) -> list[dict[str, Any]]:
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
        (best, recipe), (_, unsearched), _ = (one.rows for one in found)
        rows = {"best": best, "unsearched": unsearched, "recipe": recipe}
        tried = [trial.parameters for trial in part.search.trials]
        return {
            "part": part,
            "sizes": sorted({one["batch_size"] for one in tried}),
            "rates": sorted(one["optimizer.lr"] for one in tried),
            "rows": {
                key: {**rows[key], "name": name, "cells": cells_of(rows[key], name)}
                for key, name in NAMES.items()
            },
            "differences": differences(recipe, best, tried[0]),
            # Without their times, which were taken with others at work.
            "comparisons": [
                replace(one, names=(NAMES[a], NAMES[b]), time_ratio=None)
                for (a, b), one in zip(pairs, found, strict=True)
            ],
        }

    @cached_property
    def pictures(self) -> dict[str, Any]:
        """By name; those of a table's curves begin with `curves_` and its letter."""
        data = "fashion_mnist"
        run = [line for line in self.lines if line["n"]]
        found = [published_figure(run, data, "published")]
        for table in self.tables:
            rows = [line for line in table["lines"] if line["n"]]
            for model in dict.fromkeys(row["model"] for row in rows):
                alike = [row for row in rows if row["model"] == model]
                epochs = {row["epochs"] for row in alike}
                title = f"{model}, {epochs.pop()} epochs" if len(epochs) == 1 else model
                name = f"curves_{table['title'][0].lower()}_{model}"
                found.append(curves(title, alike, data, name))
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
