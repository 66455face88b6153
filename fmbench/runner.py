"""One run end to end: config in, record out. The only module that knows all the others."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
import torch
from hydra.errors import InstantiationException
from torch import nn

from fmbench import config as configuration
from fmbench import data
from fmbench.augment import Augmentation
from fmbench.cost import count_flops, count_parameters
from fmbench.device import Device, PeakMemory, choose_precision, select
from fmbench.errors import ConfigError, UserError
from fmbench.loader import EvaluationLoader, Normalization, TrainLoader
from fmbench.progress import Display, Ticker, display_for, epoch_line
from fmbench.provenance import git_state
from fmbench.record import (
    COMPLETED,
    DIVERGED,
    FAILED,
    INTERRUPTED,
    Record,
    RunFolder,
    keys,
    recorded_config,
    recorded_overrides,
)
from fmbench.schedule import Schedule
from fmbench.splits import Split, make_split
from fmbench.train import DivergedError, Epoch, Trainer

log = logging.getLogger(__name__)
epochs_log = logging.getLogger("fmbench.epochs")

#: Seconds between looks at the running means; see `Ticker`.
CPU_TICK, GPU_TICK = 0.2, 10.0


@dataclass(frozen=True)
class Inputs:
    """What a run starts from, once its config has been found sound."""

    dataset: data.Dataset
    split: Split
    augmentation: Augmentation
    normalization: Normalization
    device: Device


def prepare(config: Mapping[str, Any]) -> Inputs:
    """Check the config, read the data, draw the split, set up the device.

    Raises:
        ConfigError: the config asks for what cannot be.
        DataError: the data set is missing or damaged.
    """
    configuration.check(config)
    augmentation = Augmentation.from_config(config["augmentation"])
    device = select(
        config["device"], threads=config["threads"], deterministic=config["deterministic"]
    )
    dataset = data.load(config["data"])
    split = make_split(dataset, config["data"]["split"])
    if config["batch_size"] > len(split.train):
        raise ConfigError(
            f"batch_size={config['batch_size']}: larger than the training part, "
            f"{len(split.train)} images"
        )
    normalization = Normalization(config["data"]["mean"], config["data"]["std"])
    return Inputs(dataset, split, augmentation, normalization, device)


def rehearse(config: Mapping[str, Any]) -> None:
    """Go through all that may be refused, before anything is written.

    Raises:
        UserError: what is wrong with the config or the data.
    """
    configuration.check(config)
    # On the meta device a net costs no time and no memory. Some cannot be built there, which is no
    # fault of theirs: what they raise otherwise, they raise again in the run.
    with torch.device("meta"), contextlib.suppress(RuntimeError):
        _instantiate(config, "model")
    # Any parameter will do to see whether the optimizer and the schedule take their numbers.
    with contextlib.suppress(RuntimeError):
        _optimizer_and_schedule(config, [nn.Parameter(torch.zeros(1))], batches=100)
    prepare(config)


def execute(
    config: Mapping[str, Any],
    folder: Path,
    *,
    choices: Mapping[str, str],
    overrides: list[str],
    display: Callable[[int, int], Display] = display_for,
) -> Record:
    """Train one net and leave its record in `folder`, however it ends.

    Args:
        config: resolved, see `fmbench.config`.
        folder: of the run; must not hold one yet.
        choices: the option taken from each group.
        overrides: as typed.
        display: called with epochs and images per epoch, shows the progress.

    Returns:
        The record; its status is completed or diverged.

    Raises:
        UserError: the config, the data or the folder is at fault.
        Exception: whatever the net raised. The record says so, with status failed.
    """
    start = time.perf_counter()
    run_folder = RunFolder(folder)
    record = _blank_record(config, choices, overrides)
    try:
        _run(config, record, run_folder, display)
        record.status = COMPLETED
    except DivergedError as error:
        record.status, record.error = DIVERGED, str(error)
    except KeyboardInterrupt:
        record.status, record.error = INTERRUPTED, "stopped from the keyboard"
        raise
    except Exception as error:
        record.status, record.error = FAILED, describe(error)
        raise
    finally:
        record.seconds["total"] = time.perf_counter() - start
        run_folder.write_record(record)
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
    key, row = keys(kept, data_sha256="", split_hash="")
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
        learning_rate=config["optimizer"].get("lr"),
        epochs=config["epochs"],
        seed=config["seed"],
        started=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        git=git_state(),
    )


def _run(
    config: Mapping[str, Any],
    record: Record,
    folder: RunFolder,
    display: Callable[[int, int], Display],
) -> None:
    inputs = prepare(config)
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

    torch.manual_seed(config["seed"])
    model = _instantiate(config, "model")
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: {config['model']['_target_']} gives no torch.nn.Module")
    record.parameters = count_parameters(model)
    record.flops = count_flops(model)
    precision = choose_precision(config["precision"], inputs.device.torch, record.flops)
    device = replace(inputs.device, precision=precision)
    record.device = device.name
    record.fingerprint = device.fingerprint()
    memory = PeakMemory(device.torch)
    trainer = _trainer(config, inputs, device.place(model), device)
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
    images = len(split.train)
    with display(config["epochs"], images) as shown:
        ticker = Ticker(shown, GPU_TICK if device.torch.type == "cuda" else CPU_TICK)
        for epoch in trainer.fit(ticker):
            line = epoch_line(epoch, config["epochs"], images)
            epochs_log.info(line)
            shown.ended(epoch, line)
            folder.append_history(_history(epoch))
            _keep(record, epoch, trainer, images, looks_often=config["test_every"] > 0)
            record.peak_memory = memory.bytes
            if epoch.predictions is not None and epoch.epoch + 1 == config["epochs"]:
                folder.write_predictions(epoch.predictions.numpy())


def _trainer(
    config: Mapping[str, Any], inputs: Inputs, model: nn.Module, device: Device
) -> Trainer:
    train = TrainLoader(
        *_tensors(inputs.dataset, inputs.split.train, device.torch),
        batch_size=config["batch_size"],
        seed=config["seed"],
        augmentation=inputs.augmentation,
        normalization=inputs.normalization,
    )
    validation, test = (
        EvaluationLoader(
            *_tensors(inputs.dataset, part, device.torch), normalization=inputs.normalization
        )
        for part in (inputs.split.validation, inputs.split.test)
    )
    optimizer, schedule = _optimizer_and_schedule(config, model.parameters(), batches=len(train))
    return Trainer(
        model,
        loader=train,
        validation=validation if len(validation) else None,
        test=test,
        optimizer=optimizer,
        schedule=schedule,
        epochs=config["epochs"],
        test_every=config["test_every"],
        label_smoothing=config["label_smoothing"],
        device=device,
    )


def _tensors(
    dataset: data.Dataset, indices: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and labels at `indices` into [training set, then test set], on the device."""
    boundary = len(dataset.train_images)
    first, second = indices[indices < boundary], indices[indices >= boundary] - boundary
    from_train = indices < boundary
    images = np.empty((len(indices), 28, 28), dtype=np.uint8)
    images[from_train], images[~from_train] = (
        dataset.train_images[first],
        dataset.test_images[second],
    )
    labels = np.empty(len(indices), dtype=np.int64)
    labels[from_train], labels[~from_train] = (
        dataset.train_labels[first],
        dataset.test_labels[second],
    )
    return torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)


def _optimizer_and_schedule(
    config: Mapping[str, Any], parameters: Any, *, batches: int
) -> tuple[torch.optim.Optimizer, Schedule]:
    optimizer = _instantiate(config, "optimizer", parameters)
    schedule = _instantiate(
        config, "scheduler", optimizer, epochs=config["epochs"], batches=batches
    )
    return optimizer, schedule


def _instantiate(config: Mapping[str, Any], group: str, *args: Any, **kwargs: Any) -> Any:
    """Call the group's `_target_`, if it is one that a config may start.

    Raises:
        ConfigError: it may not be started, does not exist, or refuses its arguments.
    """
    try:
        return hydra.utils.instantiate(
            dict(config[group]),
            *args,
            **kwargs,
            _convert_="all",
            _execution_whitelist_=configuration.execution_whitelist(),
        )
    except (InstantiationException, ImportError, TypeError, ValueError) as error:
        # Hydra wraps what the target raised, unless HYDRA_FULL_ERROR is set.
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, UserError):
            raise cause from None
        if cause is not None and not isinstance(cause, (ImportError, TypeError, ValueError)):
            raise cause from error
        text = " ".join(str(cause or error).split())
        raise ConfigError(f"{group} ({config[group]['_target_']}): {text}") from error


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
