"""Schedule-free learning: the weights that are evaluated are averages of those that train."""

from typing import Any

from torch.optim import Optimizer

from fmbench.core.errors import require_package


def schedule_free_sgd(params: Any, **arguments: Any) -> Optimizer:
    """SGD of Defazio et al., "The Road Less Scheduled" (2024); the extra `schedulefree` brings it.

    Its `eval()` and `train()` switch the parameters between the average and the weights that
    gradients are taken at. Its option chooses `scheduler=constant`; it has a warm-up of its own.
    The arguments are those of `schedulefree.SGDScheduleFree`.

    Raises:
        ConfigError: the package is not installed.
    """
    require_package("optimizer=schedule_free_sgd", "schedulefree", "schedulefree")
    from schedulefree import SGDScheduleFree

    return _training(SGDScheduleFree(params, **arguments))


def schedule_free_adamw(params: Any, **arguments: Any) -> Optimizer:
    """AdamW of the same paper; the errors are those of `schedule_free_sgd`.

    The arguments are those of `schedulefree.AdamWScheduleFree`.
    """
    require_package("optimizer=schedule_free_adamw", "schedulefree", "schedulefree")
    from schedulefree import AdamWScheduleFree

    return _training(AdamWScheduleFree(params, **arguments))


def _training(optimizer: Any) -> Optimizer:
    optimizer.train()
    return optimizer  # type: ignore[no-any-return]
