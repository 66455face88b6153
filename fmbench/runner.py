"""One run end to end: config in, record out. The only module that knows all the others."""

import json
import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmbench.assembly import Inputs, make_model, make_trainer, prepare
from fmbench.cost import count_flops, count_parameters
from fmbench.device import PeakMemory, choose_precision
from fmbench.errors import UserError
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
from fmbench.train import DivergedError, Epoch, Trainer
from fmbench.weights import refuse_unkeepable, to_bytes

log = logging.getLogger(__name__)
epochs_log = logging.getLogger("fmbench.epochs")

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
    display: Callable[[int, int], Display] = display_for,
) -> Record:
    """Train one net and leave its record in `folder`, however it ends.

    Args:
        config: resolved, see `fmbench.config`.
        folder: of the run; must not hold one yet.
        choices: the option taken from each group.
        overrides: that make the run again.
        experiment: the published row that it was started from.
        deviations: what it does otherwise than that.
        config_dir: whether options could come from a folder of the user's.
        display: called with epochs and images per epoch, shows the progress.

    Returns:
        The record; its status is completed or diverged.

    Raises:
        UserError: the config, the data or the folder is at fault.
        Exception: whatever the net raised. The record says so, with status failed.
    """
    run_folder = RunFolder(folder)
    record = _blank_record(config, choices, overrides)
    record.experiment, record.deviations = experiment, list(deviations)
    record.config_dir = config_dir
    run_folder.write_record(record)
    start = time.perf_counter()
    try:
        inputs = prepare(config)
        # Reading the images is not the run's: in a sweep only the first run does it.
        start = time.perf_counter()
        _run(config, inputs, record, run_folder, display)
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
        started=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        git=git_state(),
    )


def _run(
    config: Mapping[str, Any],
    inputs: Inputs,
    record: Record,
    folder: RunFolder,
    display: Callable[[int, int], Display],
) -> None:
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
    device = replace(inputs.device, precision=precision)
    record.device = device.name
    record.fingerprint = device.fingerprint()
    memory = PeakMemory(device.torch)
    trainer = make_trainer(config, inputs, device.place(model), device, record.flops)
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
    if config["keep_model"]:
        classes = inputs.dataset.classes
        folder.write_model(to_bytes(model, config=record.config, classes=classes, key=record.key))


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
