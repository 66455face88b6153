"""Any optimizer of PyTorch's or of the package pytorch-optimizer, by its name."""

import inspect
from difflib import get_close_matches
from typing import Any

import torch
from torch.optim import Optimizer

from fmbench.core.errors import ConfigError, require_package

_CLOSURE = "it evaluates the loss several times in a step, by a closure"
_HESSIAN = "it needs a second backward pass, through the gradient"

#: Of PyTorch's, those that a step of training here does not suit, and why.
UNSUITED = {
    "LBFGS": _CLOSURE,
    "SparseAdam": "it takes sparse gradients alone, which no image classifier has",
}

#: PyTorch's others; `Muon` takes matrices alone, which models here are not made of.
TORCH = (
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"),
    *("RMSprop", "Rprop", "SGD"),
)

#: Of `pytorch_optimizer` 4.1, the classes that train a model here by their arguments alone, and
#: resume to the same bits.
EXTRA = (
    *("APOLLO", "ASGD", "AccSGD", "AdEMAMix", "AdaBelief", "AdaBound", "AdaDelta"),
    *("AdaFactor", "AdaGC", "AdaMax", "AdaMod", "AdaNorm", "AdaPNM", "AdaSmooth", "AdaTAM"),
    *("Adai", "Adalite", "AdamC", "AdamG", "AdamP", "AdamS", "AdamWSN", "Adan", "AggMo"),
    *("Aida", "Alice", "Amos", "Ano", "ApolloDQN", "AvaGrad", "BCOS", "CAME", "DASH"),
    *("DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion", "DAdaptSGD", "DiffGrad"),
    *("DualAdam", "EXAdam", "FAdam", "FOCUS", "FTRL", "Fira", "FlashAdamW", "Fromage"),
    *("GaLore", "Grams", "Gravity", "GrokFastAdamW", "Kate", "LARS", "LaProp", "Lamb"),
    *("Lion", "LoRARite", "MARS", "MSVAG", "NovoGrad", "PAdam", "PID", "PNM", "Prodigy"),
    *("QHAdam", "QHM", "RACS", "RAdam", "ROSE", "Ranger", "SGDP", "SGDSaI", "SGDW", "SM3"),
    *("SOAP", "SPlus", "SRMM", "SWATS", "SaRA", "ScheduleFreeAdamW", "ScheduleFreeRAdam"),
    *("ScheduleFreeSGD", "Shampoo", "SignSGD", "SimplifiedAdEMAMix", "StableAdamW", "TAM"),
    *("Tiger", "VSGD", "Yogi"),
)

#: And why some do not.
UNSUITED_EXTRA = {
    **dict.fromkeys(("ASAM", "BSAM", "FriendlySAM", "GSAM", "LBFGS", "LookSAM", "SAM"), _CLOSURE),
    **dict.fromkeys(("AliG", "WSAM"), _CLOSURE),
    **dict.fromkeys(("AdaHessian", "SophiaH"), _HESSIAN),
}


def torch_optimizer(params: Any, *, name: str, **arguments: Any) -> Optimizer:
    """An optimizer of `torch.optim`, by the name of its class, such as RAdam.

    Raises:
        ConfigError: there is no such class, it does not suit, or it has no such argument.
    """
    if name in UNSUITED:
        raise ConfigError(f"optimizer.name={name}: {UNSUITED[name]}")
    if name == "Muon":
        raise ConfigError("optimizer.name=Muon: takes matrices alone; take optimizer=muon")
    _require_known(name, TORCH, "torch.optim")
    return _built(getattr(torch.optim, name), params, arguments)


def extra_optimizer(params: Any, *, name: str, **arguments: Any) -> Optimizer:
    """An optimizer of the package `pytorch-optimizer`, by its name, such as SOAP.

    The extra `optimizers` brings the package.

    Raises:
        ConfigError: the package is not installed, there is no such class, it does not suit, or it
            has no such argument.
    """
    require_package("optimizer=extra", "pytorch_optimizer", "optimizers")
    if name in UNSUITED_EXTRA:
        raise ConfigError(f"optimizer.name={name}: {UNSUITED_EXTRA[name]}")
    _require_known(name, EXTRA, "pytorch-optimizer's, which train without more than a gradient,")
    import pytorch_optimizer

    optimizer = _built(getattr(pytorch_optimizer, name), params, arguments)
    if hasattr(optimizer, "train"):
        optimizer.train()
    return optimizer


def _require_known(name: str, known: tuple[str, ...], where: str) -> None:
    if name not in known:
        near = get_close_matches(str(name), known, n=5, cutoff=0)
        raise ConfigError(
            f"optimizer.name={name}: none of {where}; the closest are {', '.join(near)}"
        )


def _built(kind: Any, params: Any, arguments: dict[str, Any]) -> Optimizer:
    """Call the class, if it has arguments of these names."""
    taken = inspect.signature(kind).parameters.items()
    known = [n for n, one in taken if n != "params" and one.kind is not one.VAR_KEYWORD]
    if unknown := next((name for name in arguments if name not in known), None):
        there = ", ".join(known)
        raise ConfigError(
            f"optimizer.{unknown}: {kind.__name__} has no such argument; there are: {there}"
        )
    optimizer: Optimizer = kind(params, **arguments)
    return optimizer
