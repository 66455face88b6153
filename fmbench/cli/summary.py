"""What the end of a run says to a person."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmbench.config.overrides import quoted
from fmbench.config.published import LAST_EPOCH, comparable, in_words
from fmbench.config.whitelist import TRUST_VARIABLE, trusted
from fmbench.core.errors import one_line
from fmbench.core.signals import StopRequested, said_of
from fmbench.records.record import Record


def summary(record: Record, folder: Path) -> str:
    """The end of a run, for a person."""
    split, seconds = record.split, record.seconds
    assert record.parameters is not None
    lines = [("model", f"{record.model} on {record.data['name']}, {split['name']} split")]
    if record.test_accuracy is not None:  # None: evaluation.test=never
        shown = f"{record.test_accuracy:.2%} on {split['test']:,} images"
        lines.append(("test accuracy", shown))
    if record.validation_accuracy is not None:
        shown = f"{record.validation_accuracy:.2%} on {split['validation']:,} images"
        lines.append(("validation", shown))
    published = record.reference and record.reference.get("accuracy") is not None
    if published and record.test_accuracy is not None:
        lines.append(("published", _published(record)))
    times = (
        f"{seconds['train']:.1f} s training, {seconds['evaluate']:.1f} s evaluation, "
        f"{seconds['total']:.1f} s in all"
    )
    lines += [
        ("parameters", f"{record.parameters:,}"),
        ("wall time", times),
        ("folder", short_path(folder)),
    ]
    return "\n" + "\n".join(f"{name:<14} {one_line(value)}" for name, value in lines)


def _published(record: Record) -> str:
    """The published accuracy, and how far this run is from it."""
    last = record.test_accuracy
    # It may be a stranger's, which has the types of ours and not all the names.
    reference: dict[str, Any] = {"protocol": None, "source": None, **(record.reference or {})}
    assert last is not None
    said = (
        f"{reference['accuracy']:.2%} ({in_words(reference['protocol'])}) in {reference['source']}"
    )
    if record.deviations:
        return f"{said}, with another recipe: here {', '.join(record.deviations)}"
    ours, of = comparable(
        reference["protocol"] or LAST_EPOCH,
        last,
        record.best_test_accuracy,
        every=record.config["evaluation"]["every"],
    )
    return f"{said}; this run {ours:.2%} ({of}), {100 * (ours - reference['accuracy']):+.2f} points"


def sweep_line(record: Record) -> str:
    """The end of one run of a sweep."""
    part, accuracy = "test", record.test_accuracy
    if accuracy is None:
        part, accuracy = "validation", record.validation_accuracy
    if accuracy is None:
        part, accuracy = "training", record.train_accuracy
    return f"{part} accuracy {accuracy:.2%} in {record.seconds['train']:.1f} s training"


def stopped_line(
    stop: StopRequested, arguments: Sequence[str], *, sweep: Path | None = None
) -> str:
    """The last line of a stopped run or sweep, with the command that resumes it.

    Args:
        stop: what ended it.
        arguments: of the command line, without the program.
        sweep: the folder of the sweep that the run is one of.
    """
    if stop.folder is None and sweep is None:
        return said_of(stop.number)
    key = "hydra.run.dir=" if sweep is None else "hydra.sweep.dir="
    folder = str(Path(sweep or stop.folder or "").absolute())
    if not folder.isprintable():  # the current one is not: its name is left out
        folder = os.path.relpath(folder)
    if "/" not in folder:
        folder = f"./{folder}"
    given = [text for text in _from_anywhere(arguments) if not text.startswith(key)]
    if sweep is None:
        keys = {text.partition("=")[0] for text in stop.again}
        given = [text for text in given if text in stop.again or text.partition("=")[0] not in keys]
        given += [text for text in stop.again if text not in given]
    command = shlex.join([_program(), "-m", "fmbench", *given, f"{key}{quoted(folder)}"])
    if names := trusted():
        command = f"{TRUST_VARIABLE}={shlex.quote(','.join(names))} {command}"
    if sweep is not None:
        return f"{stop}; resume with: {command}"
    said = f"{stop}, saved" if stop.saved else f"{stop}, could not be saved"
    if stop.unrecorded:
        said += f", its record is as it was ({stop.unrecorded})"
    how = "resume with" if stop.saved else "resume from the last checkpoint with"
    return f"{said}; {how}: {command}"


def _from_anywhere(arguments: Sequence[str]) -> list[str]:
    """Arguments whose folders are found from any other."""
    found = []
    before = ""
    for text in arguments:
        flag, equals, value = text.partition("=")
        if flag in ("--config-dir", "-cd") and equals:
            found.append(f"{flag}={Path(value).expanduser().absolute()}")
        elif before in ("--config-dir", "-cd"):
            found.append(str(Path(text).expanduser().absolute()))
        elif flag.lstrip("+") == "data.root" and re.fullmatch(r"[\w.][\w./-]*", value):
            found.append(f"{flag}={quoted(str(Path(value).absolute()))}")
        else:
            found.append(text)
        before = text
    return found


def _program() -> str:
    """The Python that runs this, as short as a shell takes it."""
    here = Path(sys.executable)
    for name in ("python", here.name):
        found = Path(shutil.which(name) or "")
        # By folder too: the Pythons of all virtual environments lead to the one they were made of.
        if found.parent == here.parent and found.samefile(here):
            return name
    return str(here)


def short_path(folder: Path) -> str:
    """The folder as short as it can be named from here."""
    try:
        return str(folder.relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
