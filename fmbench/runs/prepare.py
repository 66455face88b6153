"""From a config to the parts of a run: data, split, device, net, optimizer, schedule, trainer."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import hydra.utils
import numpy as np
import torch
from hydra.errors import InstantiationException
from torch import nn

from fmbench.config import checks as configuration
from fmbench.config import whitelist
from fmbench.config.overrides import misfit
from fmbench.core.errors import ConfigError, UserError
from fmbench.data import fashion_mnist
from fmbench.data.augmentation import Augmentation
from fmbench.data.loader import EvaluationLoader, Normalization, TrainLoader
from fmbench.data.splits import Split, make_split
from fmbench.optim.schedules import Schedule
from fmbench.training import rehearsal
from fmbench.training.cost import count_parameters
from fmbench.training.device import Device, select
from fmbench.training.trainer import Trainer

#: What a class raises whose arguments do not fit.
_MISFITS = (ArithmeticError, ImportError, LookupError, TypeError, ValueError)

#: Images evaluated at once: many for a small net, where each batch has its price, few for a large
#: one, which could otherwise need more memory at the end of a run than it did all the way.
_EVALUATE_SMALL, _EVALUATE_LARGE, _LARGE_FLOPS = 1000, 128, 50_000_000


@dataclass(frozen=True)
class Inputs:
    """What a run starts from, once its config has been found sound."""

    dataset: fashion_mnist.Dataset
    split: Split
    augmentation: Augmentation
    normalization: Normalization
    device: Device


def read_inputs(config: Mapping[str, Any]) -> Inputs:
    """Check the config, read the data, draw the split, set up the device.

    Raises:
        ConfigError: the config asks for what cannot be.
        DataError: the data set is missing or damaged.
    """
    configuration.check(config)
    augmentation = Augmentation.from_config(config["augmentation"])
    device = select(
        config["device"],
        threads=config["threads"],
        deterministic=config["deterministic"],
        memory_format=config["memory_format"],
        cuda_graphs=config["cuda_graphs"],
    )
    dataset = fashion_mnist.load(config["data"])
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
    model = model_on_meta(config)
    # The optimizer and the schedule see the shapes of the net's own parameters, without the memory
    # that they take; of a net that only shows them later, one that every optimizer accepts.
    shapes = [(1, 1)] if model is None else [parameter.shape for parameter in model.parameters()]
    parameters = [nn.Parameter(torch.zeros(()).expand(shape)) for shape in shapes]
    with contextlib.suppress(RuntimeError):
        _optimizer_and_schedule(config, parameters, batches=100)
    inputs = read_inputs(config)
    if model is not None:
        _refuse_too_large(model, inputs.device)


def _refuse_too_large(model: nn.Module, device: Device) -> None:
    """Refuse a net that the system would end the process for, without a word.

    Raises:
        ConfigError: its weights and their gradients alone are more than the device's memory.
    """
    parameters = count_parameters(model)
    needed, there = 8 * parameters, device.memory()  # two float32
    if there is not None and needed > there:
        raise ConfigError(
            f"model: its {parameters:,} parameters and their gradients are {needed / 1e9:,.1f} GB, "
            f"{device.torch} has {there / 1e9:,.1f} GB"
        )


def make_trainer(
    config: Mapping[str, Any],
    inputs: Inputs,
    model: nn.Module,
    device: Device,
    flops: int | None,
) -> Trainer:
    """All that `inputs` and `config` say, around a net, which is rehearsed and moved to its device.

    Args:
        config: resolved.
        inputs: what `read_inputs` gave.
        model: on any device.
        device: with its precision chosen; that of the trainer has its memory format chosen too.
        flops: of the net; None, not known, counts as large.

    Raises:
        ConfigError: the net fails on a batch; the optimizer or the schedule refuses its numbers.
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
        label_smoothing=config["label_smoothing"],
        device=device,
    )
    optimizer, schedule = _optimizer_and_schedule(config, model.parameters(), batches=len(train))
    return Trainer(
        model,
        loader=train,
        validation=validation if len(validation) else None,
        test=test if config["evaluation"]["test"] != "never" else None,
        optimizer=optimizer,
        schedule=schedule,
        epochs=config["epochs"],
        evaluate_every=config["evaluation"]["every"],
        label_smoothing=config["label_smoothing"],
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
    from_train = indices < len(dataset.train_images)
    first, second = indices[from_train], indices[~from_train] - len(dataset.train_images)
    images = np.empty((len(indices), 28, 28), dtype=np.uint8)
    images[from_train] = dataset.train_images[first]
    images[~from_train] = dataset.test_images[second]
    labels = np.empty(len(indices), dtype=np.int64)
    labels[from_train] = dataset.train_labels[first]
    labels[~from_train] = dataset.test_labels[second]
    return torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)


def make_model(config: Mapping[str, Any]) -> nn.Module:
    """The net, its weights drawn from PyTorch's global random numbers, those of lazy layers last.

    Raises:
        ConfigError: it may not be built, or is no net.
    """
    model = _build(config)
    rehearsal.materialize(model)
    return model


def _build(config: Mapping[str, Any]) -> nn.Module:
    model = _instantiate(config, "model")
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: {config['model']['_target_']} gives no torch.nn.Module")
    return model


def model_on_meta(config: Mapping[str, Any]) -> nn.Module | None:
    """The net on the meta device, where it has shapes but costs no time and no memory.

    None where it cannot be built there, which is no fault of its own: what is wrong with it
    besides, it says again when it is built in earnest.

    Raises:
        ConfigError: it may not be built, or is no net.
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
    except ConfigError:  # not every net runs there
        return None
    return model


def _optimizer_and_schedule(
    config: Mapping[str, Any], parameters: Any, *, batches: int
) -> tuple[torch.optim.Optimizer, Schedule]:
    optimizer = make_optimizer(config, parameters)
    schedule = _instantiate(
        config, "scheduler", optimizer, epochs=config["epochs"], batches=batches
    )
    return optimizer, schedule


def make_optimizer(config: Mapping[str, Any], parameters: Any) -> torch.optim.Optimizer:
    """The optimizer, over some parameters.

    Raises:
        ConfigError: it may not be built, or refuses its numbers.
    """
    optimizer: torch.optim.Optimizer = _instantiate(config, "optimizer", parameters)
    return optimizer


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
            # What may be started around a run is none of its parts.
            _execution_whitelist_=hydra.utils.execution_whitelist(
                whitelist.execution_whitelist(group), reset=True
            ),
        )
    except (InstantiationException, *_MISFITS) as error:
        # Hydra wraps what the target raised, unless HYDRA_FULL_ERROR is set.
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, UserError):
            raise cause from None
        if cause is not None and not isinstance(cause, _MISFITS):
            raise cause from error
        text = misfit(group, config[group]) or " ".join(str(cause or error).split())
        if cause is None and "whitelist" in text:
            text = f"{text.split('. ')[0]}; {whitelist.TRUST_VARIABLE} names packages to trust"
        raise ConfigError(f"{group} ({config[group]['_target_']}): {text}") from cause or error
