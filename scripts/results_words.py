"""Sentences of the pages of our own results whose numbers come from records and recipes."""

from collections.abc import Sequence
from pathlib import Path

from results_lines import NOT_RUN, Line, recipe, seeds_of
from results_markdown import record_of, records

from fmbench.report.escape import markdown
from fmbench.report.table import formats


def coverage(all_lines: Sequence[Line], why: str) -> str:
    """What was run, how, and what was not, and why."""
    run = [line for line in all_lines if line.row is not None]
    missing = [line for line in all_lines if line.row is None]
    parts = {
        "with the published recipe": [line for line in run if line.is_whole],
        "shortened": [line for line in run if line.is_shortened],
        "with another recipe": [line for line in run if not (line.is_whole or line.is_shortened)],
    }
    said = ["What was and was not run:", ""]
    for kind, some in parts.items():
        if some:
            said.append(
                f"- {kind}: {'; '.join(f'{markdown(line.name)}: {_n(line)}' for line in some)}"
            )
    lost = [line for line in missing if line.lost]
    if lost:
        names = (f"{line.experiment}: {len(line.lost)}" for line in lost)
        said.append(f"- runs of which none completed: {'; '.join(names)}")
    never = [line.experiment for line in missing if not line.lost]
    if never:
        said.append(f"- {NOT_RUN}: {', '.join(never)}. {why}")
    return "\n".join(said)


def shared(experiments: Sequence[str]) -> dict[str, str]:
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


def made_by(line: Line, kept: Path) -> str:
    """What a command made: the records of the runs that completed, and of those that did not."""
    lost = [
        f"[seed {run['seed']} {run['status']}]({record_of(run['folder'], kept)})"
        for run in line.lost
    ]
    said = [line.cells["last epoch (%)"]] if line.row is None else [records(line.row, kept)]
    return f"{markdown(line.name)}: {', '.join([*said, *lost])}"


def _n(line: Line) -> str:
    assert line.row is not None
    number, others, why = seeds_of(line.row).partition(" (")
    return f"{number} {'seed' if number == '1' else 'seeds'}{others}{why}"
