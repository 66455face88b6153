"""Averages of the weights along the way, which are evaluated, and kept, in their place.

The weights of training never know: they, and their batch-norm statistics, go on as without it.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from fmbench.core.errors import ConfigError
from fmbench.training.device import Device

#: Training images that batch-norm statistics are computed from, or all where there are fewer. Wu
#: and Johnson, "Rethinking 'Batch' in BatchNorm" (2021), section 3, find 1,000 to 10,000 enough.
STATISTICS_OF = 10_000


class Average(Protocol):
    """What an option of `averaging` gives; one's own has these methods."""

    def after_batch(self) -> None:
        """Called once after every optimizer step."""

    def model(self) -> nn.Module | None:
        """The model to evaluate, in memory of its own; None where it is still that of training."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts to resume from."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""


class WeightAverage:
    """PyTorch's average of the weights of a model, of those after the steps that are due.

    Args:
        model: that is trained.
        due: whether the weights after a step, counted from 1, count.
        combine: from the lists of averages, which it changes, and of weights; None: their mean.
    """

    def __init__(
        self,
        model: nn.Module,
        due: Callable[[int], bool],
        combine: Callable[[list[Tensor], list[Tensor], int], None] | None = None,
    ) -> None:
        self.trained, self.due = model, due
        self.steps = 0

        def combined(averages: Any, weights: Any, _averaged: Any) -> None:
            assert combine is not None
            combine(averages, weights, self.steps)

        # Its count is on the CPU, so that nobody waits for a GPU to read it.
        self.averaged = AveragedModel(
            copied(model), multi_avg_fn=None if combine is None else combined
        ).requires_grad_(requires_grad=False)

    def after_batch(self) -> None:
        """Add the weights to the average where they count."""
        self.steps += 1
        if self.due(self.steps):
            self.averaged.update_parameters(self.trained)

    def model(self) -> nn.Module | None:
        """The model with the average; None before the first weights that count."""
        return self.averaged.module if self.averaged.n_averaged > 0 else None

    def state_dict(self) -> dict[str, Any]:
        """The average, and how many steps there were."""
        return {"steps": self.steps, "averaged": dict(self.averaged.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.steps = state["steps"]
        self.averaged.load_state_dict(state["averaged"])


class OptimizerAverage:
    """The weights that an optimizer evaluates itself: a schedule-free one (Defazio et al. 2024).

    It has two methods, `eval` and `train`, which swap the weights; there and back they may differ
    by rounding. So they are put back as they were.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.trained, self.optimizer = model, optimizer
        self.evaluated = copied(model)
        optimizer.train()  # type: ignore[attr-defined] # some begin as if they evaluated

    def after_batch(self) -> None:
        """Nothing: the optimizer has done it."""

    @torch.no_grad()
    def model(self) -> nn.Module:
        """The model with the weights that the optimizer evaluates."""
        parameters = list(self.trained.parameters())
        before = [parameter.detach().clone() for parameter in parameters]
        self.optimizer.eval()  # type: ignore[attr-defined]
        self.evaluated.load_state_dict(self.trained.state_dict())
        self.optimizer.train()  # type: ignore[attr-defined]
        for parameter, weights in zip(parameters, before, strict=True):
            parameter.copy_(weights)
        return self.evaluated

    def state_dict(self) -> dict[str, Any]:
        """Nothing: all of it is the optimizer's."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing, likewise."""


def no_average(model: nn.Module, *, epochs: int, batches: int) -> None:
    """The weights of training are the ones that are evaluated."""


def ema(model: nn.Module, *, epochs: int, batches: int, decay: float = 0.999) -> WeightAverage:
    """An exponential moving average: after each step it is decay * average + (1 - decay) * weights.

    Polyak and Juditsky (1992) average evenly; this is the form of Szegedy et al. (2016), section 8.
    After t steps the decay is (1 + t) / (10 + t) at most, as in TensorFlow's
    `ExponentialMovingAverage`: the average of a short run is not one of its first weights.

    Raises:
        ConfigError: `decay` is not between 0 and 1.
    """
    if not 0 < decay < 1:
        raise ConfigError(f"averaging.decay={decay}: must be above 0 and below 1")

    def combine(averages: list[Tensor], weights: list[Tensor], steps: int) -> None:
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + steps) / (10 + steps)))

    return WeightAverage(model, lambda _step: True, combine)


def swa(model: nn.Module, *, epochs: int, batches: int, start: float = 0.75) -> WeightAverage:
    """The mean of the weights after each epoch from `start` on, a share of all epochs.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (2018),
    who keep the learning rate high then: `scheduler=constant`, say. The last epoch always counts.

    Raises:
        ConfigError: `start` is not from 0 to below 1.
    """
    if not 0 <= start < 1:
        raise ConfigError(f"averaging.start={start}: must be 0 or more and below 1")
    first = min(round(start * epochs), epochs - 1) + 1

    def due(step: int) -> bool:
        return step % batches == 0 and step >= first * batches

    return WeightAverage(model, due)


def copied(model: nn.Module) -> nn.Module:
    """A copy of a model; a ConfigError where it cannot be copied."""
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise ConfigError(
            f"averaging: the model cannot be copied, as an average must ({type(error).__name__})"
        ) from error


@torch.no_grad()
def recompute_statistics(model: nn.Module, batches: Iterable[Tensor], *, device: Device) -> None:
    """Give a model, left in evaluation mode, batch-norm statistics under its own weights.

    It was never trained on with these. They are means over batches of training images, as
    augmented, as in Izmailov et al. (2018), section 3.2, and `torch.optim.swa_utils.update_bn`. All
    but batch norm is in evaluation mode, as it will be: dropout draws nothing. Batches are (B, C,
    H, W) float32 images on the device.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    norms = [module for module in norms if module.track_running_stats]
    if not norms:
        return
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # the mean over batches
        module.train()
    for images in batches:
        with device.autocast():
            model(images)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
    model.eval()
