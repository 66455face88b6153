"""The numbers of a record, computed again from the files of its run.

Folders may be a stranger's: files are read within bounds, and nothing in them is run.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmbench.records.predictions import (
    MOST_FLOAT32,
    PROBABILITIES_OF,
    Part,
    read_held_out,
    read_labels,
    read_predictions,
    read_probabilities,
)
from fmbench.records.reader import read_history
from fmbench.records.record import (
    COMPLETED,
    HELD_OUT_NAME,
    HISTORY_NAME,
    LABELS_NAME,
    PREDICTIONS_NAME,
    Record,
)
from fmbench.records.scores import FLOOR, of_classes, scores

#: How far a number may be from the record's: what is counted agrees but for the last bit; sums of
#: float64 but for the order in which they are added up; a loss is a sum of float32, relative to it.
COUNTED, SUMMED, LOSS = 1e-12, 1e-9, 1e-4

#: The same of scores by probabilities that were kept as float16 logarithms: relative of NLL, and of
#: the others, with two images on top, which may change places with their neighbours.
ROUNDED_NLL, ROUNDED = 2**-11, 0.002


@dataclass(frozen=True)
class Check:
    """One number of a record beside the one that the files give."""

    name: str  # of the field of the record, as test_accuracy or scores.test.nll
    file: str  # what it was computed from
    recorded: float
    found: float
    tolerance: float  # absolute

    @property
    def agrees(self) -> bool:
        """Whether the two differ by the tolerance at most."""
        return abs(self.recorded - self.found) <= self.tolerance


@dataclass(frozen=True)
class Rescored:
    """One run: its numbers that were checked, and what is wrong with its files."""

    folder: Path
    checks: tuple[Check, ...]
    faults: tuple[str, ...]  # a sentence each

    @property
    def agrees(self) -> bool:
        """Whether nothing speaks against the record."""
        return not self.faults and all(check.agrees for check in self.checks)


@dataclass(frozen=True, eq=False)
class _Answers:
    """What a run kept of a part."""

    part: Part
    predicted: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray | None
    files: tuple[str, str]  # of the predictions and of the probabilities


def rescore(runs: Iterable[tuple[Path, Record]]) -> Iterator[Rescored]:
    """Compute the numbers of completed runs again; of others there is nothing to compare with.

    Of runs with the same test images, by what their records say, the labels are compared too.
    """
    labels: dict[tuple[object, ...], tuple[Path, bytes]] = {}
    for folder, record in runs:
        if record.status != COMPLETED:
            continue
        faults = [*_missing(folder, record)]
        checks = list(_by_history(folder, record, faults))
        for answers in (_test(folder, faults), _held_out(folder, faults)):
            if answers is not None and _fits(answers, record, faults):
                checks += _by_answers(answers, record, faults)
                if answers.part == "test" and (same := _test_set(record)) is not None:
                    digest = hashlib.sha256(answers.labels.tobytes()).digest()
                    first, known = labels.setdefault(same, (folder, digest))
                    if known != digest:
                        faults.append(f"{LABELS_NAME}: not the labels of {first}, on the same data")
        yield Rescored(folder, tuple(checks), tuple(faults))


def _missing(folder: Path, record: Record) -> Iterator[str]:
    """What a run of this record has written, and is not there: its numbers cannot be checked.

    Records that are older than probabilities say nothing of what they kept.
    """
    kept = record.config.get("keep_probabilities")
    if not isinstance(kept, bool):
        return
    files = [HISTORY_NAME]
    files += [LABELS_NAME, PREDICTIONS_NAME] if record.test_accuracy is not None else []
    parts = [part for part in PROBABILITIES_OF if kept and part in record.scores]
    if record.evaluated is not None:  # elsewhere: of the validation images nothing was kept
        parts = [part for part in parts if part != "validation"]
    files += [PROBABILITIES_OF[part] for part in parts]
    for name in files:
        if not (folder / name).exists():
            yield f"{name}: is missing, so that not all numbers can be checked"


def _test_set(record: Record) -> tuple[object, ...] | None:
    sha256, split = record.data["sha256"], record.split["hash"]
    return None if None in (sha256, split) else (sha256, split, record.data.get("tested"))


def _test(folder: Path, faults: list[str]) -> _Answers | None:
    predicted, labels = read_predictions(folder), read_labels(folder)
    _refuse_strange(folder, {PREDICTIONS_NAME: predicted, LABELS_NAME: labels}, faults)
    if predicted is None or labels is None:
        return None
    probabilities = read_probabilities(folder)
    _refuse_strange(folder, {PROBABILITIES_OF["test"]: probabilities}, faults)
    files = PREDICTIONS_NAME, PROBABILITIES_OF["test"]
    return _Answers("test", predicted, labels, probabilities, files)


def _held_out(folder: Path, faults: list[str]) -> _Answers | None:
    found, probabilities = read_held_out(folder), read_probabilities(folder, "validation")
    files = HELD_OUT_NAME, PROBABILITIES_OF["validation"]
    _refuse_strange(folder, dict(zip(files, (found, probabilities), strict=True)), faults)
    if found is None:
        return None
    return _Answers("validation", found["predicted"], found["label"], probabilities, files)


def _refuse_strange(folder: Path, found: dict[str, np.ndarray | None], faults: list[str]) -> None:
    faults += [
        f"{name}: no such array as a run writes"
        for name, array in found.items()
        if array is None and (folder / name).exists()
    ]


def _fits(answers: _Answers, record: Record, faults: list[str]) -> bool:
    """Whether the files are of as many images and classes as each other and the record."""
    images, (of_classes_, of_shares) = len(answers.labels), answers.files
    said = record.split[answers.part]
    if not 0 < images == len(answers.predicted) == said:
        faults.append(
            f"{of_classes_}: {len(answers.predicted):,} predictions and {images:,} labels, and the "
            f"record says {said:,} {answers.part} images"
        )
        return False
    if answers.probabilities is None:
        return True
    rows, classes = answers.probabilities.shape
    most = int(max(answers.labels.max(), answers.predicted.max()))
    if rows == images and most < classes:
        return True
    faults.append(
        f"{of_shares}: {rows:,} images of {classes:,} classes, and {of_classes_} has {images:,} "
        f"images and a class {most}"
    )
    return False


def _by_history(folder: Path, record: Record, faults: list[str]) -> Iterator[Check]:
    """What the last line of a history repeats, and what follows from all of them."""
    history = read_history(folder)
    if not history:
        return
    if [line["epoch"] for line in history] != [*range(record.epochs)]:
        faults.append(f"{HISTORY_NAME}: does not have each of {record.epochs:,} epochs once")
        return
    last = history[-1]
    for name in ("train_loss", "train_accuracy"):
        recorded = getattr(record, name)
        if recorded is not None and name in last:
            yield Check(name, HISTORY_NAME, recorded, last[name], COUNTED)
    clock = math.fsum(line.get("seconds", math.nan) for line in history)
    if math.isfinite(clock):
        recorded = record.seconds["train"]
        yield Check("seconds.train", HISTORY_NAME, recorded, clock, 1e-6 * max(1.0, recorded))
    tests = [line.get("test_accuracy", -1.0) for line in history]
    if record.best_test_accuracy is not None and record.evaluated is None:
        best = record.best_test_accuracy
        yield Check("best_test_accuracy", HISTORY_NAME, best, max(tests), COUNTED)


def _by_answers(answers: _Answers, record: Record, faults: list[str]) -> Iterator[Check]:
    part, (file, file_of_shares) = answers.part, answers.files
    predicted, labels, probabilities = answers.predicted, answers.labels, answers.probabilities
    recorded = {
        f"{part}_accuracy": getattr(record, f"{part}_accuracy"),
        f"{part}_loss": getattr(record, f"{part}_loss"),
    }
    found = {f"{part}_accuracy": float(np.mean(predicted == labels))}
    tolerances = {f"{part}_accuracy": COUNTED}
    files = dict.fromkeys(found, file)
    if part == "validation":
        classes = int(max(labels.max(), predicted.max())) + 1
        recorded["balanced_accuracy"] = record.balanced_accuracy
        found["balanced_accuracy"] = of_classes(predicted, labels, classes)["balanced_accuracy"]
        tolerances["balanced_accuracy"], files["balanced_accuracy"] = SUMMED, file
    if probabilities is not None:
        exact = probabilities.size <= MOST_FLOAT32
        if wrong := int(_contradicted(probabilities, predicted, exact=exact).sum()):
            faults.append(
                f"{file_of_shares}: gives {wrong:,} of {len(labels):,} images another class than "
                f"{file}"
            )
        theirs = scores(probabilities, predicted, labels)
        in_record = record.scores.get(part, {})
        for name, value in theirs.items():
            assert isinstance(value, (int, float))
            key = f"scores.{part}.{name}"
            recorded[key], found[key] = in_record.get(name), value
            tolerances[key] = _tolerance(name, value, len(labels), exact=exact)
            files[key] = file_of_shares
        with np.errstate(divide="ignore"):
            least = np.log(probabilities[np.arange(len(labels)), labels]).min()
        if least > FLOOR:  # else the loss is larger than NLL
            found[f"{part}_loss"] = nll = theirs["nll"]
            tolerances[f"{part}_loss"] = nll * (LOSS + (0 if exact else ROUNDED_NLL)) + 1e-6
            files[f"{part}_loss"] = file_of_shares
    for key, value in found.items():
        if (said := recorded[key]) is not None:
            yield Check(key, files[key], said, value, tolerances[key])


def _tolerance(name: str, value: float, images: int, *, exact: bool) -> float:
    if exact or name in ("macro_f1", "balanced_accuracy", "worst_class_accuracy", "worst_class"):
        return SUMMED
    return value * ROUNDED_NLL if name == "nll" else ROUNDED + 2 / images


def _contradicted(probabilities: np.ndarray, predicted: np.ndarray, *, exact: bool) -> np.ndarray:
    """(N,) whether another class has a greater probability than the predicted one."""
    of_predicted = probabilities[np.arange(len(predicted)), predicted]
    most = probabilities.max(axis=1)
    if exact:
        return np.asarray(of_predicted < most)
    with np.errstate(divide="ignore"):
        less, more = np.log(of_predicted), np.log(most)
    return np.asarray(less < more + (less + more) / 2048 - 1e-6)
