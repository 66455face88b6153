"""From a config to the parts of a run: data, split, device, model, optimizer, trainer."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fmbench.config import checks as configuration
from fmbench.config.instantiation import instantiate
from fmbench.core.errors import ConfigError
from fmbench.data import fashion_mnist
from fmbench.data.augmentation import Augmentation
from fmbench.data.loader import EvaluationLoader, Normalization, TrainLoader
from fmbench.data.splits import Split, make_split
from fmbench.optim.schedules import Schedule
from fmbench.training import rehearsal
from fmbench.training.cost import count_parameters
from fmbench.training.device import Device, select
from fmbench.training.step import EagerStep
from fmbench.training.trainer import Trainer

#: Images evaluated at once: many for a small model, where each batch has its overhead, few for a
#: large one, which could otherwise need more memory in evaluation than in training.
_EVALUATE_SMALL, _EVALUATE_LARGE, _LARGE_FLOPS = 1000, 128, 50_000_000


@dataclass(frozen=True)
class Inputs:
    """What a run starts from, once its config has been checked."""

    dataset: fashion_mnist.Dataset
    split: Split
    augmentation: Augmentation
    normalization: Normalization
    device: Device


def read_inputs(config: Mapping[str, Any], base: Path = Path()) -> Inputs:
    """Check the config, read the data, draw the split, set up the device.

    Raises:
        ConfigError: the config asks for what cannot be.
        DataError: the data set is missing or damaged.
    """
    configuration.check(config)
    augmentation = Augmentation.from_config(config["augmentation"])
    settings = ("threads", "deterministic", "memory_format", "cuda_graphs")
    device = select(config["device"], **{name: config[name] for name in settings})
    dataset = fashion_mnist.load(config["data"], base)
    split = make_split(dataset, config["data"]["split"])
    size, images = config["batch_size"], len(split.train)
    if size > images:
        raise ConfigError(f"batch_size={size}: larger than the training part, {images} images")
    normalization = Normalization(config["data"]["mean"], config["data"]["std"])
    return Inputs(dataset, split, augmentation, normalization, device)


def rehearse(config: Mapping[str, Any]) -> None:
    """Go through all that may be refused, by a UserError, before anything is written."""
    configuration.check(config)
    model = model_on_meta(config)
    # The optimizer sees the shapes of the model's parameters, without the memory that they take;
    # of a model that only shows them later, a shape that every optimizer accepts.
    shapes = [(1, 1)] if model is None else [parameter.shape for parameter in model.parameters()]
    parameters = [nn.Parameter(torch.zeros(()).expand(shape)) for shape in shapes]
    with contextlib.suppress(RuntimeError):
        _make_schedule(config, make_optimizer(config, parameters), batches=100)
    device = read_inputs(config).device
    count = 0 if model is None else count_parameters(model)
    needed, there = 8 * count, device.memory()  # the weights and their gradients in float32
    if there is not None and needed > there:  # the system would kill the process without a word
        raise ConfigError(
            f"model: its {count:,} parameters and their gradients are {needed / 1e9:,.1f} GB, "
            f"{device.torch} has {there / 1e9:,.1f} GB"
        )


def make_trainer(
    config: Mapping[str, Any], inputs: Inputs, model: nn.Module, device: Device, flops: int | None
) -> Trainer:
    """The trainer of a model, which is tried on a batch and moved to its device.

    The device comes with its precision chosen; that of the trainer has its memory format chosen
    too. `flops` are of a forward pass, per image; None, not known, counts as large.

    Raises:
        ConfigError: the model fails on a batch; optimizer or schedule refuses its arguments.
    """
    train = make_train_loader(config, inputs, device.torch)
    small = flops is not None and flops < _LARGE_FLOPS
    at_once = _EVALUATE_SMALL if small else max(config["batch_size"], _EVALUATE_LARGE)
    validation, test = (
        EvaluationLoader(
            *_tensors(inputs.dataset, part, device.torch),
            normalization=inputs.normalization,
            batch_size=at_once,
        )
        for part in (inputs.split.validation, inputs.split.test)
    )
    device, train.joins_last = rehearsal.rehearse(
        model,
        train,
        evaluated={
            count
            for part in (validation, test)
            for count in (min(len(part), at_once), len(part) % at_once)
            if count
        },
        device=device,
    )
    optimizer = make_optimizer(config, model.parameters())
    return Trainer(
        model,
        loader=train,
        validation=validation if len(validation) else None,
        test=test if config["evaluation"]["test"] != "never" else None,
        optimizer=optimizer,
        schedule=_make_schedule(config, optimizer, batches=len(train)),
        epochs=config["epochs"],
        evaluate_every=config["evaluation"]["every"],
        make_step=partial(EagerStep, device=device, label_smoothing=config["label_smoothing"]),
        device=device,
    )


def make_train_loader(
    config: Mapping[str, Any], inputs: Inputs, device: torch.device
) -> TrainLoader:
    """The training part as `inputs` and `config` say, on a device."""
    return TrainLoader(
        *_tensors(inputs.dataset, inputs.split.train, device),
        batch_size=config["batch_size"],
        seed=config["seed"],
        augmentation=inputs.augmentation,
        normalization=inputs.normalization,
    )


def _tensors(
    dataset: fashion_mnist.Dataset, indices: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and labels at `indices` into [training set, then test set], on the device."""
    images = np.concatenate([dataset.train_images, dataset.test_images])[indices]
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])[indices]
    return torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device).long()


def make_model(config: Mapping[str, Any]) -> nn.Module:
    """The model, its weights drawn from PyTorch's global random numbers, lazy layers' last.

    Raises:
        ConfigError: it may not be built, or is no model.
    """
    model = _build(config)
    rehearsal.materialize(model)
    return model


def _build(config: Mapping[str, Any]) -> nn.Module:
    model = instantiate(config, "model")
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: {config['model']['_target_']} gives no torch.nn.Module")
    return model


def model_on_meta(config: Mapping[str, Any]) -> nn.Module | None:
    """The model on the meta device, where it has shapes but takes no time and no memory.

    None where it cannot be built there: what else is wrong with it, it raises again when it is
    built for the run.

    Raises:
        ConfigError: it may not be built, or is no model.
    """
    try:
        with torch.device("meta"):
            model = _build(config)
    except RuntimeError:
        return None
    except ConfigError as error:
        ours = config["model"]["_target_"].startswith("fmbench.")
        if ours or not isinstance(error.__cause__, (TypeError, ValueError)):
            raise
        return None
    try:
        with torch.device("meta"):
            rehearsal.materialize(model)
    except ConfigError:  # not every model runs there
        return None
    return model


def make_optimizer(
    config: Mapping[str, Any], parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer, over some parameters; a ConfigError where it refuses its arguments."""
    optimizer: torch.optim.Optimizer = instantiate(config, "optimizer", parameters)
    return optimizer


def _make_schedule(
    config: Mapping[str, Any], optimizer: torch.optim.Optimizer, *, batches: int
) -> Schedule:
    epochs = config["epochs"]
    schedule: Schedule = instantiate(config, "scheduler", optimizer, epochs=epochs, batches=batches)
    return schedule
