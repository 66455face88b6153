"""Our own results: writes the pages and pictures that show the records in docs/results.

    python scripts/results.py            # docs/results.md, README.md, pictures
    python scripts/results.py --check    # status 1 where one of them is old

No figure of a run on the pages is typed: they come from the rows of the report, the published ones
from conf/experiment, and the words between them from docs/results/tables.yaml and results.md.j2.

What is kept of a run is its result.json, history.jsonl, predictions.npy and labels.npy, and of a
search its search.json, each below a folder of docs/results. The tests refuse other files, and runs
that have not ended, are of other images, or were made with uncommitted changes.
"""

import argparse
import io
import json
import re
import sys
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

import fmbench
from fmbench import report
from fmbench.config import schema
from fmbench.config.checks import CONFIG_DIR
from fmbench.core.errors import UserError, one_line
from fmbench.records.record import leaves
from fmbench.report.escape import markdown
from fmbench.report.figures.accuracy import published_figure
from fmbench.report.figures.curves import curves
from fmbench.report.figures.search import search_figure
from fmbench.report.figures.style import Budget
from fmbench.report.render.markdown import code_block
from fmbench.report.table.columns import COLUMNS
from fmbench.report.table.compare import compare
from fmbench.report.table.describe import compared, is_like_with_like
from fmbench.report.table.formats import MISSING
from fmbench.stats import one_more

CHECKOUT = Path(__file__).resolve().parents[1]
DOCS, README = CHECKOUT / "docs", CHECKOUT / "README.md"
PAGE, PICTURES, KEPT = DOCS / "results.md", DOCS / "images" / "results", DOCS / "results"
START, END = "<!-- results: written by scripts/results.py -->\n", "<!-- end of results -->\n"

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
    return OmegaConf.to_object(OmegaConf.load(CONFIG_DIR / "experiment" / f"{experiment}.yaml"))


def nothing(experiment: str, unfinished: pd.DataFrame) -> dict[str, Any]:
    """The row of an experiment of which no run completed."""
    reference = recipe(experiment)["reference"]
    return {
        **dict.fromkeys(COLUMN),
        **{f"published_{key}": value for key, value in reference.items()},
        **dict.fromkeys(("n", "n_unfinished", "n_pruned", "n_interrupted"), 0),
        "n_failed": len(unfinished),
        "parameters": reference["parameters"],
        "deviations": (),
        "run_seeds": unfinished["seed"].tolist(),
        "folders": unfinished["folder"].tolist(),
        "command": f"python -m fmbench experiment={experiment}",
    }


def line(experiment: str, row: dict[str, Any]) -> dict[str, Any]:
    """A line of a table: a row of the report with what follows for the published figure.

    Its `name` is the experiment and what was done otherwise; `one_run` is where one more run would
    land, if that compares with the published figure; its `cells` are by the name of the column.
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
    compares = kind == SHORTENED or (kind == WHOLE and (like or row["difference_in"] is not None))
    return row | {
        "experiment": experiment,
        "recipe": published,
        "kind": kind,
        "name": name,
        "one_run": one_run,
        "verdict": theirs is not None and compares,
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

    Some may be passed over, beside `NO_SETTING`.
    """
    a, b = (
        dict(leaves(json.loads(row["config"]))) | {"scheduler": row["scheduler"]}
        for row in (one, other)
    )
    # What a schedule is made of differs with the schedule.
    keys = {key for key in {*a, *b} if not key.startswith("scheduler.")} - {*but, *NO_SETTING}
    pairs = {key: (a.get(key), b.get(key)) for key in sorted(keys)}
    return [
        "{} {}, not {}".format(key, *(v if isinstance(v, str) else json.dumps(v) for v in pair))
        for key, pair in pairs.items()
        if pair[0] != pair[1]
    ]


@dataclass(frozen=True)
class Pages:
    """What the pages say of a folder of records with `tables.yaml`."""

    kept: Path

    @cached_property
    def layout(self) -> dict[str, Any]:
        """What tables.yaml says."""
        return OmegaConf.to_object(OmegaConf.load(self.kept / "tables.yaml"))

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
                found.append(curves(title, alike, data, name, Budget()))
        if self.search is not None:
            found.append(search_figure(self.search["part"], "search"))
        return {figure.name: figure for figure in found if figure is not None}

    def text(self, *, short: bool = False) -> str:
        """The text of docs/results.md, or the short one of the README."""
        loader = jinja2.FileSystemLoader(Path(__file__).parent)
        options = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
        environment = jinja2.Environment(loader=loader, **options)
        environment.filters |= {
            "markdown": _escaped,
            "code": code_block,
            "columns": columns,
            "place": lambda folder: Path(folder).relative_to(self.kept).as_posix(),
            "of_recipes": lambda text, part: environment.from_string(text).render(
                part["alike"], recipes=part["recipes"]
            ),
        }
        template = environment.get_template("results.md.j2")
        page = template.render(pages=self, short=short, table=table)
        return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def main(argv: list[str] | None = None) -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(argv).check
    try:
        files = contents(Pages(KEPT))
    except (OSError, ValueError, UserError) as error:
        sys.exit(f"results: {error}")
    old = [path for path in {*files, *PICTURES.glob("*.png")} if is_old(path, files.get(path))]
    if check and old:
        print("".join(f"{path.name} is not up to date\n" for path in sorted(old)), end="")
        sys.exit("results: python scripts/results.py writes them")
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


if __name__ == "__main__":
    main()
