"""One run end to end: config in, record out. The only module that knows all the others."""

import contextlib
import json
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmbench.assembly import make_model, make_trainer, prepare
from fmbench.checkpoint import Checkpoints
from fmbench.cost import count_flops, count_parameters
from fmbench.device import Device, PeakMemory, choose_precision, is_out_of_memory
from fmbench.errors import StorageError, UserError
from fmbench.memory import out_of_memory
from fmbench.progress import Display, Ticker, display_for, epoch_line
from fmbench.provenance import git_state
from fmbench.record import (
    COMPLETED,
    DIVERGED,
    FAILED,
    FINAL,
    INTERRUPTED,
    PRUNED,
    Record,
    keys,
    recorded_config,
    recorded_overrides,
)
from fmbench.runfolder import RunFolder, held, is_done
from fmbench.saver import Saver, now
from fmbench.stop import Listener, StopRequested, listening
from fmbench.train import DivergedError, Epoch, Trainer, evaluate
from fmbench.weights import refuse_unkeepable, to_bytes

log = logging.getLogger(__name__)
epochs_log = logging.getLogger("fmbench.epochs")

#: Told after each epoch how far a run is: epochs done, and its record. Whether to give it up.
Watch = Callable[[int, Record], bool]

#: Seconds between looks at the running means; see `Ticker`.
CPU_TICK, GPU_TICK = 0.2, 10.0


def execute(
    config: Mapping[str, Any],
    folder: Path,
    *,
    choices: Mapping[str, str],
    overrides: list[str],
    experiment: str | None = None,
    deviations: Sequence[str] = (),
    config_dir: bool = False,
    in_sweep: bool = False,
    display: Callable[[int, int], Display] = display_for,
    watch: Watch | None = None,
) -> Record:
    """Train one net and leave its record in `folder`, however it ends.

    A run that is at its end already is left as it is; one that was interrupted goes on. One that
    has not looked at the test set (`test_every=null`) and is to do so now, does that alone.

    Args:
        config: resolved, see `fmbench.config`.
        folder: of the run; must not hold another one.
        choices: the option taken from each group.
        overrides: that make the run again.
        experiment: the published row that it was started from.
        deviations: what it does otherwise than that.
        config_dir: whether options could come from a folder of the user's.
        in_sweep: whether a signal that comes too late to stop this run is to stop what follows.
        display: called with epochs and images per epoch, shows the progress.
        watch: of a search.

    Returns:
        The record; its status is completed, diverged or pruned.

    Raises:
        UserError: the config, the data or the folder is at fault.
        StopRequested: the run was asked to stop. It is saved, and the record says so, or the
            exception says that it could not be written.
        Exception: whatever the net raised. The record says so, with status failed.
    """
    record = _blank_record(config, choices, overrides)
    record.experiment, record.deviations = experiment, list(deviations)
    record.config_dir = config_dir
    with RunFolder(folder) as run_folder, listening(pass_on=in_sweep) as listener:
        before = held(folder, record.config)
        if before is not None and is_done(before, config):
            run_folder.tidy(before)
            log.info("this run has %s already; nothing is changed", before.status)
            return before
        run_folder.clean()
        if before is not None and before.status in FINAL:
            run = _Run(config, before, run_folder, listener, goes_on=True)
            with run.memory_watched():
                run.look_at_test()
            return before
        if before is not None:
            record.started, record.restarts = before.started, before.restarts
        run = _Run(config, record, run_folder, listener, goes_on=before is not None)
        run_folder.write_record(record)
        stop: KeyboardInterrupt | None = None
        try:
            with run.memory_watched():
                run.prepare()
                run.fit(display, watch)
            record.status = COMPLETED
        except _PrunedError as error:
            record.status, record.error = PRUNED, str(error)
        except DivergedError as error:
            record.status, record.error = DIVERGED, str(error)
        except KeyboardInterrupt as error:
            stop = error
            if isinstance(stop, StopRequested):
                stop.folder = folder
            record.status, record.error = INTERRUPTED, str(stop) or "stopped from the keyboard"
            raise
        except Exception as error:
            record.status, record.error = FAILED, describe(error)
            raise
        finally:
            try:
                run.end()
            except StorageError as error:
                if stop is None:
                    raise
                # That it can go on matters more than what its record says of it.
                log.warning("%s", error)
                if isinstance(stop, StopRequested):
                    stop.unrecorded = str(error)
    return record


