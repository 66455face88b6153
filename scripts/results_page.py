"""The text of docs/results.md and of the README's short form, from the kept records.

No figure in either is typed: those of runs come from their records, the published ones from
conf/experiment, and the words between them from docs/results/tables.yaml.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from fmbench.config import CONFIG_DIR
from fmbench.reference import BEST_ON_TEST
from fmbench.report import Report, formats
from fmbench.report.columns import METRICS
from fmbench.report.compare import compare
from fmbench.report.escape import markdown
from fmbench.report.figure import Figure
from fmbench.report.figures import figures
from fmbench.report.markdown import LONGEST_ALT
from fmbench.results import load_results
from fmbench.stats import t_half_width

DOCS = Path(__file__).resolve().parents[1] / "docs"
KEPT, PICTURES = DOCS / "results", DOCS / "images" / "results"
TABLES = KEPT / "tables.yaml"

START, END = "<!-- results: written by scripts/results.py -->\n", "<!-- end of results -->\n"

NOT_RUN = "not run"

INTRODUCTION = """\
# Results

The rows of four earlier projects and of two well-known recipes, run again by fmbench on the real
images, beside the published figures. The records of all runs lie in [results](results); one command
writes this page from them, `python scripts/results.py`. `python -m fmbench.report docs/results`
shows the same runs as a benchmark of their own, with ranks.

- **Last epoch** is the accuracy on the test set after the last epoch: mean and standard deviation
  over n seeds, and the 95 % interval of the mean.
- **Best epoch on test** is the highest of all looks at the test set, which most of these projects
  publish. It is chosen by the very images it is measured on, and so too high.
- **Difference** is ours less the published figure, each chosen in the same way. Where the recipe
  was not followed to the end there is none.
- **One run** is where a further run of ours would land in 95 of 100 cases (Student's t, mean ±
  t s √(1 + 1/n)): the published figures are of one run each, and this is what to hold them against.
- **Training time** is that of one run's training clock, on the device named; evaluation is outside.
"""

HEADINGS = (
    *("net", "parameters", "published (%)", "last epoch (%)", "95 % interval (%)"),
    *("best epoch on test (%)", "difference (points)", "one run (%)", "n"),
    *("training time", "device", "published time"),
)
SHORT = (
    *("net", "published (%)", "ours, last epoch (%)", "best epoch on test (%)"),
    *("difference (points)", "n", "training time"),
)
LEFT = ("net", "device", "published time")


@dataclass(frozen=True)
class Line:
    """A line of a table: a published row, and what our runs of it gave, if there are any.

    Attributes:
        experiment: Its name.
        reference: The published figures.
        row: Of the benchmark table, as plain values; None where it was not run.
        best: For each seed the best accuracy on the test set; empty where not all looked.
    """

    experiment: str
    reference: dict[str, Any]
    row: dict[str, Any] | None = None
    best: tuple[float, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the published recipe was followed to the end."""
        return self.row is not None and not self.row["deviations"]

    @property
    def name(self) -> str:
        """The experiment, and what was done otherwise."""
        changes = ", ".join(self.row["deviations"]) if self.row else ""
        return f"{self.experiment} ({changes})" if changes else self.experiment

    @property
    def alike(self) -> tuple[float, ...]:
        """Our accuracies, one a seed, chosen as the published one was, as far as that is known."""
        assert self.row is not None
        chosen = self.reference["protocol"] == BEST_ON_TEST and self.best
        return self.best if chosen else tuple(self.row["accuracies"])

    @property
    def one_run(self) -> tuple[float, float] | None:
        """Where a further run would land; None where one seed does not tell."""
        values = np.array(self.alike)
        if len(values) < 2:
            return None
        half = float(t_half_width(values.std(ddof=1), len(values))) * (len(values) + 1) ** 0.5
        return float(values.mean() - half), float(values.mean() + half)

    @property
    def cells(self) -> dict[str, str]:
        """By heading."""
        theirs, row = self.reference, self.row
        cells = dict.fromkeys((*HEADINGS, *SHORT), formats.MISSING)
        cells["net"] = self.name
        cells["published (%)"] = formats.published(theirs["accuracy"], theirs["protocol"])
        cells["published time"] = formats.published_time(
            theirs["seconds"], theirs.get("approximate"), theirs["device"]
        )
        cells["parameters"] = formats.count(theirs["parameters"])
        if row is None:
            return cells | {"last epoch (%)": NOT_RUN}
        metric = METRICS["test_accuracy"]
        ours = metric.with_spread(row["test_accuracy"], row["test_accuracy_sd"])
        cells["last epoch (%)"] = cells["ours, last epoch (%)"] = ours
        ends = row["test_accuracy_low"], row["test_accuracy_high"]
        cells["95 % interval (%)"] = metric.interval(*ends)
        if self.best:
            spread = float(np.std(self.best, ddof=1)) if len(self.best) > 1 else None
            cells["best epoch on test (%)"] = metric.with_spread(np.mean(self.best), spread)
        if self.is_whole and row["difference"] is not None:
            cells["difference (points)"] = f"{100 * row['difference']:+.2f}"
            if self.one_run:
                cells["one run (%)"] = metric.interval(*self.one_run)
        cells["n"] = formats.count(row["n"])
        cells["parameters"] = formats.count(row["parameters"])
        cells["training time"] = formats.duration(row["seconds_train"])
        cells["device"] = formats.hardware(row["device"], row["precision"])
        return cells

    @property
    def verdict(self) -> str | None:
        """What follows for the published figure, in a sentence; None where nothing does."""
        if not self.is_whole or self.reference["accuracy"] is None:
            return None
        assert self.row is not None
        theirs = self.reference["accuracy"]
        said = f"**{self.experiment}**: published are {formats.percent(theirs)} %"
        if self.one_run is None:
            difference = self.cells["difference (points)"]
            return f"{said}; our one run is {difference} points from it, and one seed says no more."
        low, high = self.one_run
        between = f"{formats.percent(low)} and {formats.percent(high)} %"
        if self.falls_short:
            return f"{said}, more than runs of ours give: between {between}."
        if theirs < low:
            return f"{said}, less than runs of ours give: between {between}."
        return f"{said}, as a run of ours might give: between {between}."

    @property
    def falls_short(self) -> bool:
        """Whether the published figure is beyond what runs of ours give."""
        theirs = self.reference["accuracy"]
        known = self.is_whole and theirs is not None and self.one_run is not None
        return known and theirs > self.one_run[1]  # type: ignore[index]


