"""Groups of a model's parameters: what is decayed, at which rate, in which order it is used."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from fmbench.core.errors import ConfigError

#: The parameters of a model with their names.
Named = Sequence[tuple[str, nn.Parameter]]


class _Uses(TorchFunctionMode):
    """Notes the parameters that operations take, in the order of their first use."""

    def __init__(self) -> None:
        self.seen: dict[int, None] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # the signature is PyTorch's
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, nn.Parameter):
                self.seen.setdefault(id(leaf))
        return func(*args, **(kwargs or {}))


class Ordered(NamedTuple):
    """The parameters of a model in an order."""

    named: Named  # all of them, with their names
    matrices: Sequence[str]  # the names of the weights of linear layers and of convolutions


@torch.no_grad()
def by_use(model: nn.Module, images: Tensor) -> Ordered:
    """The model's parameters, in the order in which a forward pass uses them.

    That is one of evaluation, of images (N, C, H, W) on the model's device. Parameters that it does
    not use come last, in the order of the model, and are no `matrices`. Nothing else of the model
    changes.
    """
    modes = [(m, m.training) for m in model.modules()]
    # A model in evaluation draws on the CPU if at all: no other device is started for it.
    with _Uses() as uses, torch.random.fork_rng(devices=[]):
        model.eval()(images)
    for module, mode in modes:
        module.training = mode
    order = {number: place for place, number in enumerate(uses.seen)}
    found = by_place(model)
    named = sorted(found.named, key=lambda one: order.get(id(one[1]), len(order)))
    matrices = {*found.matrices}
    return Ordered(
        named, [name for name, one in named if name in matrices and id(one) in uses.seen]
    )


def by_place(model: nn.Module) -> Ordered:
    """The model's parameters in its own order, as if it used all of them."""
    named = list(model.named_parameters())
    weights = set()
    for module in model.modules():
        # A transposed convolution has its input channels first.
        if isinstance(module, nn.Linear | _ConvNd) and not isinstance(module, _ConvTransposeNd):
            weights.add(id(module.weight))
        elif isinstance(module, nn.MultiheadAttention):
            parts = (module.in_proj_weight, module.q_proj_weight, module.k_proj_weight,
                     module.v_proj_weight)  # fmt: skip
            weights.update(map(id, parts))
    return Ordered(named, [name for name, one in named if id(one) in weights])


def split(
    optimizer: Optimizer, named: Named, *, decay_norms: bool = True, bias_lr_factor: float = 1.0
) -> None:
    """Part each of an optimizer's groups by what is decayed and by its rate.

    Args:
        optimizer: that has not stepped.
        named: its parameters with their names.
        decay_norms: whether parameters of one dimension, weights of normalization and biases,
            are decayed like all others.
        bias_lr_factor: what the learning rate of biases is multiplied by.

    Raises:
        ConfigError: the optimizer has no weight decay, or the factor is not above 0.
    """
    if bias_lr_factor <= 0:
        raise ConfigError(f"optimizer.bias_lr_factor={bias_lr_factor}: must be a number above 0")
    if not decay_norms and not all("weight_decay" in group for group in optimizer.param_groups):
        raise ConfigError(
            "optimizer.decay_norms=false: this optimizer has no weight_decay; leave it true"
        )
    if decay_norms and bias_lr_factor == 1:
        return
    biases = {id(one) for name, one in named if name.rpartition(".")[2] == "bias"}

    def kind(one: Tensor) -> tuple[bool, bool]:
        return not decay_norms and one.ndim <= 1, bias_lr_factor != 1 and id(one) in biases

    optimizer.param_groups[:] = chain.from_iterable(
        _parts(group, kind, bias_lr_factor) for group in optimizer.param_groups
    )


def _parts(group: dict[str, Any], kind: Any, factor: float) -> Iterable[dict[str, Any]]:
    parts: dict[tuple[bool, bool], list[Tensor]] = {}
    for one in group["params"]:
        parts.setdefault(kind(one), []).append(one)
    # What is decayed and has the usual rate first: its rate stands for the run's.
    for plain, biases in sorted(parts):
        made = group | {"params": parts[plain, biases]}
        if plain:
            made["weight_decay"] = 0.0
        if biases:
            made["lr"] = group["lr"] * factor
        yield made
