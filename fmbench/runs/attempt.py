"""One start of a run in its folder: prepare, train, evaluate, keep what is to be kept."""

import contextlib
import math
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from fmbench.core.console import logger
from fmbench.core.errors import StorageError
from fmbench.core.machine import threads_asked
from fmbench.core.signals import Listener, StopRequested
from fmbench.records.folder import RunFolder
from fmbench.records.predictions import mistakes
from fmbench.records.provenance import git_state
from fmbench.records.record import DIVERGED, FINAL, PRUNED, Record, recorded_config
from fmbench.runs.checkpointing import Saver, changed_since, now, refuse_other_code, restore
from fmbench.runs.memory import out_of_memory
from fmbench.runs.prepare import make_model, make_trainer, read_inputs
from fmbench.runs.progress import Display, Ticker, epoch_line
from fmbench.runs.source_code import Source, own_source
from fmbench.tracking import Tracking
from fmbench.training.checkpoint import Checkpoints, bounds
from fmbench.training.cost import count_flops, count_parameters
from fmbench.training.device import Device, PeakMemory, choose_precision, is_out_of_memory
from fmbench.training.trainer import Answers, Epoch, Trainer, evaluate
from fmbench.training.weights import refuse_unkeepable, write_weights

log = logger("fmbench.runs.run")
epochs_log = logger("fmbench.epochs")

#: Told after each epoch how far a run is: epochs done, and its record. Whether to give it up.
Watch = Callable[[int, Record], bool]

#: Seconds between looks at the running means; see `Ticker`.
CPU_TICK, GPU_TICK = 0.2, 10.0


class PrunedError(Exception):
    """A search has given the run up."""


