"""`fmbench rescore`: the numbers of records, computed again from the files of their runs."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from fmbench.core.console import Parser, printed, run_command, say, typed_path
from fmbench.core.errors import PartialResultsError
from fmbench.core.files import as_text
from fmbench.records.gather import Problem
from fmbench.records.reader import read_records
from fmbench.records.rescore import Check, Rescored, rescore

PROGRAM = "fmbench rescore"

#: Of the document that `--json` prints.
SCHEMA = 1

DESCRIPTION = """\
Compute the numbers of every completed run again from the files in its folder, and say
which records differ: accuracies, losses and scores from predictions, labels and
probabilities; training loss, accuracy and time from the history. Speed, memory, other
times and what the model costs (parameters, FLOPs) stand in no other file."""

EXAMPLES = """\
examples:
  fmbench rescore multirun outputs        all runs below some folders
  fmbench rescore theirs --json           one JSON document, with every number

tolerances:
  counted (accuracies)                    1e-12
  scores, probabilities in float32        1e-9
  scores, probabilities in float16        NLL: a 2,048th of it; Brier, ECE, AURC and
                                          accuracy at 90 %: 0.002 and two images
  losses                                  a 10,000th (and, in float16, a 2,048th)
  training time                           a millionth

exit status:
  0  all records agree with their files   2  a DIR does not exist, or a wrong option
  4  one differs, or cannot be read       5  it could not be printed
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Rescore records, then exit with the status that `--help` explains."""
    run_command(PROGRAM, lambda: _rescore(_parser().parse_args(argv)), typed=argv is None)


def _rescore(arguments: argparse.Namespace) -> int:
    problems: list[Problem] = []
    counts = Counter[str]()
    found = rescore(read_records(*arguments.folders, problems=problems))

    def document() -> None:
        runs = [_as_json(run) for run in _counted(found, counts)]
        unreadable = [as_text(str(problem)) for problem in problems]
        say(json.dumps({"schema": SCHEMA, "runs": runs, "unreadable": unreadable}))

    def lines() -> None:  # as they are found: there may be 100,000 runs
        for run in _counted(found, counts):
            say(*_lines(run))
        say(*[as_text(str(problem)) for problem in problems], _total(counts))

    status = printed(PROGRAM, document if arguments.json else lines)
    bad = problems or counts["differ"]
    return status or (PartialResultsError.exit_status if bad else 0)


def _counted(found: Iterator[Rescored], counts: Counter[str]) -> Iterator[Rescored]:
    for run in found:
        how = "agree" if run.checks else "alone"
        counts.update(runs=1, numbers=len(run.checks))
        counts[how if run.agrees else "differ"] += 1
        yield run


def _lines(run: Rescored) -> list[str]:
    said = [*run.faults, *(_said(check) for check in run.checks if not check.agrees)]
    return [f"{as_text(run.folder)}: {text}" for text in said]


def _total(counts: Counter[str]) -> str:
    return (
        f"{counts['runs']:,} completed runs: {counts['agree']:,} agree with their files in "
        f"{counts['numbers']:,} numbers in all, {counts['differ']:,} differ, {counts['alone']:,} "
        "kept no files to compare with"
    )


def _said(check: Check) -> str:
    return (
        f"{check.name} is {check.recorded:.6g} in the record and {check.found:.6g} by {check.file} "
        f"(tolerance {check.tolerance:.2g})"
    )


def _as_json(run: Rescored) -> dict[str, Any]:
    checks = [asdict(check) | {"agrees": check.agrees} for check in run.checks]
    folder = as_text(run.folder)
    return {"folder": folder, "agrees": run.agrees, "faults": [*run.faults], "numbers": checks}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, DESCRIPTION, EXAMPLES)
    what = "run folders, sweep folders, or whatever holds them"
    parser.add_argument("folders", nargs="+", type=typed_path, metavar="DIR", help=what)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser
