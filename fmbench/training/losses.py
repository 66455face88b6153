"""Losses of training: of a batch, from logits and targets, the mean over its images.

Targets are labels, (B,) int64, or the shares of the classes that mixup and cutmix give,
(B, classes) float32. Of shares each loss is the mean of the losses of the classes, weighted by
the shares.

Evaluation knows none of these: its loss is the cross entropy of the logits whatever a model was
trained with, so that numbers compare.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from fmbench.core.errors import ConfigError, described
from fmbench.training.attributes import attributes, numbers, refuse_counting

#: From (B, classes) float32 logits and targets, see above, to the mean over the images.
Loss = Callable[[Tensor, Tensor], Tensor]

#: Of each class by its training images n of N: N / (classes * n), so that their mean over the
#: training images is 1.
BALANCED = "balanced"

#: A factor of a class is no larger: float32 holds losses that are multiplied by it.
MOST_WEIGHT = 1e6


class _Weighted(nn.Module):
    """A loss with a factor for each class, of which no checkpoint needs to hold anything.

    Args:
        class_weights: a factor for the loss of each class, "balanced", or None for 1.
        classes: how many there are.
        class_counts: training images of each class.

    Raises:
        ConfigError: an argument is out of its bounds.
    """

    weights: Tensor | None

    def __init__(
        self,
        class_weights: str | Sequence[float] | None,
        classes: int,
        class_counts: Sequence[int],
    ) -> None:
        super().__init__()
        weights = read_weights(class_weights, classes, class_counts)
        self.register_buffer("weights", weights, persistent=False)


class CrossEntropy(_Weighted):
    """Cross entropy of the softmax.

    A weighted loss is the sum over the images divided by their number, not by the sum of their
    weights: the loss of an image does not depend on the others in its batch. `label_smoothing` is
    the share of the target that is spread over all classes, below 1 (Szegedy et al. 2016, section
    7); for the other arguments and errors see `_Weighted`.
    """

    def __init__(
        self,
        *,
        classes: int,
        class_counts: Sequence[int] = (),
        label_smoothing: float = 0.0,
        class_weights: str | Sequence[float] | None = None,
    ) -> None:
        super().__init__(class_weights, classes, class_counts)
        _require_number("label_smoothing", label_smoothing, least=0, below=1)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over the images."""
        if self.weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        return F.cross_entropy(
            logits,
            targets,
            weight=self.weights,
            label_smoothing=self.label_smoothing,
            reduction="none",
        ).mean()


class Focal(_Weighted):
    """Focal loss, -(1 - p)^gamma log p of the probability p of the class.

    Lin et al., "Focal Loss for Dense Object Detection" (2017), equation 5, with the softmax in
    place of their sigmoid. `gamma` is 0 or more; 0 is cross entropy. `class_weights` are their
    alpha; for the other arguments and errors see `_Weighted`.
    """

    def __init__(
        self,
        *,
        classes: int,
        class_counts: Sequence[int] = (),
        gamma: float = 2.0,
        class_weights: str | Sequence[float] | None = None,
    ) -> None:
        super().__init__(class_weights, classes, class_counts)
        _require_number("gamma", gamma, least=0)
        self.gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over the images."""
        log_p = logits.log_softmax(1)
        # By expm1: 1 - p of a p near 1 would be rounding alone. Never 0, where the power of it has
        # no gradient if gamma is below 1.
        missed = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        losses = -(missed**self.gamma) * log_p
        if self.weights is not None:
            losses = losses * self.weights
        if targets.dim() == 1:
            return losses.gather(1, targets[:, None]).mean()
        return (losses * targets).sum(1).mean()


class SquaredError(nn.Module):
    """Squared distance of the logits, without a softmax, to the one-hot answers.

    Hui and Belkin, "Evaluation of Neural Architectures Trained with Square Loss vs Cross-Entropy in
    Classification Tasks" (2020), section 2: (weight * (f_c - target)^2 + sum of the other f_i^2) /
    classes, of an image of class c with the logits f. They rescale by both from 42 classes on.

    Args:
        weight: of the logit of the class, above 0; their k.
        target: what that logit is to be, above 0; their M.
        classes: how many there are.

    Raises:
        ConfigError: an argument is out of its bounds.
    """

    def __init__(self, *, classes: int, weight: float = 1.0, target: float = 1.0) -> None:
        super().__init__()
        _require_number("weight", weight, above=0)
        _require_number("target", target, above=0)
        self.classes, self.weight, self.target = classes, weight, target

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over the images."""
        shares = targets
        if targets.dim() == 1:  # one_hot would wait for a GPU
            shares = targets[:, None] == torch.arange(self.classes, device=targets.device)
        of_class = self.weight * (logits - self.target).square()
        return torch.lerp(logits.square(), of_class, shares.to(logits)).mean()


def read_weights(
    weights: str | Sequence[float] | None, classes: int, counts: Sequence[int]
) -> Tensor | None:
    """The factor of each class, (classes,) float32; None where all are 1.

    Raises:
        ConfigError: they are no such factors, or a class to be balanced has no training images.
    """
    if weights is None:
        return None
    if weights == BALANCED:
        if missing := [label for label, count in enumerate(counts) if not count]:
            raise ConfigError(
                f"loss.class_weights=balanced: class {missing[0]} has no training images"
            )
        return torch.tensor([sum(counts) / (classes * count) for count in counts])
    sound = isinstance(weights, (list, tuple)) and all(
        type(weight) in (int, float) and 0 <= weight <= MOST_WEIGHT for weight in weights
    )
    if not sound or len(weights) != classes or not any(weights):
        raise ConfigError(
            f"loss.class_weights={weights}: must be null, balanced, or a number for each of "
            f"{classes} classes, 0 to {MOST_WEIGHT:g} and not all 0"
        )
    return torch.tensor([float(weight) for weight in weights])


def refuse_unusable(loss: Any, device: torch.device) -> Loss:
    """A loss on its device.

    Raises:
        ConfigError: it cannot be called, or has parameters, which no optimizer would train.
    """
    if not callable(loss) or isinstance(loss, type):
        raise ConfigError(
            f"loss: must give what is called with logits and targets, gives a "
            f"{type(loss).__name__}; for a function add _partial_: true"
        )
    if isinstance(loss, nn.Module):
        if name := next((name for name, _ in loss.named_parameters()), None):
            raise ConfigError(f"loss: has a parameter, {name}, which no optimizer would train")
        return loss.to(device)
    found: Loss = loss
    return found


def loss_state(loss: Loss) -> dict[str, Tensor]:
    """What a loss remembers from batch to batch: its buffers, from which a run resumes."""
    state = loss.state_dict() if isinstance(loss, nn.Module) else {}
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


@contextlib.contextmanager
def tried(loss: Loss, *, recorded: bool = False) -> Iterator[Loss]:
    """A copy of a loss to call, thrown away at the end: what the loss remembers stays.

    Args:
        loss: that is to be tried.
        recorded: whether steps will be recorded as a CUDA graph, which holds addresses.

    Raises:
        ConfigError: it cannot be copied, or remembers from a call what no checkpoint holds:
            an attribute that is no buffer, a buffer that has another shape or needs a gradient,
            or, where steps are recorded, one that is another tensor after the call.
    """
    try:
        made = copy.deepcopy(loss)
    except Exception as error:
        raise ConfigError(f"loss: cannot be copied: {described(error)}") from error
    were, counted, buffers = dict(attributes(made)), numbers(made), _buffers(made)
    known = {name: buffer.shape for name, buffer in buffers.items()}
    yield made
    if recorded:
        refuse_counting(made, counted, "cuda_graphs", "the loss")
    counted = numbers(made)
    for name, value in attributes(made):
        if were.get(name) != value and name not in counted:
            raise ConfigError(
                f"loss: changes {name} when it is called, which no checkpoint holds; what a loss "
                "remembers must be in buffers, see register_buffer of torch.nn.Module, or numbers"
            )
    for name, buffer in _buffers(made).items():
        if buffer.shape != known.get(name):
            raise ConfigError(f"loss: its buffer {name} must be made in __init__, in its shape")
        if buffer.requires_grad:
            raise ConfigError(f"loss: its buffer {name} needs a gradient, must be detached")
        if recorded and buffer is not buffers[name]:
            raise ConfigError(
                f"cuda_graphs=true: the loss puts another tensor in place of its buffer {name}, "
                "which a recorded step cannot follow; change it in place, or take cuda_graphs=false"
            )


def _buffers(loss: Loss) -> dict[str, Tensor]:
    return dict(loss.named_buffers()) if isinstance(loss, nn.Module) else {}


def _require_number(
    name: str, value: Any, *, least: float = 0, above: float = -math.inf, below: float = math.inf
) -> None:
    """Refuse what is no number within these bounds, by a ConfigError."""
    number = type(value) in (int, float)
    if not (number and math.isfinite(value) and least <= value < below and value > above):
        bounds = f"above {above}" if above >= 0 else f"{least} or more"
        bounds += f" and below {below}" if below < math.inf else ""
        raise ConfigError(f"loss.{name}={value}: must be a number, {bounds}")
