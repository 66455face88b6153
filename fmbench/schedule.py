"""The former place of `fmbench.optim.schedules`, which older configs name."""

from fmbench.optim.schedules import constant, cosine, multistep, onecycle, step

__all__ = ["constant", "cosine", "multistep", "onecycle", "step"]
