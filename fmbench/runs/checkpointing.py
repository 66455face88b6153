"""The state of a run that outlives its process: how it is saved, and how a run resumes."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec

from fmbench.core.console import logger
from fmbench.core.errors import StorageError, UserError, is_out_of_memory
from fmbench.core.signals import Listener, StopRequested
from fmbench.records.folder import RunFolder
from fmbench.records.record import DIVERGED, FINAL, INFEASIBLE, PRUNED, Fingerprint, Record
from fmbench.records.validation import UnreadableError
from fmbench.runs.prepare import Inputs
from fmbench.training.checkpoint import Checkpoints, DamagedError, bounds
from fmbench.training.device import Device, PeakMemory
from fmbench.training.losses import loss_state
from fmbench.training.trainer import Trainer

log = logger(__name__)

#: The metrics of an epoch, by the names that they have in a history and in a record.
METRICS = {
    f"{part}_{what}" for part in ("train", "validation", "test") for what in ("loss", "accuracy")
} | {"balanced_accuracy"}

#: What a line of history holds.
_OF_A_LINE = {"epoch", "learning_rate", "seconds", "wall", *METRICS}

#: What a record knows of the epochs that ended.
_PROGRESS = METRICS | {
    *("best_test_accuracy", "best_test_epoch", "seconds", "images_per_second", "peak_memory"),
    *("scores", "corrupted"),
    *("stopped_epoch", "stopped_why", "rate_drops"),
}


@dataclass
class RunState:
    """One start of a run: it alone owns the run's record, clock, locked folder and checkpoints."""

    config: Mapping[str, Any]  # resolved
    record: Record  # brought up to date as the run goes on
    folder: RunFolder  # locked for this process
    listener: Listener  # notes the signals that ask the run to stop
    before: Record | None = None  # what the folder holds of earlier starts, until the run resumes
    device: Device | None = None  # None until it is chosen
    inputs: Inputs = field(init=False)  # these three are set by `fmbench.runs.run.prepare`
    trainer: Trainer = field(init=False)
    memory: PeakMemory = field(init=False)
    checkpoint: dict[str, Any] | None = None  # the newest, until the trainer resumes from it
    history: list[dict[str, Any]] = field(default_factory=list)  # of the epochs that ended

    def __post_init__(self) -> None:
        paths, every = self.folder.checkpoints, self.config["checkpoint_every"]
        self.checkpoints = Checkpoints(*paths, every=every)
        self.parts: tuple[object, ...] = ()  # that the run is built of, as far as it is
        self.start = time.perf_counter()  # of the run's total time

    def use(self, device: Device, *parts: object) -> None:
        """Note the device that the run uses from here on, and the parts it is built of, if new."""
        self.device, self.parts = device, parts or self.parts
        self.record.device = device.name
        self.record.fingerprint = cast("Fingerprint", device.fingerprint(*self.parts))

    def read_checkpoint(self, trainer: Trainer) -> None:
        """Take the trainer, and read the newest checkpoint that is whole, if there is one.

        Raises:
            StorageError: a checkpoint cannot be read, or is larger than one of this run.
        """
        self.trainer = trainer
        if self.before is not None:
            scheduler = getattr(trainer.schedule, "scheduler", None)
            most = bounds(
                trainer.model,
                trainer.optimizer,
                scheduler,
                epochs=trainer.epochs,
                loss=loss_state(trainer.step.loss),
                average=trainer.average,
            )
            self.checkpoint = self.checkpoints.read(most)

    def resume(self) -> None:
        """Resume from the checkpoint, or start again from the beginning where there is none.

        Raises:
            StorageError: the checkpoint is of another run, or of other code.
        """
        record = self.record
        restart: dict[str, Any] = {"at": now(), "epoch": 0, "images": 0, "changed": {}}
        if self.checkpoint is None:
            reason = "nothing was saved of its last start"
            if damaged := ", ".join(path.name for path in self.checkpoints.damaged):
                reason = f"what its last start saved is damaged ({damaged})"
            log.info("starts again from the beginning: %s", reason)
        else:
            restart |= self._resume_from(self.checkpoint["at"])
        self.folder.write_history(self.history)
        record.restarts.append(restart)
        self.before = None  # from here on `record` knows more
        self.folder.write_record(record)  # that it was started again outlives a second kill

    def _resume_from(self, written_at: str) -> dict[str, Any]:
        """Resume; returns where, and what has changed since the checkpoint was written."""
        record, saved = self.record, self.load_checkpoint()
        compiling = record.seconds.get("compile", 0.0)  # again in each start
        for name in _PROGRESS:
            setattr(record, name, getattr(saved, name))
        if compiling:
            record.seconds["compile"] = record.seconds.get("compile", 0.0) + compiling
        self.start -= record.seconds["total"]
        position, epochs = self.trainer.position, self.trainer.epochs
        epoch, images = min(position.epoch + 1, epochs), len(self.trainer.loader.labels)
        log.info(
            f"resumes in epoch {epoch} of {epochs}, after {position.seen:,} of its {images:,} "
            f"images (saved {written_at})"
        )
        changed = changed_since(saved, record)
        reasons = [f"{', '.join(changed)} changed since"] if changed else []
        if "git" not in changed and record.git and record.git["dirty"]:
            # Which changes the checkout had then, nobody has written down.
            reasons.append("the checkout has uncommitted changes, as it had then")
        if reasons:
            log.warning(
                "%s: the bits may be others than those of a run in one go", "; ".join(reasons)
            )
        return {"epoch": position.epoch, "images": position.seen, "changed": changed}

    def load_checkpoint(self) -> Record:
        """Load the checkpoint, which may be a stranger's, into the trainer; returns its record.

        Raises:
            StorageError: the checkpoint is of another run, of other code, or of no run.
        """
        trainer, state, path = self.trainer, self.checkpoint, self.checkpoints.path
        assert state is not None
        self.checkpoint = None
        try:
            saved = _record(state)
            _refuse_other(saved, self.record, path)
            self.history = _history(state["history"], trainer.epochs)
            trainer.load_state_dict(state["trainer"])
        except UserError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            ours = isinstance(error, (DamagedError, UnreadableError))
            reason = str(error) if ours else type(error).__name__
            raise StorageError(
                f"{path}: does not fit this model, optimizer and schedule ({reason}); remove it to "
                "start from the beginning"
            ) from error
        return saved

    def after_batch(self) -> None:
        """Save if that is due; save and raise StopRequested if the run is asked to stop."""
        self._save_if(due=self.checkpoints.due_within())

    def after_epoch(self, line: dict[str, Any]) -> None:
        """Note a line of history, and save as `after_batch` does unless it is the last."""
        self.history.append(line)
        done = self.trainer.position.epoch
        if not self.trainer.done:
            self._save_if(due=self.checkpoints.due_after(done))

    def _save_if(self, *, due: bool) -> None:
        if self.listener.asked is not None:
            raise StopRequested(self.listener.asked, saved=self.save())
        if due:
            self.save()

    def save(self) -> bool:
        """Write a checkpoint; returns whether that was possible.

        A disk that is full for a while must not end a run of days: a checkpoint that cannot be
        written is reported, and tried again when the next one is due.
        """
        with self.trainer.halt():
            self.record.seconds["total"] = time.perf_counter() - self.start
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

    def write_record(self) -> None:
        """Write the record; until the run has resumed, what earlier starts knew and its status."""
        record = self.record
        if self.before is not None:
            record = replace(self.before, status=record.status, error=record.error)
        self.folder.write_record(record)

    def end(self) -> None:
        """Write the record as it is now. A run that is at its end needs no checkpoints."""
        record = self.record
        record.seconds["total"] = time.perf_counter() - self.start
        if record.status == DIVERGED:
            record.seconds["train"] = self.trainer.clocks.train  # that of its last epoch too
        self.write_record()
        kept = self.config["keep_checkpoint"] and record.status not in (INFEASIBLE, PRUNED)
        if record.status in FINAL and not kept:
            self.checkpoints.remove()


