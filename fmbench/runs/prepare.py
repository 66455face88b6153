"""From a config to the parts of a run: data, split, device, model, optimizer, trainer."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fmbench.config import checks as configuration
from fmbench.config import schema
from fmbench.config.trust import call_data, instantiate, takes
from fmbench.config.whitelist import TARGETS
from fmbench.core.console import logger
from fmbench.core.errors import ConfigError, FailedError
from fmbench.data.augmentation import Augmentation, Transform
from fmbench.data.dataset import Dataset, statistics
from fmbench.data.load import load
from fmbench.data.loader import EvaluationLoader, Normalization, TrainLoader, keeps_windows
from fmbench.data.splits import Split, make_split
from fmbench.optim.groups import Ordered, by_place, by_use, split
from fmbench.optim.schedules import Plateau, Schedule
from fmbench.optim.without_dynamo import without_dynamo
from fmbench.records.predictions import MOST_PROBABILITIES
from fmbench.training import rehearsal
from fmbench.training.averaging import Average, OptimizerAverage
from fmbench.training.cost import count_parameters
from fmbench.training.device import Device, select
from fmbench.training.early_stop import EarlyStop
from fmbench.training.losses import Loss, refuse_unusable
from fmbench.training.restore import refuse_unrecordable
from fmbench.training.step import EagerStep
from fmbench.training.trainer import Trainer

log = logger(__name__)

#: Images evaluated at once: many for a small model, where each batch has its overhead, few for a
#: large one, which could otherwise need more memory in evaluation than in training.
_EVALUATE_SMALL, _EVALUATE_LARGE, _LARGE_FLOPS = 1000, 128, 50_000_000


@dataclass(frozen=True)
class Inputs:
    """What a run starts from, once its config has been checked."""

    dataset: Dataset
    split: Split
    augmentation: Augmentation
    normalization: Normalization
    device: Device

    @property
    def facts(self) -> "ImageFacts":
        """What the model has to know of the images."""
        return ImageFacts(self.dataset.shape, len(self.dataset.classes))


def read_inputs(config: Mapping[str, Any], base: Path = Path()) -> Inputs:
    """Check the config, read the data, draw the split, set up the device.

    Raises:
        ConfigError: the config asks for what cannot be.
        DataError: the data set is missing or damaged.
    """
    configuration.check(config)
    augmentation = Augmentation.from_config(config["augmentation"], _own_transform)
    device = select(
        config["device"],
        threads=config["threads"],
        deterministic=config["deterministic"],
        memory_format=config["memory_format"],
        cuda_graphs=config["cuda_graphs"],
    )
    dataset = load(config["data"], base, call_data)
    augmentation.parts.check(min(dataset.shape[1:]))
    rehearsal.rehearse_transforms(augmentation, dataset.shape, device)
    _refuse_too_large(dataset, augmentation, device)
    for key, here in (("channels", dataset.shape[0]), ("classes", len(dataset.classes))):
        if config["model"].get(key, here) != here:
            raise ConfigError(f"model.{key}={config['model'][key]}: must be {here}, as the images")
    split = make_split(dataset, config["data"])
    if config["batch_size"] > len(split.train):
        raise ConfigError(
            f"batch_size={config['batch_size']}: larger than the training part, "
            f"{len(split.train)} images"
        )
    normalization = _normalization(config["data"], dataset, split)
    return Inputs(dataset, split, augmentation, normalization, device)


def _own_transform(option: Mapping[str, Any]) -> Transform:
    """A transform of the user's, of its `_target_`; a ConfigError where it cannot be built."""
    transform: Transform = instantiate({"augmentation.own": option}, "augmentation.own")
    if not callable(transform):
        raise ConfigError(
            f"augmentation.own ({option['_target_']}): gives a {type(transform).__name__}, must be "
            "called with images and draws"
        )
    return transform


def _refuse_too_large(dataset: Dataset, augmentation: Augmentation, device: Device) -> None:
    """Refuse images that do not fit on the device with the copy that is trained on and draws."""
    count, (_, height, width) = len(dataset.labels), dataset.shape
    there, images = device.memory(), count * math.prod(dataset.shape)
    kept = keeps_windows(augmentation, count, dataset.shape, there)
    needed = images + (augmentation.stored(count, dataset.shape) if kept else images)
    needed += augmentation.drawn(count, (height, width))
    if there is not None and needed > there:
        fits = max(4, int(min(height, width) * (there / needed) ** 0.5))
        raise ConfigError(
            f"data: {len(dataset.labels):,} images of {height} x {width} take {needed:,} bytes, "
            f"{device.torch} has {there:,}; images of your own would fit with data.size={fits}"
        )


def _normalization(config: Mapping[str, Any], dataset: Dataset, split: Split) -> Normalization:
    """As the config has it; by null, of the training part, channel by channel."""
    mean, std = config["mean"], config["std"]
    if mean is None:
        mean, std = statistics(dataset.images, split.train)
    channels = dataset.shape[0]
    for key, value in (("mean", mean), ("std", std)):
        if isinstance(value, list) and len(value) != channels:
            raise ConfigError(
                f"data.{key}={value}: must be a number, or one for each of {channels} channels"
            )
    return Normalization(mean, std)


@without_dynamo()
def rehearse(config: Mapping[str, Any]) -> None:
    """Go through all that may be refused, by a UserError, before anything is written."""
    configuration.check(config)
    inputs = read_inputs(config)
    model = model_on_meta(config, inputs.facts)
    make_loss(config, inputs, torch.device("cpu"))
    validates = len(inputs.split.validation) > 0
    _early_stop(config, validates=validates)
    with contextlib.suppress(RuntimeError, FailedError):
        optimizer = _on_shapes(config, model, inputs)
        if inputs.device.cuda_graphs:
            refuse_unrecordable(optimizer)
        _make_schedule(config, optimizer, batches=100, validates=validates)
        make_average(config, nn.Linear(1, 1), optimizer, batches=100)
    device = inputs.device
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
    loss = make_loss(config, inputs, device.torch)
    parts = config["grad_accumulation"]
    micro_batch = -(-config["batch_size"] // parts) if parts > 1 else None
    device, train.joins_last = rehearsal.rehearse(
        model,
        train,
        loss=loss,
        micro_batch=micro_batch,
        classes=len(inputs.dataset.classes),
        evaluated=validation.sizes | test.sizes,
        device=device,
        own=config["model"]["_target_"] not in TARGETS["model"],
    )
    image = torch.zeros(2, *inputs.dataset.shape, device=device.torch)
    optimizer = make_optimizer(config, model, image)
    if device.cuda_graphs:
        refuse_unrecordable(optimizer)  # of a run of a sweep nothing was rehearsed
    _tell_of_annealing(config, optimizer)
    return Trainer(
        model,
        loader=train,
        validation=validation if len(validation) else None,
        test=test if config["evaluation"]["test"] != "never" else None,
        optimizer=optimizer,
        schedule=_make_schedule(
            config, optimizer, batches=len(train), validates=len(validation) > 0
        ),
        epochs=config["epochs"],
        evaluate_every=config["evaluation"]["every"],
        make_step=partial(
            EagerStep,
            device=device,
            loss=loss,
            micro_batch=micro_batch,
            clip_norm=config["clip_norm"],
        ),
        device=device,
        most_probabilities=MOST_PROBABILITIES,
        average=make_average(config, model, optimizer, batches=len(train)),
        early_stop=_early_stop(config, validates=len(validation) > 0),
        flips=config["evaluation"]["flips"],
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
        classes=len(inputs.dataset.classes),
        memory=inputs.device.memory(),
    )


#: What a run without validation images can do about it.
_HOLD_OUT = "no images are held out; take data.split=holdout"


def _tensors(
    dataset: Dataset, indices: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and labels at `indices`, on the device."""
    images = torch.from_numpy(dataset.images[indices]).flatten()
    labels = torch.from_numpy(dataset.labels[indices].astype(np.int64))
    # With the strides that a model written for contiguous images expects, of one channel too.
    return images.view(-1, *dataset.shape).to(device), labels.to(device)


class ImageFacts(NamedTuple):
    """What a model has to know of the images."""

    shape: tuple[int, int, int]  # channels, height, width
    classes: int


def make_model(config: Mapping[str, Any], images: ImageFacts) -> nn.Module:
    """The model, its weights drawn from PyTorch's global random numbers, lazy layers' last.

    Raises:
        ConfigError: it may not be built, is no model, or the images are too small for it.
    """
    try:
        model = _build(config, images)
    except RuntimeError:
        _refuse_size(config, images)
        raise
    rehearsal.materialize(model, images.shape)
    return model


def _build(config: Mapping[str, Any], images: ImageFacts) -> nn.Module:
    """Call the model's target, with what the images decide where it has such parameters."""
    channels, *size = images.shape
    offered: dict[str, Any] = {"channels": channels, "classes": images.classes}
    if config["model"]["_target_"] in TARGETS["model"]:
        offered["image_size"] = tuple(size)
    else:  # as others call them
        offered |= {"in_channels": channels, "num_classes": images.classes}
    target = config["model"]["_target_"]
    model = instantiate(config, "model", offered=offered)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: {target} gives no torch.nn.Module")
    if "_parameters" not in vars(model):
        raise ConfigError(f"model ({target}): its __init__ does not call super().__init__()")
    return model


#: Sides that are tried where images are too small for a model.
_SIDES = (*range(1, 65), 96, 128, 224, 299)


def _refuse_size(config: Mapping[str, Any], images: ImageFacts) -> None:
    """Refuse a model of fmbench that can take larger images, and none of this size."""
    if config["model"]["_target_"] not in TARGETS["model"]:
        return
    channels, height, width = images.shape
    for side in (side for side in _SIDES if side > min(height, width)):
        square = ImageFacts((channels, side, side), images.classes)
        try:
            with torch.device("meta"):
                fits = _runs_on_meta(_build(config, square), square)
        except (ConfigError, RuntimeError):
            continue
        if fits:
            raise ConfigError(
                f"model: cannot take images of {height} x {width}; the smallest size that works is "
                f"{side} x {side}"
            )


def _runs_on_meta(model: nn.Module, images: ImageFacts) -> bool:
    try:
        with torch.device("meta"), torch.no_grad():
            model.eval()(torch.empty(2, *images.shape))
    except Exception:  # noqa: BLE001 - a model may object in any way
        return False
    finally:
        model.train()
    return True


def model_on_meta(config: Mapping[str, Any], images: ImageFacts) -> nn.Module | None:
    """The model on the meta device, where it has shapes but takes no time and no memory.

    None where it cannot be built there: what else is wrong with it, it raises again when it is
    built for the run.

    Raises:
        ConfigError: it may not be built, is no model, or the images are too small for it.
    """
    try:
        with torch.device("meta"):
            model = _build(config, images)
    except (RuntimeError, FailedError):
        _refuse_size(config, images)
        return None
    except ConfigError as error:
        ours = config["model"]["_target_"].startswith("fmbench.")
        if ours or not isinstance(error.__cause__, (TypeError, ValueError)):
            raise
        return None
    try:
        with torch.device("meta"):
            rehearsal.materialize(model, images.shape)
    except ConfigError:  # not every model runs there
        return None
    if config["model"]["_target_"] in TARGETS["model"] and not _runs_on_meta(model, images):
        _refuse_size(config, images)
    return model


def make_optimizer(
    config: Mapping[str, Any], model: nn.Module, images: torch.Tensor
) -> torch.optim.Optimizer:
    """The optimizer, over the parameters of a model.

    One whose first parameter is called `named_parameters` gets them with their names, in the order
    of their use, which images (N, C, H, W), on the model's device, show. Where it has a parameter
    `matrices`, it gets the names of the weights of linear layers and convolutions too.

    Raises:
        ConfigError: it refuses its arguments, or is no optimizer.
    """
    wants_names = takes(config, "optimizer", "named_parameters")
    ordered = by_use(model, images) if wants_names else by_place(model)
    return _optimizer(config, ordered, wants_names=wants_names, device=images.device)


def _optimizer(
    config: Mapping[str, Any], ordered: Ordered, *, wants_names: bool, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer over such parameters; one of the user's own is tried on others before."""

    def small(most: int | None) -> torch.optim.Optimizer:
        named = []
        for name, one in ordered.named:
            zeros = torch.zeros([min(side, most or side) for side in one.shape], device=device)
            named.append((name, nn.Parameter(zeros, requires_grad=one.requires_grad)))
        return _built(config, ordered._replace(named=named), wants_names=wants_names)

    if config["optimizer"]["_target_"] not in TARGETS["optimizer"]:
        rehearsal.rehearse_optimizer(small, device, recorded=config["cuda_graphs"])
    return _built(config, ordered, wants_names=wants_names)


def _built(
    config: Mapping[str, Any], ordered: Ordered, *, wants_names: bool
) -> torch.optim.Optimizer:
    option = {key: one for key, one in config["optimizer"].items() if key not in schema.GROUPED}
    grouping = {key: one for key, one in config["optimizer"].items() if key in schema.GROUPED}
    named = ordered.named
    given = named if wants_names else [one for _, one in named]
    offered = {"matrices": list(ordered.matrices)} if wants_names else None
    optimizer = instantiate({"optimizer": option}, "optimizer", given, offered=offered)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(f"optimizer: {option['_target_']} gives no torch.optim.Optimizer")
    split(optimizer, named, **grouping)
    return optimizer


def _tell_of_annealing(config: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Say that a schedule-free optimizer is given another schedule than a constant rate."""
    name, target = type(optimizer).__name__, config["scheduler"]["_target_"]
    if "ScheduleFree" in name and target != "fmbench.optim.schedules.constant":
        log.warning(
            "optimizer: %s is made for scheduler=constant; %s changes its rate all the same",
            name,
            target.rpartition(".")[2],
        )


def _on_shapes(
    config: Mapping[str, Any], model: nn.Module | None, inputs: Inputs
) -> torch.optim.Optimizer:
    """The optimizer over the shapes of the model's parameters, without the memory that they take.

    Of a model that only shows them later, over shapes that every optimizer accepts.
    """
    wants_names = takes(config, "optimizer", "named_parameters")
    names = ["first.weight", "weight", "last.weight"]
    ordered = Ordered([(name, nn.Parameter(torch.zeros(1, 1))) for name in names], names)
    if model is not None:
        ordered = by_place(model)
        if wants_names:
            # Not every model runs there; its own order does for a rehearsal.
            with contextlib.suppress(Exception), torch.device("meta"):
                ordered = by_use(model, torch.empty(2, *inputs.facts.shape))
    shapes = [(name, one.shape) for name, one in ordered.named]
    named = [(name, nn.Parameter(torch.zeros(()).expand(shape))) for name, shape in shapes]
    return _optimizer(
        config, ordered._replace(named=named), wants_names=wants_names, device=inputs.device.torch
    )


def make_loss(config: Mapping[str, Any], inputs: Inputs, device: torch.device) -> Loss:
    """What training minimises, on a device; a ConfigError where it refuses its arguments."""
    classes, labels = len(inputs.dataset.classes), inputs.dataset.labels[inputs.split.train]
    counts = np.bincount(labels, minlength=classes).tolist()
    offered = {"classes": classes, "num_classes": classes, "class_counts": counts}
    return refuse_unusable(instantiate(config, "loss", offered=offered), device)


def _make_schedule(
    config: Mapping[str, Any], optimizer: torch.optim.Optimizer, *, batches: int, validates: bool
) -> Schedule:
    epochs = config["epochs"]
    schedule: Any = instantiate(config, "scheduler", optimizer, epochs=epochs, batches=batches)
    if not isinstance(schedule, Schedule):
        raise ConfigError(
            f"scheduler: {config['scheduler']['_target_']} gives a {type(schedule).__name__}, must "
            'give a fmbench.optim.schedules.Schedule, of a scheduler and "batch" or "epoch"'
        )
    if config["cuda_graphs"] and getattr(schedule.scheduler, "cycle_momentum", False):
        raise ConfigError(
            "cuda_graphs=true: the schedule changes the momentum (cycle_momentum=true), a recorded "
            "step follows the learning rate alone; take one of them"
        )
    if isinstance(schedule, Plateau) and not validates:
        raise ConfigError(f"scheduler: follows the validation {schedule.metric}, and {_HOLD_OUT}")
    return schedule


def _early_stop(config: Mapping[str, Any], *, validates: bool) -> EarlyStop:
    """When the run ends early; a ConfigError where that is by validation, and there is none."""
    keys = config["early_stop"]
    if keys["patience"] is not None and not validates:
        said = f"early_stop.patience={keys['patience']}"
        raise ConfigError(f"{said}: watches the validation {keys['metric']}, and {_HOLD_OUT}")
    return EarlyStop(**keys)


def make_average(
    config: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, *, batches: int
) -> Average | None:
    """What is evaluated in place of the weights of training, if anything.

    Raises:
        ConfigError: it refuses its arguments, or the optimizer averages too.
    """
    epochs = config["epochs"]
    average: Average | None = instantiate(
        config, "averaging", model, epochs=epochs, batches=batches
    )
    for name in ("after_batch", "model", "state_dict", "load_state_dict"):
        if average is not None and not callable(getattr(average, name, None)):
            raise ConfigError(
                f"averaging: {config['averaging']['_target_']} gives a {type(average).__name__}, "
                f"which has no method {name}()"
            )
    if not (callable(getattr(optimizer, "eval", None)) and hasattr(optimizer, "train")):
        return average
    if average is not None:
        raise ConfigError(
            "averaging: the optimizer evaluates an average of its own; take averaging=none"
        )
    return OptimizerAverage(model, optimizer)
