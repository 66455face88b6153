"""Saves a run while it goes on, so that it can end at any moment and go on from there."""

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fmbench.core.console import logger
from fmbench.core.errors import StorageError, UserError
from fmbench.core.signals import Listener, StopRequested
from fmbench.records.folder import RunFolder
from fmbench.records.record import Record
from fmbench.records.validation import UnreadableError, to_row
from fmbench.training.checkpoint import Checkpoints, DamagedError
from fmbench.training.device import is_out_of_memory
from fmbench.training.restore import require_number
from fmbench.training.trainer import Trainer

log = logger(__name__)

#: What a record knows of the epochs that ended.
PROGRESS = (
    *("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"),
    *("test_loss", "test_accuracy", "best_test_accuracy", "best_test_epoch"),
    *("seconds", "images_per_second", "peak_memory"),
)

#: What a line of history holds.
_OF_A_LINE = {
    *("epoch", "learning_rate", "seconds", "train_loss", "train_accuracy"),
    *("validation_loss", "validation_accuracy", "test_loss", "test_accuracy"),
}


class Saver:
    """Writes checkpoints when they are due, and when the run is asked to stop.

    Args:
        folder: of the run.
        trainer: that trains.
        record: kept up to date by the run.
        checkpoints: where and when.
        listener: hears what asks the run to stop.
        since: of `time.perf_counter`, when the run began.
    """

    def __init__(
        self,
        folder: RunFolder,
        trainer: Trainer,
        record: Record,
        *,
        checkpoints: Checkpoints,
        listener: Listener,
        since: float,
    ) -> None:
        self.folder = folder
        self.trainer = trainer
        self.record = record
        self.checkpoints = checkpoints
        self.listener = listener
        self.since = since
        self.history: list[dict[str, Any]] = []

    def resume(self, state: dict[str, Any] | None, images: int) -> None:
        """Go on from a checkpoint; without one, from the beginning.

        Args:
            state: of the newest, as `Checkpoints.read` gave it.
            images: in an epoch.

        Raises:
            StorageError: the checkpoint is of another run, or of other code.
        """
        record = self.record
        restart = {"at": now(), "epoch": 0, "images": 0, "changed": {}}
        if state is None:
            damaged = ", ".join(path.name for path in self.checkpoints.damaged)
            why = (
                f"what its last start saved is damaged ({damaged})"
                if damaged
                else "nothing was saved of its last start"
            )
            log.info("starts again from the beginning: %s", why)
        else:
            saved, self.history = restore(self.trainer, state, record, self.checkpoints.path)
            for name in PROGRESS:
                setattr(record, name, getattr(saved, name))
            # Up to here; from here on the clock goes on.
            self.since -= record.seconds["total"]
            position = self.trainer.position
            restart |= {"epoch": position.epoch, "images": position.seen}
            restart["changed"] = changed = changed_since(saved, record)
            log.info(
                "resumes in epoch %d of %d, after %s of its %s images (saved %s)",
                min(position.epoch + 1, self.trainer.epochs),
                self.trainer.epochs,
                f"{position.seen:,}",
                f"{images:,}",
                state["at"],
            )
            reasons = [f"{', '.join(changed)} changed since"] if changed else []
            if "git" not in changed and record.git and record.git["dirty"]:
                # Which changes the checkout had then, nobody has written down.
                reasons.append("the checkout has uncommitted changes, as it had then")
            if reasons:
                log.warning(
                    "%s: the bits may be others than those of a run in one go", "; ".join(reasons)
                )
        self.folder.write_history(self.history)
        record.restarts.append(restart)

    def between(self) -> None:
        """Save if that is due or the run is asked to stop; called after every batch.

        Raises:
            StopRequested: it is.
        """
        if self.listener.asked is not None:
            self._stop(self.listener.asked)
        if self.checkpoints.due_within():
            self.save()

    def after_epoch(self, line: dict[str, Any]) -> None:
        """Note an epoch's line of history, and save as `between` does.

        Raises:
            StopRequested: the run is asked to stop, and is not at its end.
        """
        self.history.append(line)
        if self.trainer.position.epoch == self.trainer.epochs:
            return
        if self.listener.asked is not None:
            self._stop(self.listener.asked)
        if self.checkpoints.due_after(self.trainer.position.epoch):
            self.save()

    def _stop(self, number: int) -> None:
        raise StopRequested(number, saved=self.save())

    def save(self) -> bool:
        """Write a checkpoint; whether that was possible.

        A disk that is full for a while must not end a run of days: what cannot be written now is
        said, and tried again when the next one is due.
        """
        with self.trainer.halt():
            self.record.seconds["total"] = time.perf_counter() - self.since
            state = {
                "at": now(),
                "trainer": self.trainer.state_dict(),
                "record": self.record.to_json(),
                "history": json.dumps(self.history),
            }
            try:
                self.checkpoints.write(state)
            except (StorageError, DamagedError) as error:
                log.warning("no checkpoint: %s", error)
                return False
            return True