def _record(state: dict[str, Any]) -> Record:
    """The record in a checkpoint, whose fields are of the right kinds."""
    if re.fullmatch(r"[\dTZ:-]{20}", state["at"]) is None:
        raise DamagedError("its time is not valid")
    return Record.from_json(state["record"])


def _history(text: Any, epochs: int) -> list[dict[str, Any]]:
    """The lines of history in a checkpoint, each of numbers alone."""
    lines = msgspec.json.decode(text, type=list[dict[str, int | float | None]])
    if len(lines) > epochs or any(line.keys() - _OF_A_LINE for line in lines):
        raise DamagedError("its history is not valid")
    return lines


def _refuse_other(saved: Record, record: Record, path: Path) -> None:
    """Refuse the checkpoint of another run, or of other code: a run is one of one model.

    Where no start has noted the code, the run resumes and stays in the row of its time.
    """
    if saved.source is None and record.source is not None:
        log.warning(
            "the code of %s was not noted when this run was begun: whether it was changed since "
            "is not known", record.config["model"]["_target_"],
        )  # fmt: skip
        record.source, record.unsourced = None, []
        record.set_keys()
    if saved.source != record.source:
        raise StorageError(
            f"{path}: was trained with other code: your own files, or what they import, were "
            "changed since; put them back, or take another folder"
        )
    if saved.key != record.key:
        raise StorageError(
            f"{path}: is of a run with other data or another config; remove it to start from the "
            "beginning"
        )


def changed_since(saved: Record, record: Record) -> dict[str, list[Any]]:
    """What of the fingerprint and of the code is another now: what it was and what it is."""
    then, here = ({**one.fingerprint, "git": one.git} for one in (saved, record))
    return {name: [then.get(name), here[name]] for name in here if then.get(name) != here[name]}


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