def describe(error: BaseException) -> str:
    """An exception in one line, with its type unless it is a `UserError`."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _blank_record(
    config: Mapping[str, Any], choices: Mapping[str, str], overrides: list[str]
) -> Record:
    """The record of a run that has not begun: what is known from the config alone."""
    kept = recorded_config(config)
    # Until the images are read their names stand for them, so that no two runs share a key.
    data, split_config = config["data"]["name"], json.dumps(config["data"]["split"], default=str)
    key, row = keys(kept, data_sha256=data, split_hash=split_config)
    split = config["data"]["split"]["name"]
    name = choices.get("model", "?")
    if "name" in config["model"]:  # one option that stands for many nets: torchvision
        name = f"{name}/{config['model']['name']}"
    return Record(
        key=key,
        configuration=row,
        config=kept,
        choices=dict(choices),
        overrides=recorded_overrides(overrides),
        model=name,
        augmentation=choices.get("augmentation", "?"),
        optimizer=choices.get("optimizer", "?"),
        scheduler=choices.get("scheduler", "?"),
        data={"name": config["data"]["name"], "sha256": None},
        split={"name": split, "train": 0, "validation": 0, "test": 0, "hash": None},
        batch_size=config["batch_size"],
        learning_rate=_float(config["optimizer"].get("lr")),
        epochs=config["epochs"],
        seed=config["seed"],
        reference=config["reference"],
        started=now(),
        git=git_state(),
    )


class _PrunedError(Exception):
    """A search has given the run up."""


class _Run:
    """One run in its folder.

    Args:
        config: resolved.
        record: of the run, brought up to date as it goes.
        folder: where it is kept.
        listener: hears what asks the run to stop.
        goes_on: whether the folder holds it already, interrupted.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        record: Record,
        folder: RunFolder,
        listener: Listener,
        *,
        goes_on: bool,
    ) -> None:
        self.config = config
        self.record = record
        self.folder = folder
        self.listener = listener
        self.goes_on = goes_on
        self.start = time.perf_counter()  # earlier than it was by the time of earlier starts
        self.device: Device | None = None
        self.checkpoints = Checkpoints(*folder.checkpoints, every=config["checkpoint_every"])
        self.trainer: Trainer | None = None

    @contextlib.contextmanager
    def memory_watched(self) -> Iterator[None]:
        """Turn a lack of memory into a line that says what fits.

        Raises:
            OutOfMemoryError: there was too little.
        """
        try:
            yield
        except Exception as error:
            if self.device is None or not is_out_of_memory(error):
                raise
            self.trainer = None  # and with it the net
            raise out_of_memory(
                error, self.config, self.inputs, self.device, self.record.flops
            ) from None

    def prepare(self) -> None:
        """Read the data, build the net and all around it, go on from a checkpoint if there is one.

        Raises:
            UserError: the config, the data or the folder is at fault.
        """
        config, record = self.config, self.record
        self.inputs = inputs = prepare(config)
        # Reading the images is not the run's: in a sweep only the first run does it.
        self.start = time.perf_counter()
        split = inputs.split
        record.data["sha256"] = inputs.dataset.sha256
        record.split = {
            "name": split.name,
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
            "hash": split.hash,
        }
        record.key, record.configuration = keys(record.config, inputs.dataset.sha256, split.hash)

        _seed(config["seed"])
        model = make_model(config)
        if config["keep_model"]:
            refuse_unkeepable(model)
        record.parameters = count_parameters(model)
        record.flops = count_flops(model)
        precision = choose_precision(config["precision"], inputs.device.torch, record.flops)
        self.device = device = replace(inputs.device, precision=precision)
        record.device = device.name
        record.fingerprint = device.fingerprint()
        self.memory = PeakMemory(device.torch)
        self.trainer = make_trainer(config, inputs, device.place(model), device, record.flops)
        log.info(
            "%s (%s parameters) on %s, %s split: %s train, %s validation, %s test; %s, %s",
            record.model,
            f"{record.parameters:,}",
            record.data["name"],
            split.name,
            *(f"{record.split[part]:,}" for part in ("train", "validation", "test")),
            device.name,
            precision,
        )

    def fit(self, display: Callable[[int, int], Display], watch: Watch | None = None) -> None:
        """Train to the last epoch and leave what is to be kept.

        Raises:
            DivergedError: the loss is no longer a number.
            _PrunedError: `watch` gives the run up.
            StopRequested: the run was asked to stop.
            StorageError: the folder cannot be written to.
        """
        config, record, trainer = self.config, self.record, self.trainer
        assert trainer is not None
        epochs, images = config["epochs"], len(self.inputs.split.train)
        saver = Saver(
            self.folder,
            trainer,
            record,
            checkpoints=self.checkpoints,
            listener=self.listener,
            since=self.start,
        )
        if self.goes_on:
            saver.resume(images)
            self.folder.write_record(record)  # that it was started again outlives a second kill
        self.start = saver.since
        with display(epochs, images) as shown:
            shown.begin(trainer.position.epoch * images + trainer.position.seen)
            on_gpu = trainer.device.torch.type == "cuda"
            ticker = Ticker(shown, GPU_TICK if on_gpu else CPU_TICK)
            peak = record.peak_memory or 0  # of the run's earlier starts
            for epoch in trainer.fit(ticker, saver.between):
                line = epoch_line(epoch, epochs, images)
                epochs_log.info(line)
                shown.ended(epoch, line)
                history = _history(epoch)
                self.folder.append_history(history)
                _keep(record, epoch, trainer, images, looks_often=bool(config["test_every"]))
                record.peak_memory = max(peak, self.memory.bytes or 0) or None
                if epoch.predictions is not None and epoch.epoch + 1 == epochs:
                    self.folder.write_predictions(epoch.predictions.numpy())
                if watch is not None and watch(epoch.epoch + 1, record):
                    raise _PrunedError(f"given up after epoch {epoch.epoch + 1} of {epochs}")
                saver.after_epoch(history)
        self._keep_model(trainer)
        if config["keep_checkpoint"]:
            saver.save()

    def look_at_test(self) -> None:
        """Evaluate a run that has completed on the test set, which it has not seen so far.

        Raises:
            StorageError: it kept no checkpoint, or the folder cannot be written to.
        """
        record = self.record
        state = self.checkpoints.read()
        if state is None:
            raise StorageError(
                f"{self.folder.path}: the run has completed without a look at the test set, and "
                "kept no checkpoint to look with (keep_checkpoint=true)"
            )
        trained_on = record.device, record.fingerprint
        self.prepare()
        record.device, record.fingerprint = trained_on
        trainer = self.trainer
        assert trainer is not None
        trainer.load_state_dict(state["trainer"])
        assert trainer.test is not None
        start = time.perf_counter()
        metrics, predictions = evaluate(trainer.model, trainer.test, device=trainer.device)
        seconds = time.perf_counter() - start
        record.test_loss, record.test_accuracy = metrics.loss, metrics.accuracy
        record.seconds["evaluate"] += seconds
        record.seconds["total"] += seconds
        kept = recorded_config(self.config)
        record.config = kept
        self.folder.write_predictions(predictions.numpy())
        self._keep_model(trainer)
        self.folder.write_record(record)
        if not self.config["keep_checkpoint"]:
            self.checkpoints.remove()

    def _keep_model(self, trainer: Trainer) -> None:
        if self.config["keep_model"]:
            content = to_bytes(
                trainer.model,
                config=self.record.config,
                classes=self.inputs.dataset.classes,
                key=self.record.key,
            )
            self.folder.write_model(content)

    def end(self) -> None:
        """Write the record as it is now, and remove the checkpoints of a run that is at its end.

        Raises:
            StorageError: the folder cannot be written to.
        """
        self.record.seconds["total"] = time.perf_counter() - self.start
        self.folder.write_record(self.record)
        kept = self.config["keep_checkpoint"] and self.record.status != PRUNED
        if self.record.status in FINAL and not kept:
            self.checkpoints.remove()


