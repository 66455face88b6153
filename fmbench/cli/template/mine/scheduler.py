"""A schedule: a function of the optimizer and the run's length that returns a `Schedule`."""

from torch.optim.lr_scheduler import LambdaLR

from fmbench.optim.schedules import Schedule


def cooldown(optimizer, *, epochs: int, batches: int, start: float = 0.5) -> Schedule:
    """The learning rate stays, then falls to 0 along a line, from a share of the run on."""

    def factor(step: int) -> float:
        return min(1.0, (1 - step / (epochs * batches)) / (1 - start))

    return Schedule(LambdaLR(optimizer, factor), "batch")  # or "epoch": when it takes a step
