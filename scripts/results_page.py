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
from results_lines import HEADINGS, LEFT, Line, lines
from results_markdown import commands, picture, table
from results_search import part_of, search_picture, search_section
from results_words import coverage, made_by, shared

from fmbench import report
from fmbench.record import COMPLETED
from fmbench.report.escape import markdown
from fmbench.report.figure import Figure
from fmbench.report.figures.curves import curves
from fmbench.report.figures.published import published_figure
from fmbench.report.table import formats
from fmbench.report.table.rows import plain_rows
from fmbench.report.table.search import SearchPart
from fmbench.results import read_results

START, END = "<!-- results: written by scripts/results.py -->\n", "<!-- end of results -->\n"

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
        """Of the records.

        Raises:
            ValueError: One cannot be read.
        """
        found = report.build([self.kept])
        if found.problems:
            raise ValueError("; ".join(map(str, found.problems)))
        return found

    @cached_property
    def search(self) -> SearchPart | None:
        """The search, if tables.yaml names one.

        Raises:
            ValueError: It is not among the records.
        """
        if "search" not in self.layout:
            return None
        return part_of(self.report, self.kept / self.layout["search"]["folder"])

    @cached_property
    def tables(self) -> list[tuple[dict[str, Any], list[Line]]]:
        """Each table with its lines."""
        said = self.layout.get("search", {})
        names = [said[key] for key in ("folder", "best", "unsearched") if key in said]
        elsewhere = [self.kept / name for name in names]
        frame = read_results(self.kept).frame
        brief = ["experiment", "configuration", "device", "seed", "status", "folder"]
        unfinished = plain_rows(frame.loc[frame["status"] != COMPLETED, brief])
        return [
            (one, lines(self.report, unfinished, one["rows"], elsewhere))
            for one in self.layout["tables"]
        ]

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
                epochs = {row["epochs"] for row in alike}
                title = f"{net}, {epochs.pop()} epochs" if len(epochs) == 1 else net
                found.append(curves(title, alike, "fashion_mnist", name))
        if self.search is not None:
            found.append(search_picture(self.search))
        return {figure.name: figure for figure in found if figure is not None}

    @property
    def page(self) -> str:
        """The text of docs/results.md."""
        blocks = [
            self.layout["introduction"].strip(),
            self.layout["times"].strip(),
            coverage(self.lines, self.layout["not_run"].strip()),
        ]
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
        run = [line for line in self.lines if line.row is not None]
        blocks = [_rows(SHORT, [line for line in run if line.is_whole])]
        if "published" in self.pictures:
            blocks.append(picture(self.pictures["published"], "docs/images/results"))
        others = [markdown(line.name) for line in run if not line.is_whole]
        if others:
            blocks.append(
                "Shortened or changed, and therefore only in [all tables](docs/results.md):"
                f" {', '.join(others)}."
            )
        return "\n\n".join(blocks) + "\n"

    def _table(self, one: Mapping[str, Any], some: Sequence[Line]) -> Iterator[str]:
        alike = shared(one["rows"])
        yield f"## {one['title'].format_map(alike)}"
        yield f'From "{one["source"]}". {one["about"].format_map(alike).strip()}'
        yield _rows(HEADINGS, some)
        said = [line.verdict for line in some if line.verdict]
        if said:
            yield "\n".join(f"- {sentence}" for sentence in said)
        for name in one["rows"]:
            if name in self.layout["remarks"] and any(
                line.experiment == name and line.row is not None for line in some
            ):
                yield f"**{name}**: {self.layout['remarks'][name].strip()}"
        for name, figure in self.pictures.items():
            if name.startswith(f"curves_{one['title'][0].lower()}_"):
                yield f"### {figure.title}"
                yield picture(figure)
        yield commands((made_by(line, self.kept), _command_of(line)) for line in some)


def _command_of(line: Line) -> str:
    if line.row is None:
        return f"python -m fmbench experiment={line.experiment}"
    return str(line.row["command"])


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