def lines(report: Report, experiments: Sequence[str], kept: Path = KEPT) -> list[Line]:
    """The lines of some experiments; one that was run in several ways has a line for each.

    Args:
        report: Of the records.
        experiments: Their names.
        kept: The folder of the records.
    """
    best = dict(load_results(kept)[["folder", "best_test_accuracy"]].itertuples(index=False))
    found = []
    for name in experiments:
        file = CONFIG_DIR / "experiment" / f"{name}.yaml"
        reference = OmegaConf.to_object(OmegaConf.load(file).reference)
        assert isinstance(reference, dict)
        rows = [row for row in report.rows if row["experiment"] == name]
        for row in sorted(rows, key=lambda row: len(row["deviations"])):
            looked = tuple(float(best[folder]) for folder in row["folders"])
            looked = looked if not np.isnan(looked).any() else ()
            found.append(Line(name, reference, row, looked))
        if not rows:
            found.append(Line(name, reference))
    return found


def page(report: Report, drawn: Mapping[str, Figure]) -> str:
    """The text of docs/results.md.

    Args:
        report: Of the kept records.
        drawn: Its pictures by name.
    """
    layout = _layout()
    tables = [(table, lines(report, table["rows"])) for table in layout["tables"]]
    blocks = [INTRODUCTION.rstrip(), *_coverage([line for _, some in tables for line in some])]
    if "published" in drawn:
        blocks.append(_picture(drawn["published"], "images/results"))
    for table, some in tables:
        blocks += _table(table, some, layout["remarks"], drawn)
    blocks += _search(report, layout["search"], drawn)
    return "\n\n".join(blocks) + "\n"


def short_form(report: Report, drawn: Mapping[str, Figure]) -> str:
    """The README's table, of what was run, and its picture; arguments as of `page`."""
    some = [line for table in _layout()["tables"] for line in lines(report, table["rows"])]
    blocks = [_rows(SHORT, [line for line in some if line.row is not None])]
    if "published" in drawn:
        blocks.append(_picture(drawn["published"], "docs/images/results", caption=False))
    return "\n\n".join(blocks) + "\n"


def with_short_form(readme: str, text: str) -> str:
    """The README with another short form between its marks."""
    before, _, rest = readme.partition(START)
    _, mark, after = rest.partition(END)
    assert mark, "README.md has lost the marks around its results"
    return f"{before}{START}\n{text}\n{END}{after}"


def pictures(report: Report) -> dict[str, Figure]:
    """The pictures that the pages show, by name."""
    wanted = ("published", "search", "curves_")
    made = figures(report.sections, report.searches)
    return {figure.name: figure for figure in made if figure.name.startswith(wanted)}


def _layout() -> dict[str, Any]:
    layout = OmegaConf.to_object(OmegaConf.load(TABLES))
    assert isinstance(layout, dict)
    return layout