def _float(value: Any) -> Any:
    """1 as 1.0; what is no number, of a config that will be refused, as it is."""
    return float(value) if isinstance(value, int) else value


def _seed(seed: int) -> None:
    """Seed every global source of random numbers that a net may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _history(epoch: Epoch) -> dict[str, Any]:
    line: dict[str, Any] = {"epoch": epoch.epoch, "learning_rate": epoch.learning_rate}
    for name in ("train", "validation", "test"):
        metrics = getattr(epoch, name)
        if metrics:
            line[f"{name}_loss"] = metrics.loss
            line[f"{name}_accuracy"] = metrics.accuracy
    line["seconds"] = epoch.seconds
    return line


def _keep(
    record: Record, epoch: Epoch, trainer: Trainer, images: int, *, looks_often: bool
) -> None:
    """Bring the record up to the epoch that has just ended."""
    record.train_loss, record.train_accuracy = epoch.train.loss, epoch.train.accuracy
    if epoch.validation:
        record.validation_loss = epoch.validation.loss
        record.validation_accuracy = epoch.validation.accuracy
    if epoch.test:
        record.test_loss, record.test_accuracy = epoch.test.loss, epoch.test.accuracy
        best = record.best_test_accuracy
        if looks_often and (best is None or epoch.test.accuracy > best):
            record.best_test_accuracy = epoch.test.accuracy
            record.best_test_epoch = epoch.epoch
    record.seconds["train"] = trainer.clocks.train
    record.seconds["evaluate"] = trainer.clocks.evaluate
    if not math.isclose(trainer.clocks.train, 0):
        record.images_per_second = images * (epoch.epoch + 1) / trainer.clocks.train