class Attempt:
    """One start of a run, which brings it to its end or as far as it comes.

    Args:
        config: resolved.
        record: of the run, brought up to date as it goes.
        folder: where it is kept.
        listener: hears what asks the run to stop.
        tracking: is told how it goes.
        before: its record as the folder holds it already, interrupted; None where it is new.
        in_sweep: whether it is one of the runs of a sweep.
    """

    #: Threads by what they depend on, of the sweeps of this process: rows of one sweep compare only
    #: with the same threads, so that its first run chooses for those like it.
    threads: ClassVar[dict[str, int]] = {}

    def __init__(
        self,
        config: Mapping[str, Any],
        record: Record,
        folder: RunFolder,
        listener: Listener,
        tracking: Tracking,
        *,
        before: Record | None,
        in_sweep: bool = False,
    ) -> None:
        self.in_sweep = in_sweep
        #: Of the newest checkpoint, until the run has gone on from it.
        self.state: dict[str, Any] | None = None
        self.config = config
        self.record = record
        self.folder = folder
        self.listener = listener
        self.tracking = tracking
        self.before = before
        self.begun = before is None  # from here on `record` knows more than `before`
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
        if self.before is None:
            self.tracking.begin(record, [])
        with self.listener.at_once():  # images may have to be downloaded
            self.inputs = inputs = read_inputs(config)
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
        record.set_keys()

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
        self.trainer = make_trainer(config, inputs, model, device, record.flops)
        self.device = self.trainer.device  # its memory format is chosen now
        if self.before is not None:
            scheduler = getattr(self.trainer.schedule, "scheduler", None)
            most = bounds(model, self.trainer.optimizer, scheduler, epochs=config["epochs"])
            self.state = self.checkpoints.read(most, self._between)
        record.joins_last_batch = self.trainer.loader.joins_last
        self._note_source(own_source(config, model, self.trainer.optimizer, self.trainer.schedule))
        device = self._settle_threads(self.trainer)
        # After all trials, whose memory is none of the run's.
        data = inputs.dataset.train_images, inputs.dataset.test_images
        own = 2 * sum(images.nbytes for images in data) + 4 * record.parameters  # its loaders too
        self.memory = PeakMemory(device.torch, own)
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

    def _between(self) -> None:
        """Stop where that is asked for, while nothing is there that would have to be saved."""
        if self.listener.asked is not None:
            raise StopRequested(self.listener.asked, saved=True)

    def _note_source(self, source: Source) -> None:
        """Take the user's own code into the identity of the run."""
        record, digest = self.record, source.digest
        if source.edited:
            log.warning(
                "%s: edited since it was imported; this run is of the code as it was",
                ", ".join(source.edited),
            )
        if source.missing:
            log.warning(
                "no source was found of %s as it runs (made by exec, compiled, or edited since it "
                "was imported): this run shares a row with no other",
                ", ".join(source.missing),
            )
            # Of this run alone, but the same when it goes on with the same code.
            then = (self.before.source if self.before is not None else None) or ""
            digest = then if then.endswith(f"-{digest}") else f"{secrets.token_hex(8)}-{digest}"
        record.source, record.unsourced = digest, list(source.missing)
        record.set_keys()

    def _settle_threads(self, trainer: Trainer) -> Device:
        """Have the run use as many threads as it was told, has used before, or is fastest with.

        On a GPU nothing is tried: what its host does then hardly counts.

        Returns:
            The device with them.
        """
        device, record = trainer.device, self.record
        on_cpu = device.torch.type == "cpu"
        if on_cpu and self.config["threads"] is None:
            device = replace(device, threads=self._threads(trainer))
        torch.set_num_threads(device.threads)
        trainer.device = self.device = device
        record.device, record.fingerprint = device.name, device.fingerprint()
        typed = [text for text in record.overrides if text.startswith("threads=")]
        if on_cpu and (not typed or self.config["threads"] is None):
            # The same bits take the same threads.
            rest = [text for text in record.overrides if text not in typed]
            record.overrides = [*rest, f"threads={device.threads}"]
        return device

    def _threads(self, trainer: Trainer) -> int:
        most = trainer.device.threads
        if self.state is not None:
            with contextlib.suppress(Exception):  # as `restore` will say
                before: int = Record.from_json(self.state["record"]).fingerprint["threads"]
                return max(1, min(before, most))
        if threads_asked() is not None:
            return most
        config, device = self.config, trainer.device
        speed = config["model"], config["optimizer"]["_target_"], config["batch_size"]
        alike = f"{self.folder.path.parent}, {device.fingerprint()}, {speed}"
        if self.in_sweep and alike in self.threads:
            return self.threads[alike]
        try:
            found = trainer.faster_threads(self.record.flops)
        except Exception as error:  # noqa: BLE001 - the run itself will say what is wrong with it
            log.debug("threads cannot be tried: %r", error)
            found = most
        if found < most:
            log.info("one thread trains faster than %d now: the cores have other work too", most)
        self.threads[alike] = found
        return found

    def fit(self, display: Callable[[int, int], Display], watch: Watch | None = None) -> None:
        """Train to the last epoch and leave what is to be kept.

        Raises:
            DivergedError: the loss is no longer a number.
            PrunedError: `watch` gives the run up.
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
        if self.before is not None:
            saver.resume(self.state, images)
            self.state = None
            self.begun = True
            self.folder.write_record(record)  # that it was started again outlives a second kill
            self.tracking.begin(record, saver.history)
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
                self.tracking.epoch(history)
                _keep(record, epoch, trainer, images, looks_often=bool(config["test_every"]))
                held = self.memory.bytes
                record.peak_memory = None if held is None else max(peak, held)
                if epoch.answers is not None and epoch.epoch + 1 == epochs:
                    self._keep_answers(epoch.answers)
                if watch is not None and watch(epoch.epoch + 1, record):
                    raise PrunedError(f"given up after epoch {epoch.epoch + 1} of {epochs}")
                saver.after_epoch(history)
        self._keep_model(trainer)
        if config["keep_checkpoint"] and not saver.save() and config["test_every"] is None:
            raise StorageError(
                f"{self.folder.path}: the checkpoint that the look at the test set needs cannot be "
                "written"
            )

    def look_at_test(self) -> None:
        """Evaluate a run that has completed on the test set, which it has not seen so far.

        Raises:
            StorageError: it kept no checkpoint, or the folder cannot be written to.
        """
        record = self.record
        lacks = StorageError(
            f"{self.folder.path}: the run has completed without a look at the test set, and "
            "kept no checkpoint to look with (keep_checkpoint=true)"
        )
        if not any(path.exists() for path in self.folder.checkpoints):
            raise lacks
        trained = replace(record)
        self.prepare()
        state = self.state
        if state is None:
            raise lacks
        refuse_other_code(trained, record, self.checkpoints.path)
        device, changed = record.device, changed_since(trained, replace(record, git=git_state()))
        record.device, record.fingerprint = trained.device, trained.fingerprint
        trainer = self.trainer
        assert trainer is not None
        _, history = restore(trainer, state, record, self.checkpoints.path)
        assert trainer.test is not None
        start = time.perf_counter()
        metrics, answers = evaluate(trainer.model, trainer.test, device=trainer.device)
        seconds = time.perf_counter() - start
        record.test_loss, record.test_accuracy = metrics.loss, metrics.accuracy
        if changed:
            record.evaluated = {
                "at": now(), "device": device, "seconds": seconds, "changed": changed
            }  # fmt: skip
            log.warning(
                "evaluated on %s: %s changed since it was trained", device, ", ".join(changed)
            )
        else:  # the times of two machines have no sum
            record.seconds = {**record.seconds, "evaluate": record.seconds["evaluate"] + seconds}
            record.seconds["total"] += seconds
        kept = recorded_config(self.config)
        record.config = kept
        self._keep_answers(answers)
        self._keep_model(trainer)
        self.folder.write_record(record)
        self.tracking.begin(record, history)
        self.tracking.end(record)
        if not self.config["keep_checkpoint"]:
            self.checkpoints.remove()

    def _keep_answers(self, answers: Answers) -> None:
        """Write what was answered on the test images, beside what is right."""
        assert self.trainer is not None
        test = self.trainer.test
        assert test is not None
        classes, confidences = (part.numpy() for part in answers)
        labels = test.labels.cpu().numpy().astype(np.uint8)
        self.folder.write_answers(
            classes, labels, mistakes(classes, labels, confidences, test.images.cpu().numpy())
        )

    def _keep_model(self, trainer: Trainer) -> None:
        if self.config["keep_model"]:
            write = partial(
                write_weights,
                trainer.model,
                config=self.record.config,
                classes=self.inputs.dataset.classes,
                key=self.record.key,
                source=own_source({"model": self.config["model"]}, trainer.model).digest,
                memory_format=trainer.device.memory_format,
            )
            self.folder.write_model(write)

    def write_record(self) -> None:
        """Write the record; until the run goes on it is what earlier starts knew, with its status.

        Raises:
            StorageError: the folder cannot be written to.
        """
        record = self.record
        if self.before is not None and not self.begun:
            record = replace(self.before, status=record.status, error=record.error)
        self.folder.write_record(record)

    def end(self) -> None:
        """Write the record as it is now, and remove the checkpoints of a run that is at its end.

        Raises:
            StorageError: the folder cannot be written to.
        """
        self.record.seconds["total"] = time.perf_counter() - self.start
        if self.record.status == DIVERGED and self.trainer is not None:
            self.record.seconds["train"] = self.trainer.clocks.train  # that of its last epoch too
        try:
            self.write_record()
        finally:
            self.tracking.end(self.record)
        kept = self.config["keep_checkpoint"] and self.record.status != PRUNED
        if self.record.status in FINAL and not kept:
            self.checkpoints.remove()


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
