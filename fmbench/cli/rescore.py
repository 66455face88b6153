"""`fmbench rescore`: the numbers of records, computed again from the files of their runs."""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from fmbench.core.console import Parser, printed, run_command, say, typed_path
from fmbench.core.errors import PartialResultsError
from fmbench.records.reader import Problem, read_records
from fmbench.records.rescore import Check, Rescored, rescore

PROGRAM = "fmbench rescore"

#: Of the document that `--json` prints.
SCHEMA = 1

DESCRIPTION = """\
Compute the numbers of every completed run again from the files in its folder, and say
which records differ: accuracies, losses and scores from predictions, labels and
probabilities; training loss, accuracy and time from the history."""

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
    found = list(rescore(read_records(*arguments.folders, problems=problems)))
    document = {"schema": SCHEMA, "runs": [*map(_as_json, found)]}
    document["unreadable"] = [_text(str(problem)) for problem in problems]
    lines = [json.dumps(document)] if arguments.json else [*_lines(found, problems)]
    status = printed(PROGRAM, lambda: say(*lines))
    bad = problems or not all(run.agrees for run in found)
    return status or (PartialResultsError.exit_status if bad else 0)


def _lines(found: Sequence[Rescored], problems: Sequence[Problem]) -> Iterator[str]:
    for run in found:
        yield from (f"{_text(str(run.folder))}: {fault}" for fault in run.faults)
        yield from (
            f"{_text(str(run.folder))}: {_said(check)}" for check in run.checks if not check.agrees
        )
    yield from (_text(str(problem)) for problem in problems)
    checked = [run for run in found if run.checks or run.faults]
    numbers, differ = sum(len(run.checks) for run in found), sum(not run.agrees for run in found)
    yield (
        f"{len(found):,} completed runs: {len(checked) - differ:,} agree with their files in "
        f"{numbers:,} numbers in all, {differ:,} differ, {len(found) - len(checked):,} kept no "
        "files to compare with"
    )


def _said(check: Check) -> str:
    return (
        f"{check.name} is {check.recorded:.6g} in the record and {check.found:.6g} by {check.file} "
        f"(tolerance {check.tolerance:.2g})"
    )


def _as_json(run: Rescored) -> dict[str, Any]:
    checks = [
        {
            "name": check.name,
            "file": check.file,
            "recorded": check.recorded,
            "found": check.found,
            "tolerance": check.tolerance,
            "agrees": check.agrees,
        }
        for check in run.checks
    ]
    folder = _text(str(run.folder))
    return {"folder": folder, "agrees": run.agrees, "faults": [*run.faults], "numbers": checks}


def _text(path: str) -> str:
    """A path as every reader takes it, whatever bytes its name is made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, DESCRIPTION, EXAMPLES)
    what = "run folders, sweep folders, or whatever holds them"
    parser.add_argument("folders", nargs="+", type=typed_path, metavar="DIR", help=what)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


if __name__ == "__main__":
    main()
