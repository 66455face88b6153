"""About how long a run takes, by a few of its steps."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, count
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmbench.runs.prepare import make_model, make_trainer, read_inputs
from fmbench.training.cost import count_flops
from fmbench.training.device import choose_precision, settings_kept
from fmbench.training.trainer import Trainer

#: Steps before the clock starts, and how many, or for how many seconds, it runs at most.
_FIRST, _MOST, _SECONDS = 2, 200, 2.0


class Estimate(NamedTuple):
    """Seconds, of a run that has the machine for itself."""

    epoch: float  # of training
    evaluation: float  # of the validation images after it
    steps: int  # that were measured


def estimate(config: Mapping[str, Any]) -> Estimate:
    """Measure a few steps of a run; nothing is left of them.

    Args:
        config: resolved.

    Raises:
        UserError: the run could not be started either.
    """
    with settings_kept():
        torch.manual_seed(config["seed"])
        inputs = read_inputs(config)
        model = make_model(config, inputs.facts)
        flops = count_flops(model, inputs.dataset.shape)
        precision = choose_precision(config["precision"], inputs.device.torch, flops)
        device = replace(inputs.device, precision=precision)
        trainer = make_trainer(config, inputs, model, device, flops)
        if trainer.device.torch.type == "cpu":
            torch.set_num_threads(config["threads"] or trainer.faster_threads(flops))
        if config["compile"]:
            trainer.compile()
        seconds, steps = _step(trainer)
        return Estimate(seconds * len(trainer.loader), _evaluation(trainer), steps)


def _step(trainer: Trainer) -> tuple[float, int]:
    """Seconds of a step, and by how many."""
    batches: Iterator[tuple[Tensor, Tensor]] = chain.from_iterable(
        map(trainer.loader.epoch, count())
    )
    trainer.model.train()
    step = trainer.step
    step.begin_epoch()
    for _ in range(_FIRST):
        step(*next(batches))
    float(step.loss_sum)  # waits for the device
    start, steps = time.perf_counter(), 0
    while steps < _MOST and time.perf_counter() < start + _SECONDS:
        step(*next(batches))
        steps += 1
    float(step.loss_sum)
    return (time.perf_counter() - start) / steps, steps


@torch.no_grad()
def _evaluation(trainer: Trainer) -> float:
    """Seconds of an evaluation on the validation images, by the second batch of two."""
    if trainer.validation is None:
        return 0.0
    trainer.model.eval()
    images, _ = next(iter(trainer.validation))
    start = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with trainer.device.autocast():
            float(trainer.model(images).float().sum())
    return (time.perf_counter() - start) / len(images) * len(trainer.validation)
