"""One run from top to bottom: from its config to its record. Resolve, prepare, fit, evaluate."""

import contextlib
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from fmbench.config.whitelist import trust_needed
from fmbench.core.console import logger
from fmbench.core.errors import ConfigError, StorageError, described, is_out_of_memory
from fmbench.core.machine import threads_asked
from fmbench.core.signals import StopRequested, listening
from fmbench.data.corruptions import CORRUPTIONS, SEVERITIES, VERSION, corrupted
from fmbench.optim.without_dynamo import without_dynamo
from fmbench.records.folder import RunFolder, held, is_done
from fmbench.records.predictions import MOST_PROBABILITIES, Part, held_out, mistakes
from fmbench.records.record import (
    COMPLETED,
    DIVERGED,
    FAILED,
    FINAL,
    INFEASIBLE,
    INTERRUPTED,
    PRUNED,
    RUNNING,
    Corrupted,
    Record,
    Split,
    recorded_config,
)
from fmbench.records.scores import scores
from fmbench.records.validation import UnreadableError
from fmbench.runs.checkpointing import METRICS, RunState, changed_since, now
from fmbench.runs.memory import out_of_memory
from fmbench.runs.prepare import make_model, make_trainer, read_inputs
from fmbench.runs.progress import CPU_TICK, GPU_TICK, Display, epoch_line
from fmbench.runs.source_code import Source, git_state, own_source
from fmbench.tracking import Tracking
from fmbench.training.cost import count_flops, count_parameters
from fmbench.training.device import (
    PeakMemory,
    choose_precision,
    settings_kept,
)
from fmbench.training.trainer import Clocks, DivergedError, Epoch, Predictions, Trainer, evaluate
from fmbench.training.weights import refuse_unkeepable, write_weights

log = logger(__name__)
epochs_log = logger("fmbench.epochs")

#: Called after each epoch: epochs done, the record; returns whether to prune the run.
Watch = Callable[[int, Record], bool]

#: Threads that runs of this process have chosen, by what they depend on: rows of a sweep compare
#: only with the same threads, so its first run chooses for those like it.
_THREADS: dict[str, int] = {}


class PrunedError(Exception):
    """The pruner stopped the run."""


class InfeasibleError(Exception):
    """The model is larger than the search allows."""


def execute(
    config: Mapping[str, Any],
    folder: Path,
    described: Mapping[str, Any],
    *,
    in_sweep: bool = False,
    shown: bool = True,
    watch: Watch | None = None,
    at_most: Mapping[str, float] | None = None,
    base: Path = Path(),
) -> Record:
    """Train one model and leave its record in `folder`, however it ends.

    A run that is at its end is left as it is; an interrupted one resumes. A completed one that was
    not evaluated on the test set, and is to be now, is evaluated.

    Args:
        config: resolved, see `fmbench.config.checks`.
        folder: of the run; must not hold another one.
        described: by `fmbench.runs.experiment.described`.
        in_sweep: whether a signal that comes too late to stop this run is to stop what follows.
        shown: whether to show the progress on standard error.
        watch: of a search.
        at_most: of a search: how many parameters, or FLOPs, a model that is trained may have.
        base: where the program was started, which relative paths start from.

    Returns:
        The record; its status is completed, diverged, infeasible or pruned.

    Raises:
        UserError: the config, the data or the folder is at fault.
        StopRequested: the run was asked to stop; it says whether the run was saved.
        Exception: whatever the model raised. The record says so, with status failed.
    """
    record = _new_record(config, described)
    tracking = Tracking(config["logger"], folder, base.absolute())
    with (
        settings_kept(),
        without_dynamo(),
        RunFolder(folder) as run_folder,
        listening(pass_on=in_sweep) as listener,
    ):
        before = held(folder, record.config, begun=True)
        if before is not None and is_done(before, config):
            run_folder.tidy(before)
            log.info("this run has %s already; nothing is changed", before.status)
            return before
        run_folder.clean()
        if before is not None and before.status in FINAL:
            before.overrides = record.overrides
            run = RunState(config, before, run_folder, listener, before=replace(before))
            with memory_advice(run):
                prepare(run, tracking, base)
                evaluate_later(run, tracking)
            return before
        if before is not None:
            record.started, record.restarts = before.started, list(before.restarts)
        run = RunState(config, record, run_folder, listener, before=before)
        with recorded(run, tracking), memory_advice(run):
            prepare(run, tracking, base, in_sweep=in_sweep, at_most=at_most or {})
            fit(run, tracking, watch, shown=shown)
    return record


