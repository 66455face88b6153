"""What the end of a run says to a person."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from fmbench.config.overrides import quoted
from fmbench.config.published import in_words
from fmbench.config.whitelist import TRUST_VARIABLE, trusted
from fmbench.core.console import typed_path
from fmbench.core.errors import one_line
from fmbench.core.signals import StopRequested, said_of
from fmbench.records.record import Record


def summary(record: Record, folder: Path) -> str:
    """The end of a run, for a person."""
    split, seconds = record.split, record.seconds
    assert record.parameters is not None
    lines = {"model": f"{record.model} on {record.data['name']}, {split['name']} split"}
    if record.test_accuracy is not None:  # None: evaluation.test=never
        lines["test accuracy"] = f"{record.test_accuracy:.2%} on {split['test']:,} images"
    if record.validation_accuracy is not None:
        shown = f"{record.validation_accuracy:.2%} on {split['validation']:,} images"
        lines["validation"] = shown
    reference = record.reference or {}  # it may be a stranger's, without some of the names
    if reference.get("accuracy") is not None:
        protocol, source = in_words(reference.get("protocol")), reference.get("source")
        recipe = f"; here with {', '.join(record.deviations)}" if record.deviations else ""
        lines["published"] = f"{reference['accuracy']:.2%} ({protocol}) in {source}{recipe}"
    lines["parameters"] = f"{record.parameters:,}"
    lines["wall time"] = (
        f"{seconds['train']:.1f} s training, {seconds['evaluate']:.1f} s evaluation, "
        f"{seconds['total']:.1f} s in all"
    )
    lines["folder"] = short_path(folder)
    return "\n" + "\n".join(f"{name:<14} {one_line(value)}" for name, value in lines.items())


def sweep_line(record: Record) -> str:
    """The end of one run of a sweep."""
    found = {
        "test": record.test_accuracy,
        "validation": record.validation_accuracy,
        "training": record.train_accuracy,
    }
    known = [f"{part} accuracy {share:.2%}" for part, share in found.items() if share is not None]
    said = known[0] if known else f"training loss {record.train_loss:.4f}"
    return f"{said} in {record.seconds['train']:.1f} s training"


def stopped_line(
    stop: StopRequested, arguments: Sequence[str], *, sweep: Path | None = None
) -> str:
    """The last line of a stopped run, or of the sweep in a folder, with what resumes it."""
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
    flags, found = ("--config-dir", "-cd"), []
    for before, text in pairwise(["", *arguments]):
        key, equals, value = text.partition("=")
        if before in flags:
            found.append(str(typed_path(text).absolute()))
        elif key in flags and equals:
            found.append(f"{key}={typed_path(value).absolute()}")
        elif key.lstrip("+") == "data.root" and re.fullmatch(r"[\w.][\w./-]*", value):
            found.append(f"{key}={quoted(str(Path(value).absolute()))}")
        else:
            found.append(text)
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
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)
