"""The former place of `fmbench.optim.schedules`, which older configs name."""

from fmbench.optim.schedules import Schedule, constant, cosine, multistep, onecycle, step

__all__ = ["Schedule", "constant", "cosine", "multistep", "onecycle", "step"]
