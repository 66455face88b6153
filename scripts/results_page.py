"""The text of docs/results.md and of the README's short form, from kept records.

No figure of a run in either is typed: they come from the records, the published ones from
conf/experiment, and the words between them from docs/results/tables.yaml.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from results_lines import HEADINGS, LEFT, NOT_RUN, Line, lines, recipe
from results_markdown import command, commands, picture, table
from results_search import part_of, search_picture, search_section

from fmbench import report
from fmbench.report import formats
from fmbench.report.escape import markdown
from fmbench.report.figure import Figure
from fmbench.report.figures.curves import curves
from fmbench.report.figures.published import published_figure
from fmbench.report.search import SearchPart

START, END = "<!-- results: written by scripts/results.py -->\n", "<!-- end of results -->\n"

INTRODUCTION = """\
# Results

The rows of four earlier projects, and of what readers compare them with, run again by fmbench on
the real images, beside the published figures. The records of all runs lie in [results](results);
one command writes this page from them, `python scripts/results.py`.
`python -m fmbench.report docs/results` shows the same runs as a benchmark of their own, with ranks.
The images are the official files, in which no image occurs twice, byte for byte.

- **Last epoch** is the accuracy on the test set after the last epoch: mean and standard deviation
  over n seeds, and the 95 % interval of the mean.
- **Best epoch on test** is the highest of all looks at the test set, as the projects of tables A
  and C publish it. It is chosen by the very images it is measured on, and so too high.
- **Difference** is ours less the published figure, chosen in the same way as far as its source says
  how. Where the recipe was another one there is none.
- **One run** is where one more run of ours would land in 95 of 100 cases (mean ± t s √(1 + 1/n), by
  Student's t). Most published figures are of one run, and this is what to hold them against; of
  twenty, one outside would be no surprise.
- **Training time** is the mean of the runs' training clocks, on the device named; evaluation is
  outside."""

#: Of a README's table.
SHORT = (
    *("net", "published (%)", "last epoch (%)", "best epoch on test (%)", "difference (points)"),
    *("n", "training time", "device"),
)


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
        """Of the records."""
        return report.build([self.kept])

    @cached_property
    def search(self) -> SearchPart | None:
        """The search, if it is among the records."""
        return part_of(self.report, self.kept / self.layout["search"]["folder"])

    @cached_property
    def tables(self) -> list[tuple[dict[str, Any], list[Line]]]:
        """Each table with its lines."""
        elsewhere = [self.kept / self.layout["search"][name] for name in ("folder", "best")]
        return [(one, lines(self.report, one["rows"], elsewhere)) for one in self.layout["tables"]]

    @cached_property
    def lines(self) -> list[Line]:
        """Of all tables."""
        return [line for _, some in self.tables for line in some]

    @cached_property
    def pictures(self) -> dict[str, Figure]:
        """By name."""
        found = [published_figure(_rows_of(self.lines), "fashion_mnist", "published")]
        for one, some in self.tables:
            rows = _rows_of(some)
            for net in dict.fromkeys(row["model"] for row in rows):
                name = f"curves_{one['title'][0].lower()}_{net}"
                alike = [row for row in rows if row["model"] == net]
                found.append(curves(net, alike, "fashion_mnist", name))
        if self.search is not None:
            found.append(search_picture(self.search))
        return {figure.name: figure for figure in found if figure is not None}

    @property
    def page(self) -> str:
        """The text of docs/results.md."""
        blocks = [INTRODUCTION, self.layout["times"].strip(), *self._coverage()]
        if "published" in self.pictures:
            blocks.append(picture(self.pictures["published"]))
        for one, some in self.tables:
            blocks += self._table(one, some)
        if self.search is not None:
            said, figure = self.layout["search"], self.pictures.get("search")
            blocks += search_section(self.report, self.search, said, figure, self.kept)
        return "\n\n".join(blocks) + "\n"

    @property
    def short_form(self) -> str:
        """The README's table, of what was run, and its picture."""
        blocks = [_rows(SHORT, [line for line in self.lines if line.row is not None])]
        if "published" in self.pictures:
            blocks.append(picture(self.pictures["published"], "docs/images/results", caption=False))
        return "\n\n".join(blocks) + "\n"

    def _coverage(self) -> Iterator[str]:
        run = [line for line in self.lines if line.row is not None]
        whole = [f"{markdown(line.name)}: {_n(line)}" for line in run if line.is_whole]
        other = [f"{markdown(line.name)}: {_n(line)}" for line in run if not line.is_whole]
        missing = [line.experiment for line in self.lines if line.row is None]
        said = ["What was run:", ""]
        said += [f"- with the published recipe: {'; '.join(whole)}"] * bool(whole)
        said += [f"- with another one: {'; '.join(other)}"] * bool(other)
        said += [f"- {NOT_RUN}: {', '.join(missing)}"] * bool(missing)
        yield "\n".join(said)

    def _table(self, one: Mapping[str, Any], some: Sequence[Line]) -> Iterator[str]:
        shared = _shared(one["rows"])
        yield f"## {one['title'].format_map(shared)}"
        yield f'From "{one["source"]}". {one["about"].format_map(shared).strip()}'
        yield _rows(HEADINGS, some)
        said = [line.verdict for line in some if line.verdict]
        if said:
            yield "\n".join(f"- {sentence}" for sentence in said)
        for name in one["rows"]:
            if name in self.layout["remarks"]:
                yield f"**{name}**: {self.layout['remarks'][name].strip()}"
        for name, figure in self.pictures.items():
            if name.startswith(f"curves_{one['title'][0].lower()}_"):
                yield f"### {figure.title}"
                yield picture(figure)
        missing = []
        for line in some:
            if line.row is None:
                again = f"python -m fmbench experiment={line.experiment}"
                missing += [f"{line.experiment}: {NOT_RUN}", command(again)]
        yield commands(((line.name, line.row) for line in some if line.row), self.kept, missing)


def with_short_form(readme: str, text: str) -> str:
    """The README with another short form between its marks.

    Raises:
        ValueError: It has lost them.
    """
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError("README.md has lost the marks around its results")
    return f"{before}{START}\n{text}\n{END}{after}"


def _shared(experiments: Sequence[str]) -> dict[str, str]:
    """What all recipes of a table say alike, for its words."""
    recipes = [recipe(name) for name in experiments]
    alike = recipes[0]
    found = {
        "batch_size": alike["batch_size"],
        "epochs": alike["epochs"],
        "learning_rate": formats.number(alike["optimizer"]["lr"]),
        "milestones": ", ".join(map(str, alike.get("scheduler", {}).get("milestones", ()))),
        "batch_sizes": ", ".join(str(one["batch_size"]) for one in recipes),
    }
    for key in ("batch_size", "epochs"):
        if len({one[key] for one in recipes}) > 1:
            del found[key]
    if len({one["optimizer"]["lr"] for one in recipes}) > 1:
        del found["learning_rate"]
    return {key: str(value) for key, value in found.items()}


def _rows(headings: Sequence[str], some: Sequence[Line]) -> str:
    """The lines as a table, without the columns that say nothing."""
    known = [
        heading
        for heading in headings
        if any(line.cells[heading] != formats.MISSING for line in some)
    ]
    cells = [[markdown(line.cells[heading]) for heading in known] for line in some]
    return table(known, cells, [heading not in LEFT for heading in known])


def _rows_of(some: Sequence[Line]) -> list[dict[str, Any]]:
    return [line.row for line in some if line.row is not None]


def _n(line: Line) -> str:
    assert line.row is not None
    return "1 seed" if line.row["n"] == 1 else f"{line.row['n']} seeds"