def _new_record(config: Mapping[str, Any], described: Mapping[str, Any]) -> Record:
    """The record of a run that has not begun: what is known before the images are read."""
    rate, split = config["optimizer"].get("lr"), config["data"]["split"]["name"]
    record = Record(
        key="",
        configuration="",
        config=recorded_config(config),
        **described,
        **{name: config[name] for name in ("batch_size", "epochs", "seed", "reference", "tuning")},
        data={"name": config["data"]["name"], "sha256": None},
        split={"name": split, "train": 0, "validation": 0, "test": 0, "hash": None},
        learning_rate=float(rate) if isinstance(rate, int) else rate,
        trust=trust_needed(config),
        status=RUNNING,
        started=now(),
        git=git_state(),
    )
    record.set_keys()
    return record


def prepare(
    run: RunState,
    tracking: Tracking,
    base: Path,
    *,
    in_sweep: bool = False,
    at_most: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Read the data, build the model and all around it, read a checkpoint if there is one.

    Raises:
        InfeasibleError: the model is larger than `at_most`.
    """
    config, record = run.config, run.record
    if run.before is None:
        tracking.begin(record, [])
    with run.listener.at_once():  # images may have to be downloaded
        run.inputs = inputs = read_inputs(config, base)
    # Reading the images is not the run's: in a sweep only the first run does it.
    run.start = time.perf_counter()
    split, dataset = inputs.split, inputs.dataset
    train, validation, test = map(len, (split.train, split.validation, split.test))
    record.split = Split(
        name=split.name, train=train, validation=validation, test=test, hash=split.hash
    )
    if split.folds is not None:
        record.split |= {"folds": split.folds, "fold": config["data"]["split"]["fold"]}
    record.data.update(dataset.described())  # type: ignore[typeddict-item]
    if config["data"].get("limit_test") is not None:
        record.data["tested"] = split.tested
    record.set_keys()

    random.seed(config["seed"])
    np.random.seed(config["seed"] % 2**32)
    torch.manual_seed(config["seed"])
    model = make_model(config, inputs.facts)
    if config["keep_model"]:
        refuse_unkeepable(model)
    record.parameters, record.flops = count_parameters(model), count_flops(model, dataset.shape)
    _refuse_larger(record, at_most)
    precision = choose_precision(config["precision"], inputs.device.torch, record.flops)
    run.use(device := replace(inputs.device, precision=precision), model)
    trainer = make_trainer(config, inputs, model, device, record.flops)
    built = model, trainer.optimizer, trainer.schedule, trainer.step.loss
    scheduler = getattr(trainer.schedule, "scheduler", None)
    run.use(trainer.device, *built, scheduler, trainer.average)  # its memory format is chosen now
    record.joins_last_batch = trainer.loader.joins_last
    run.read_checkpoint(trainer)
    own = inputs.augmentation.transforms
    _note_source(run, own_source(config, *built, *own))
    _settle_threads(run, trainer, in_sweep=in_sweep)
    if config["compile"]:  # for so many threads
        record.seconds.setdefault("compile", trainer.compile())  # evaluated later: of training
    # After all trials, whose memory is none of the run's; the loaders hold a copy of the data.
    images = dataset.images.nbytes
    run.memory = PeakMemory(trainer.device.torch, 2 * images + 4 * record.parameters)
    log.info(
        f"{record.model} ({record.parameters:,} parameters), {record.method}, on "
        f"{record.data['name']}, {split.name} split: {train:,} train, {validation:,} validation, "
        f"{test:,} test; {record.device}, {precision}"
    )


def _refuse_larger(record: Record, at_most: Mapping[str, float]) -> None:
    """Refuse a model that is larger than a search allows, before it is trained."""
    for name, most in at_most.items():
        size = getattr(record, name)
        if size is None:
            raise ConfigError(f"sweep.at_most.{name}: cannot be counted of {record.model}")
        if size > most:
            raise InfeasibleError(f"{size:,} {name}, more than sweep.at_most.{name}={most:,}")


def _note_source(run: RunState, source: Source) -> None:
    """Take the user's own code into the identity of the run."""
    record, digest = run.record, source.digest
    if source.edited:
        files = ", ".join(source.edited)
        log.warning("%s: edited since it was imported; this run is of the code as it was", files)
    if source.missing:
        log.warning(
            "no source was found of %s as it runs (made by exec, compiled, or edited since it "
            "was imported): this run shares a row with no other",
            ", ".join(source.missing),
        )
        # Of this run alone, but the same when it resumes with the same code.
        then = (run.before.source if run.before is not None else None) or ""
        digest = then if then.endswith(f"-{digest}") else f"{secrets.token_hex(8)}-{digest}"
    record.source, record.unsourced = digest, list(source.missing)
    record.set_keys()


def _settle_threads(run: RunState, trainer: Trainer, *, in_sweep: bool) -> None:
    """Use as many threads as the run was told, has used before, or is fastest with.

    On a GPU nothing is tried: what its host does then hardly counts.
    """
    record, asked = run.record, run.config["threads"]
    if trainer.device.torch.type == "cpu":
        if asked is None:
            threads = _choose_threads(run, trainer, in_sweep=in_sweep)
            trainer.device = replace(trainer.device, threads=threads)
        typed = [text for text in record.overrides if text.startswith("threads=")]
        if not typed or asked is None:  # the same bits take the same threads
            rest = [text for text in record.overrides if text not in typed]
            record.overrides = [*rest, f"threads={trainer.device.threads}"]
    torch.set_num_threads(trainer.device.threads)
    run.use(trainer.device)


def _choose_threads(run: RunState, trainer: Trainer, *, in_sweep: bool) -> int:
    config, device, most = run.config, trainer.device, trainer.device.threads
    if run.checkpoint is not None:
        # Of the checkpoint: a start that was killed has not written its threads anywhere else.
        with contextlib.suppress(UnreadableError, KeyError, TypeError):  # refused when it is loaded
            used = Record.from_json(run.checkpoint["record"]).fingerprint["threads"]
            if used is not None:
                return max(1, min(used, most))
    if threads_asked() is not None:
        return most
    speed = config["model"], config["optimizer"]["_target_"], config["batch_size"]
    alike = f"{run.folder.path.parent}, {device.fingerprint()}, {speed}"
    if in_sweep and alike in _THREADS:
        return _THREADS[alike]
    try:
        fastest = trainer.faster_threads(run.record.flops)
    except Exception as error:  # noqa: BLE001 - the run itself will say what is wrong with it
        log.debug("threads cannot be tried: %r", error)
        fastest = most
    if fastest < most:
        log.info("one thread trains faster than %d now: the cores have other work too", most)
    _THREADS[alike] = fastest
    return fastest


def fit(
    run: RunState, tracking: Tracking, watch: Watch | None = None, *, shown: bool = True
) -> None:
    """Train to the last epoch, evaluate on the way, keep what is to be kept.

    Raises:
        DivergedError: the loss is no longer a number.
        PrunedError: `watch` prunes the run.
        StopRequested: the run was asked to stop.
    """
    config, record, trainer = run.config, run.record, run.trainer
    if run.before is not None:
        run.resume()
        tracking.begin(record, run.history)
    else:
        run.write_record()  # with the images and the device: who looks at the run counts by them
    epochs, images = config["epochs"], len(trainer.loader.labels)
    seen = trainer.position.epoch * images + trainer.position.seen
    tick = GPU_TICK if trainer.device.torch.type == "cuda" else CPU_TICK
    peak = record.peak_memory or 0  # of the run's earlier starts
    with Display(epochs, images, seen, shown=shown, tick=tick) as display:
        for epoch in trainer.fit(display.report, run.after_batch):
            line = epoch_line(epoch, epochs, images)
            epochs_log.info(line)
            display.ended(line)
            history = _history(epoch, trainer.clocks)
            run.folder.append_history(history)
            tracking.epoch({name: x for name, x in history.items() if x is not None})
            _note_epoch(run, epoch, history)
            most = run.memory.bytes
            record.peak_memory = None if most is None else max(peak, most)
            if epoch.answers is not None and epoch.last:
                _keep_predictions(run, epoch.answers)
            if epoch.validated is not None and epoch.last:
                _keep_held_out(run, epoch.validated)
            if watch is not None and watch(epoch.epoch + 1, record) and not epoch.last:
                raise PrunedError(
                    f"stopped by the pruner after epoch {epoch.epoch + 1} of {epochs}"
                )
            run.after_epoch(history)
    with trainer.evaluating():
        seconds = _evaluate_corrupted(run, run.after_batch)
    trainer.clocks.evaluate += seconds
    record.seconds["evaluate"] += seconds
    _keep_model(run)
    later = config["evaluation"]["test"] == "never"
    if config["keep_checkpoint"] and not run.save() and later:
        raise StorageError(
            f"{run.folder.path}: the checkpoint that a later evaluation on the test set "
            "needs cannot be written"
        )


def _note_epoch(run: RunState, epoch: Epoch, history: Mapping[str, Any]) -> None:
    """Bring the record up to the epoch that has just ended."""
    record, clocks = run.record, run.trainer.clocks
    for name in METRICS & history.keys():
        setattr(record, name, history[name])
    best = -1.0 if record.best_test_accuracy is None else record.best_test_accuracy
    found = epoch.test.accuracy if epoch.test and run.config["evaluation"]["every"] else None
    if found is not None and found > best:
        record.best_test_accuracy, record.best_test_epoch = found, epoch.epoch
    if epoch.last and epoch.epoch + 1 < run.trainer.epochs:
        record.stopped_epoch, record.stopped_why = epoch.epoch + 1, run.trainer.early_stop.why
    record.rate_drops = list(getattr(run.trainer.schedule, "drops", ()))
    record.seconds |= {"train": clocks.train, "evaluate": clocks.evaluate}
    if clocks.train:
        done = len(run.trainer.loader.labels) * (epoch.epoch + 1)
        record.images_per_second = done / clocks.train


def evaluate_later(run: RunState, tracking: Tracking) -> None:
    """Evaluate a run that completed before on the test set, for the first time.

    Raises:
        StorageError: it kept no checkpoint.
    """
    record, trainer, trained = run.record, run.trainer, run.before
    assert trained is not None
    assert trainer.test is not None
    if run.checkpoint is None:
        raise StorageError(
            f"{run.folder.path}: the run has completed without the test set, and kept no "
            "checkpoint to evaluate now (keep_checkpoint=true)"
        )
    device, changed = record.device, changed_since(trained, replace(record, git=git_state()))
    record.device, record.fingerprint = trained.device, trained.fingerprint
    run.load_checkpoint()
    start = time.perf_counter()
    how: dict[str, Any] = {"device": trainer.device, "most": MOST_PROBABILITIES}
    how["flips"], model = trainer.flips, trainer.evaluated()
    metrics, answers = evaluate(model, trainer.test, **how)
    if run.config["keep_probabilities"] and trainer.validation is not None:
        if changed:
            log.info("probabilities of the validation images are kept of the same setting alone")
        else:
            _keep_held_out(run, evaluate(model, trainer.validation, **how)[1])  # a trial's
    _evaluate_corrupted(run)
    seconds = time.perf_counter() - start
    record.test_loss, record.test_accuracy = metrics.loss, metrics.accuracy
    if changed:
        record.evaluated = {"at": now(), "device": device, "seconds": seconds, "changed": changed}
        names = ", ".join(changed)
        log.warning("evaluated on %s: %s changed since it was trained", device, names)
    else:  # the times of two machines have no sum
        for name in ("evaluate", "total"):
            record.seconds[name] += seconds
    record.config = recorded_config(run.config)
    _keep_predictions(run, answers)
    _keep_model(run)
    run.folder.write_record(record)
    tracking.begin(record, run.history)
    tracking.end(record)
    if not run.config["keep_checkpoint"]:
        run.checkpoints.remove()


def _evaluate_corrupted(run: RunState, between: Callable[[], None] = lambda: None) -> float:
    """Evaluate on the corrupted test images, if that is asked for; nothing is chosen by it.

    Returns:
        The seconds that it took, without those of checkpoints.
    """
    chosen, trainer = run.config["evaluation"]["corruptions"], run.trainer
    if chosen is None or trainer.test is None:
        return 0.0
    names = list(CORRUPTIONS) if chosen == "all" else chosen
    log.info(
        f"corrupted test images, fmbench corruptions v{VERSION}: {len(names)} kinds in "
        f"{len(SEVERITIES)} severities, "
        f"{len(names) * len(SEVERITIES) * len(trainer.test):,} images to evaluate"
    )
    start, away = time.perf_counter(), trainer.away
    accuracies, model = {}, trainer.evaluated()
    how: dict[str, Any] = {"device": trainer.device, "flips": trainer.flips, "between": between}
    for name in names:
        loaders = [corrupted(trainer.test, name, severity) for severity in SEVERITIES]
        found = [evaluate(model, loader, **how)[0].accuracy for loader in loaders]
        accuracies[name] = [accuracy for accuracy in found if accuracy is not None]
    run.record.corrupted = Corrupted(version=VERSION, accuracies=accuracies)
    return time.perf_counter() - start - (trainer.away - away)


def _keep_predictions(run: RunState, answers: Predictions) -> None:
    """Write the predicted classes of the test images, their labels, and the mistakes."""
    test = run.trainer.test
    assert test is not None
    classes, confidences = answers.classes.numpy(), answers.confidences.numpy()
    kind = run.inputs.dataset.labels.dtype
    classes, labels = classes.astype(kind), test.labels.cpu().numpy().astype(kind)
    wrong = mistakes(classes, labels, confidences, test.images.cpu().numpy())
    run.folder.write_predictions(classes, labels, wrong)
    _keep_probabilities(run, "test", answers, labels)


def _keep_held_out(run: RunState, answers: Predictions) -> None:
    """Write the predictions on the validation images, with the numbers of the images."""
    split, kind = run.inputs.split, run.inputs.dataset.labels.dtype
    labels = run.inputs.dataset.labels[split.validation].astype(kind)
    predicted = held_out(split.validation, answers.classes.numpy().astype(kind), labels)
    kept = run.config["keep_probabilities"] and answers.probabilities is not None
    run.folder.write_held_out(predicted if kept or split.folds is not None else None)
    _keep_probabilities(run, "validation", answers, labels)


def _keep_probabilities(
    run: RunState, part: Part, answers: Predictions, labels: np.ndarray
) -> None:
    """Note the scores of a part, and write its probabilities where they are to be kept."""
    if answers.probabilities is None:
        log.info("%s: too many probabilities for scores, or to be kept", part)
        probabilities = None
    else:
        probabilities = answers.probabilities.numpy()
        run.record.scores[part] = scores(probabilities, answers.classes.numpy(), labels)
    try:
        run.folder.write_probabilities(
            part, probabilities if run.config["keep_probabilities"] else None
        )
    except StorageError as error:  # all else is worth more than they are
        log.warning("%s; the run goes on without these probabilities", error)


def _keep_model(run: RunState) -> None:
    if run.config["keep_model"]:
        write = partial(
            write_weights,
            run.trainer.evaluated(),
            config=run.record.config,
            classes=run.inputs.dataset.classes,
            shape=run.inputs.dataset.shape,
            mean=run.inputs.normalization.mean,
            std=run.inputs.normalization.std,
            key=run.record.key,
            source=own_source({"model": run.config["model"]}, run.trainer.model).digest,
            memory_format=run.trainer.device.memory_format,
        )
        run.folder.write_model(write)


@contextlib.contextmanager
def recorded(run: RunState, tracking: Tracking) -> Iterator[None]:
    """Keep the record of the run on disk: how it has ended, however it ends."""
    record = run.record
    stop: KeyboardInterrupt | None = None
    run.write_record()
    try:
        yield
        record.status = COMPLETED
    except PrunedError as error:
        record.status, record.error = PRUNED, str(error)
    except InfeasibleError as error:
        record.status, record.error = INFEASIBLE, str(error)
    except DivergedError as error:
        record.status, record.error = DIVERGED, str(error)
    except KeyboardInterrupt as error:
        stop = error
        record.status, record.error = INTERRUPTED, str(stop) or "stopped from the keyboard"
        if isinstance(stop, StopRequested):
            stop.folder = run.folder.path
            if record.fingerprint.get("device") == "cpu":  # the same bits take the same threads
                stop.again = (f"threads={record.fingerprint['threads']}",)
        raise
    except Exception as error:
        record.status, record.error = FAILED, described(error)
        raise
    finally:
        try:
            run.end()
        except StorageError as error:
            if stop is None:
                raise
            # That it can resume matters more than what its record says of it.
            log.warning("%s", error)
            if isinstance(stop, StopRequested):
                stop.unrecorded = str(error)
        finally:
            tracking.end(record)


@contextlib.contextmanager
def memory_advice(run: RunState) -> Iterator[None]:
    """Turn a lack of memory into an OutOfMemoryError that says what fits."""
    try:
        yield
    except Exception as error:
        if run.device is None or not is_out_of_memory(error):
            raise
        vars(run).pop("trainer", None)  # and with it the model
        raise out_of_memory(error, run.config, run.inputs, run.device, run.record.flops) from None


def _history(epoch: Epoch, clocks: Clocks) -> dict[str, Any]:
    """The line of `history.jsonl` for an epoch."""
    line: dict[str, Any] = {"epoch": epoch.epoch, "learning_rate": epoch.learning_rate}
    for part in ("train", "validation", "test"):
        if metrics := getattr(epoch, part):
            line |= {f"{part}_loss": metrics.loss, f"{part}_accuracy": metrics.accuracy}
    if epoch.validation:
        line["balanced_accuracy"] = epoch.validation.balanced_accuracy
    return line | {"seconds": epoch.seconds, "wall": clocks.train + clocks.evaluate}