def _coverage(some: Sequence[Line]) -> Iterator[str]:
    whole = [f"{line.experiment} ({line.row['n']})" for line in some if line.row and line.is_whole]
    short = [line.name for line in some if line.row and not line.is_whole]
    missing = [line.experiment for line in some if line.row is None]
    said = ["What was run:", ""]
    said += [f"- the whole recipe (seeds): {', '.join(whole)}"] * bool(whole)
    said += [f"- a shorter form: {', '.join(map(markdown, short))}"] * bool(short)
    said += [f"- not run: {', '.join(missing)}"] * bool(missing)
    yield "\n".join(said)


def _table(
    table: dict[str, Any],
    some: Sequence[Line],
    remarks: dict[str, str],
    drawn: Mapping[str, Figure],
) -> Iterator[str]:
    yield f"## {table['title']}"
    yield f'From "{table["source"]}". {table["about"].strip()}'
    yield _rows(HEADINGS, some)
    said = [line.verdict for line in some if line.verdict]
    if said:
        yield "\n".join(f"- {sentence}" for sentence in said)
    for line in some:
        if line.experiment in remarks:
            yield f"**{line.experiment}**: {remarks[line.experiment].strip()}"
    nets = dict.fromkeys(line.row["model"] for line in some if line.row)
    for net in nets:
        if (figure := drawn.get(f"curves_{net}")) is not None:
            yield f"### {figure.title}"
            yield _picture(figure, "images/results")
    yield "<details><summary>Commands and records</summary>"
    for line in some:
        if line.row is None:
            yield f"{line.experiment}: {NOT_RUN}"
            yield _command(f"python -m fmbench experiment={line.experiment}")
            continue
        yield f"{markdown(line.name)}: {_records(line.row)}"
        yield _command(line.row["command"])
    yield "</details>"


def _search(report: Report, names: dict[str, str], drawn: Mapping[str, Figure]) -> Iterator[str]:
    parts = [part for part in report.searches if Path(part.folder).name == names["folder"]]
    if not parts:
        return
    yield "## LeNet: a search against the recipe"
    yield " ".join(parts[0].sentences)
    if "search" in drawn:
        yield _picture(drawn["search"], "images/results")
    for table in parts[0].tables[:1]:
        yield f"### {table.title}"
        cells = [[markdown(cell) for cell in row] for row in table.rows]
        yield _markdown_table(table.headings, cells, table.right)
    folders = [str(KEPT / names[name]) for name in ("best", "recipe")]
    if not all(map(Path.is_dir, map(Path, folders))):
        return
    found = compare(*folders, [KEPT])
    metric = METRICS["test_accuracy"]
    cells = [
        [
            markdown(text),
            metric.with_spread(row["test_accuracy"], row["test_accuracy_sd"]),
            metric.interval(row["test_accuracy_low"], row["test_accuracy_high"]),
            formats.count(row["n"]),
            formats.count(row["batch_size"]),
            formats.number(row["learning_rate"]),
            formats.count(row["epochs"]),
            formats.duration(row["seconds_train"]),
        ]
        for text, row in zip(("the search's best", "the recipe"), found.rows, strict=True)
    ]
    yield "### Its best, trained again on all 60,000 images, against the recipe"
    headings = (
        *("", "last epoch (%)", "95 % interval (%)", "n", "batch size", "learning rate"),
        *("epochs", "training time"),
    )
    yield _markdown_table(headings, cells, (False, *[True] * 7))
    yield markdown(found.sentence)
    yield "<details><summary>Commands and records</summary>"
    for row in found.rows:
        yield _records(row)
        yield _command(row["command"])
    yield "</details>"


def _rows(headings: Sequence[str], some: Sequence[Line]) -> str:
    cells = [[markdown(line.cells[heading]) for heading in headings] for line in some]
    return _markdown_table(headings, cells, [heading not in LEFT for heading in headings])


def _markdown_table(
    headings: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]
) -> str:
    rules = ["---:" if flush else "---" for flush in right]
    return "\n".join(f"| {' | '.join(row)} |" for row in [headings, rules, *cells])


def _records(row: dict[str, Any]) -> str:
    places = [Path(folder).relative_to(KEPT).as_posix() for folder in row["folders"]]
    links = (
        f"[seed {seed}](results/{place}/result.json)"
        for seed, place in zip(row["run_seeds"], places, strict=True)
    )
    return ", ".join(links)


def _command(command: str) -> str:
    return f"```sh\n{command}\n```"


def _picture(figure: Figure, folder: str, *, caption: bool = True) -> str:
    shown = f"![{markdown(figure.alt[:LONGEST_ALT])}]({folder}/{figure.name}.png)"
    return f"{shown}\n\n{markdown(figure.caption)}" if caption else shown