def restore(
    trainer: Trainer, state: dict[str, Any], record: Record, path: Path
) -> tuple[Record, list[dict[str, Any]]]:
    """Have a trainer go on from a checkpoint, which may be a stranger's.

    Args:
        trainer: as it was made for the run.
        state: of the checkpoint.
        record: of the run now.
        path: of the checkpoint.

    Returns:
        The record and the history of the run when the checkpoint was written.

    Raises:
        StorageError: the checkpoint is of another run, of other code, or of no run.
    """
    try:
        saved = _record(state)
        refuse_other_code(saved, record, path)
        _refuse_other_run(saved, record, path)
        history = _history(state["history"], trainer.epochs)
        trainer.load_state_dict(state["trainer"])
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        ours = isinstance(error, (DamagedError, UnreadableError))
        why = str(error) if ours else type(error).__name__
        raise StorageError(
            f"{path}: does not fit this net, optimizer and schedule ({why}); remove it to "
            "start from the beginning"
        ) from error
    return saved, history


def _record(state: dict[str, Any]) -> Record:
    """The record in a checkpoint, whose fields are of the right kinds."""
    if re.fullmatch(r"[\dTZ:-]{20}", state["at"]) is None:
        raise DamagedError("its time is none")
    values = json.loads(state["record"])
    to_row(values)
    json.dumps(values, allow_nan=False)  # parts of it get into the record of the run
    saved = Record.from_json(state["record"])
    for name in ("train", "evaluate", "total"):
        require_number(saved.seconds[name], f"record.seconds.{name}")
    return saved


def _refuse_other_run(saved: Record, record: Record, path: Path) -> None:
    if saved.key != record.key:
        raise StorageError(
            f"{path}: is of a run with other data or another config; remove it to start from the "
            "beginning"
        )


def _history(text: Any, epochs: int) -> list[dict[str, Any]]:
    """The lines of history in a checkpoint, each of numbers alone."""
    lines: list[dict[str, Any]] = json.loads(text)
    if type(lines) is not list or len(lines) > epochs:
        raise DamagedError("its history is none")
    for line in lines:
        if type(line) is not dict or not line.keys() <= _OF_A_LINE:
            raise DamagedError("its history is none")
        for value in line.values():
            require_number(value, "history")
    return lines


def refuse_other_code(saved: Record, record: Record, path: Path) -> None:
    """Refuse a checkpoint of a model whose code was another: a run is one of one model.

    Where nobody has noted the code, the run goes on and stays among those of its time.

    Args:
        saved: the record of the run when the checkpoint was written.
        record: of the run now.
        path: of the checkpoint.

    Raises:
        StorageError: the code is another now.
    """
    if saved.source == record.source:
        return
    if saved.source is None:
        log.warning(
            "the code of %s was not noted when this run was begun: whether it was changed since "
            "is not known", record.config["model"]["_target_"],
        )  # fmt: skip
        record.source, record.unsourced = None, []
        record.set_keys()
        return
    raise StorageError(
        f"{path}: was trained with other code: your own files, or what they import, were changed "
        "since; put them back, or take another folder"
    )


def changed_since(saved: Record, record: Record) -> dict[str, list[Any]]:
    """What of the fingerprint and of the code is another now: what it was and what it is."""
    then, here = ({**one.fingerprint, "git": one.git} for one in (saved, record))
    return {name: [then.get(name), here[name]] for name in here if then.get(name) != here[name]}


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
