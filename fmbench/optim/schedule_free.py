"""Schedule-free learning: the weights that are evaluated are averages of those that train."""

from importlib.util import find_spec
from typing import Any

from torch.optim import Optimizer

from fmbench.core.errors import ConfigError, installs


def schedule_free_sgd(params: Any, **arguments: Any) -> Optimizer:
    """SGD of Defazio et al., "The Road Less Scheduled" (2024); the extra `schedulefree` brings it.

    Its `eval()` and `train()` switch the parameters between the average and the weights that
    gradients are taken at. Its option chooses `scheduler=constant`;
    it has a warm-up of its own.

    Args:
        params: parameters, or groups of them.
        **arguments: those of `schedulefree.SGDScheduleFree`.

    Raises:
        ConfigError: the package is not installed.
    """
    _require("schedule_free_sgd")
    from schedulefree import SGDScheduleFree

    return _training(SGDScheduleFree(params, **arguments))


def schedule_free_adamw(params: Any, **arguments: Any) -> Optimizer:
    """AdamW of the same paper; `params` and the errors are those of `schedule_free_sgd`.

    Args:
        params: parameters, or groups of them.
        **arguments: those of `schedulefree.AdamWScheduleFree`.
    """
    _require("schedule_free_adamw")
    from schedulefree import AdamWScheduleFree

    return _training(AdamWScheduleFree(params, **arguments))


def _require(option: str) -> None:
    if find_spec("schedulefree") is None:
        raise ConfigError(
            f"optimizer={option}: schedulefree is not installed; {installs('schedulefree')} "
            "brings it"
        )


def _training(optimizer: Any) -> Optimizer:
    optimizer.train()
    return optimizer  # type: ignore[no-any-return]
