"""An average of weights: of the model and the run's length, what is evaluated in their place."""

from fmbench.training.averaging import WeightAverage


def polyak(model, *, epochs: int, batches: int, start: float = 0.5) -> WeightAverage:
    """The mean of the weights after each step of the last part of a run (Polyak, 1992)."""
    first = start * epochs * batches
    return WeightAverage(model, lambda step: step > first)  # steps are counted from 1
