"""The folder of a run: whose it is, and what is written into it."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from fmbench.config import schema
from fmbench.core.errors import StorageError
from fmbench.core.files import (
    LOCK_NAME,
    FolderLock,
    append_regular,
    read_regular,
    refuse_links,
    remove,
    storage_error,
    temporaries,
    whole_file,
    write_whole,
)
from fmbench.records.predictions import PROBABILITIES_OF, Part, packed, to_bytes
from fmbench.records.record import (
    CHECKPOINT_NAME,
    COMPLETED,
    FINAL,
    HELD_OUT_NAME,
    HELD_OUT_PROBABILITIES_NAME,
    HISTORY_NAME,
    LABELS_NAME,
    MISTAKES_NAME,
    MLFLOW_NAME,
    MODEL_NAME,
    MOST_BYTES,
    OLDER_CHECKPOINT_NAME,
    PREDICTIONS_NAME,
    PROBABILITIES_NAME,
    RESULT_NAME,
    RUNNING,
    Record,
    leaves,
)
from fmbench.records.trials import SEARCH_NAME
from fmbench.records.validation import UnreadableError

#: Files that a run writes after its record.
_OF_A_RUN = (
    *(HISTORY_NAME, PREDICTIONS_NAME, LABELS_NAME, MISTAKES_NAME, HELD_OUT_NAME, MODEL_NAME),
    *(PROBABILITIES_NAME, HELD_OUT_PROBABILITIES_NAME, CHECKPOINT_NAME, OLDER_CHECKPOINT_NAME),
)

#: What Hydra writes of a run's config before the run has a record, in a folder of its own.
_OF_HYDRA = {"config.yaml", "hydra.yaml", "overrides.yaml"}

#: Logs: Hydra's, and those of a shell or a cluster that starts a run in a folder made for it.
_LOGS = (".log", ".out", ".err")


class RunFolder:
    """The folder of one run, made if it is not there; no other process may use it meanwhile.

    Raises:
        StorageError: from any method, when the folder cannot be written to; from the constructor,
            when another process is at work there, or it holds links.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_links(path)
        self.lock = _locked(path)

    def __enter__(self) -> Self:
        """The folder is this process's."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others in."""
        self.lock.release()

    def clean(self) -> None:
        """Remove what a killed process left half-written."""
        for path in _half_written(self.path):
            remove(path)

    def tidy(self, record: Record) -> None:
        """Remove leftover files of a run that has ended."""
        for path in leftovers(self.path, record):
            remove(path)

    def write_record(self, record: Record) -> None:
        """Write `result.json`."""
        write_whole(self.path / RESULT_NAME, record.to_json().encode())

    def append_history(self, line: Mapping[str, Any]) -> None:
        """Add one line, an epoch, to `history.jsonl`."""
        path, text = self.path / HISTORY_NAME, (json.dumps(line) + "\n").encode()
        try:
            with open(path, "ab", buffering=0, opener=append_regular) as file:
                end = file.tell()
                if file.write(text) == len(text):
                    return
                file.truncate(end)  # a full disk takes a part of a line
        except OSError as error:
            raise storage_error(path, error) from error
        raise StorageError(f"{path}: cannot be written: the disk is full")

    def write_history(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write `history.jsonl` anew: the epochs up to a checkpoint."""
        path = self.path / HISTORY_NAME
        write_whole(path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def write_predictions(
        self, predicted: np.ndarray, labels: np.ndarray, mistakes: np.ndarray
    ) -> None:
        """Write the (N,) classes of the test images, in the split's order, and the mistakes."""
        # The predictions last: where they are, the rest is too.
        write_whole(self.path / LABELS_NAME, to_bytes(labels))
        write_whole(self.path / MISTAKES_NAME, to_bytes(mistakes))
        write_whole(self.path / PREDICTIONS_NAME, to_bytes(predicted))

    def write_held_out(self, predicted: np.ndarray | None) -> None:
        """Write the predictions on the validation images, by `held_out`."""
        self._write_or_remove(HELD_OUT_NAME, predicted)

    def write_probabilities(self, part: Part, probabilities: np.ndarray | None) -> None:
        """Write the (N, classes) probabilities of a part of the split.

        Without any, those of an earlier start, which may have had other bits, are removed.
        """
        kept = None if probabilities is None else packed(probabilities)
        self._write_or_remove(PROBABILITIES_OF[part], kept)

    def _write_or_remove(self, name: str, array: np.ndarray | None) -> None:
        if array is None:
            remove(self.path / name)
        else:
            write_whole(self.path / name, to_bytes(array))

    def write_model(self, write: Callable[[IO[bytes]], None]) -> None:
        """Write `model.safetensors`; `write` writes into the file that it is given."""
        with whole_file(self.path / MODEL_NAME) as file:
            write(file)

    @property
    def checkpoints(self) -> tuple[Path, Path]:
        """Where the newest checkpoint goes, and the one before it."""
        return self.path / CHECKPOINT_NAME, self.path / OLDER_CHECKPOINT_NAME


class SweepFolder:
    """A sweep's folder, made if it is not there, which no other sweep may use meanwhile.

    Raises:
        StorageError: it cannot be made, another sweep is at work there, Hydra cannot work there, it
            holds links, or what no sweep has left.
    """

    def __init__(self, path: Path) -> None:
        _refuse_interpolation(path)
        refuse_links(path)
        names = [entry.name for entry in _entries(path)]
        ours = all(name.endswith(_LOGS) for name in names) or {LOCK_NAME, SEARCH_NAME} & {*names}
        if not ours and not any(path.glob(f"*/{RESULT_NAME}")):
            raise StorageError(
                f"{path}: is no folder of a sweep, it holds {names[0]} and no runs; take another "
                "folder"
            )
        self.path = path
        self.made = [folder for folder in (path, *path.parents) if not folder.exists()]
        self.lock = _locked(path)

    def release(self) -> None:
        """Let others in; what was made for a sweep that did not begin goes again."""
        unused = self.made and [entry.name for entry in _entries(self.path)] == [LOCK_NAME]
        self.lock.release(remove_file=bool(unused))
        with contextlib.suppress(OSError):  # not empty
            for folder in self.made:
                folder.rmdir()


def _locked(folder: Path) -> FolderLock:
    """The lock of a folder, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    return FolderLock(folder)


def _half_written(folder: Path) -> list[Path]:
    return temporaries(folder, RESULT_NAME, MLFLOW_NAME, *_OF_A_RUN)


def leftovers(folder: Path, record: Record) -> list[Path]:
    """Files of an ended run that its process should have removed."""
    checkpoints = [folder / name for name in (CHECKPOINT_NAME, OLDER_CHECKPOINT_NAME)]
    kept = record.config.get("keep_checkpoint")
    return _half_written(folder) + [path for path in checkpoints if not kept and path.exists()]


def read_record(folder: Path) -> Record:
    """The record of a run whose folder may be a stranger's.

    Raises:
        UnreadableError: it is none, or a value in it is out of its bounds.
        OSError: it cannot be read, is no regular file, or is too large.
    """
    return Record.from_json(read_regular(folder / RESULT_NAME, MOST_BYTES[RESULT_NAME]))


def is_done(record: Record, config: Mapping[str, Any]) -> bool:
    """Whether a run, started with this config now, has ended and needs no later evaluation."""
    blind = record.status == COMPLETED and record.test_accuracy is None
    return record.status in FINAL and not (blind and config["evaluation"]["test"] != "never")


def held(folder: Path, config: Mapping[str, Any], *, begun: bool = False) -> Record | None:
    """The record of the run that a folder holds, if it holds this one; None where it holds none.

    `config` is that of the run that is to start there, as a record keeps it. `begun` says whether
    this start has written there already, or Hydra for it.

    Raises:
        StorageError: it holds another run, links, what no run has left, or what cannot be read, or
            Hydra cannot work there.
    """
    _refuse_interpolation(folder)
    refuse_links(folder)
    try:
        record = read_record(folder)
    except FileNotFoundError:
        refuse_foreign(folder, begun=begun)
        return None
    except (OSError, UnreadableError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StorageError(
            f"{folder}: its {RESULT_NAME} cannot be read ({why}); take another folder"
        ) from error
    precision = config.get("precision")
    made = record.config if precision == "auto" else as_computed(record, precision)
    whole = (schema.as_recorded(schema.NEUTRAL | dict(one)) for one in (made, config))
    usual = {key: json.dumps(value) for key, value in schema.NEUTRAL_IN_GROUPS.items()}
    there, here = (usual | {key: json.dumps(value) for key, value in leaves(one)} for one in whole)
    for key in {**there, **here}:
        # A run that was not evaluated on the test set may be now.
        later = key.startswith("evaluation.") and key not in schema.DECIDING_IN_PARTS
        now = later and there.get("evaluation.test") == '"never"'
        was, wanted = (one.get(key, "not set") for one in (there, here))
        if key not in schema.MAY_CHANGE and not now and was != wanted:
            auto = made is not record.config and key == "precision"
            way_out = "precision=auto goes on with it; else " if auto else ""
            raise StorageError(
                f"{folder}: holds a run already, another one ({key} is {was} there and {wanted} "
                f"here); {way_out}take another folder"
            )
    return record


def as_computed(record: Record, unknown: Any) -> dict[str, Any]:
    """The config of a run with the number format that `precision=auto` came to.

    Experiments left it to the hardware once, and say fp32 now. `unknown` stands for the number
    format of a run that has not chosen one yet.
    """
    if record.config.get("precision") != "auto":
        return record.config
    return {**record.config, "precision": record.fingerprint.get("precision", unknown)}


def refuse_foreign(folder: Path, *, begun: bool = False) -> None:
    """Refuse, by a StorageError, a folder without a record that holds more than a start leaves.

    It is somebody's, and files of the same names would be written over. Once this start has begun,
    handlers and callbacks of the user's own may have added any file: only what a run writes later
    is looked for then.
    """
    if (folder / RESULT_NAME).exists():
        return
    ours = {path.name for path in _half_written(folder)}
    for entry in _entries(folder):
        fits = entry.name not in _OF_A_RUN if begun else _of_a_start(entry)
        if entry.name not in ours and not fits:
            raise StorageError(
                f"{folder}: is no folder of a run, it holds {entry.name} and no {RESULT_NAME}; "
                "take another folder"
            )


def _of_a_start(entry: "os.DirEntry[str]") -> bool:
    """Whether a start may have left this before it wrote a record, or the shell that runs it."""
    if entry.is_dir(follow_symlinks=False):
        return {path.name for path in _entries(entry.path)} <= _OF_HYDRA
    return entry.name == LOCK_NAME or entry.name.endswith(_LOGS)


def _entries(folder: str | Path) -> list["os.DirEntry[str]"]:
    """What is in a folder, by name; nothing where it cannot be listed, as whoever writes says."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _refuse_interpolation(folder: Path) -> None:
    """Refuse a folder whose name Hydra would read as an interpolation."""
    if "${" in str(folder.absolute()):
        raise StorageError(f"{folder}: no folder may have '${{' in its name; take another")


def mark_ended(folder: Path, status: str, error: str) -> None:
    """Say of a run how it has ended, where its process is gone and its record says `running`.

    It may still resume from its checkpoint. Where there is no record, nothing is done.

    Raises:
        StorageError: another process is at work there, or the record cannot be written.
        ValueError, OSError: the record cannot be read.
    """
    if not (folder / RESULT_NAME).is_file():
        return
    with RunFolder(folder) as run_folder:
        record = read_record(folder)
        if record.status == RUNNING:
            record.status, record.error = status, error
            run_folder.write_record(record)
