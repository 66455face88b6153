"""What to do where a run needs more memory than there is: which batch size fits."""

import gc
import inspect
import traceback
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import torch

from fmbench.core.errors import UserError
from fmbench.runs.prepare import Inputs, make_model, make_trainer
from fmbench.training.device import Device, give_back
from fmbench.training.trainer import evaluate


class OutOfMemoryError(UserError):
    """The device has less memory than the run asks for."""


def out_of_memory(
    error: BaseException,
    config: Mapping[str, Any],
    inputs: Inputs,
    device: Device,
    flops: int | None,
) -> OutOfMemoryError:
    """The line that says what ran out, with a smaller batch size that was tried and fits.

    Call it when nothing refers to the run's model any more but the frames of `error`, which are
    cleared. The other arguments are those of `fmbench.runs.prepare.make_trainer`.
    """
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    where = " in evaluation" if inspect.unwrap(evaluate).__code__ in frames else ""
    _clear_frames(error)
    asked = config["batch_size"]
    fitting = largest_that_fits(config, inputs, replace(device, cuda_graphs=False), flops)
    eagerly = " with cuda_graphs=false" if device.cuda_graphs else ""
    if fitting is None:
        advice = (
            f"no batch_size down to 1 fits{eagerly} in training and evaluation: take a smaller "
            "model or another device"
        )
    elif fitting == asked and not eagerly:
        advice = "a step of this size fits now: other programs may have had the memory"
    else:
        advice = f"batch_size={fitting} fits{eagerly}"
    line = f"out of memory{where} on {device.name} with batch_size={asked}; {advice}"
    return OutOfMemoryError(line)


def _clear_frames(error: BaseException | None) -> None:
    """Have the frames of an exception, and of those it came from, refer to nothing any more."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def largest_that_fits(
    config: Mapping[str, Any], inputs: Inputs, device: Device, flops: int | None
) -> int | None:
    """The largest of the batch size, its half, its quarter... that trains and evaluates.

    Tried as the run would do it; the arguments are those of `make_trainer`. None where not even a
    batch of one image fits.
    """
    batch_size: int = config["batch_size"]
    while batch_size and not _fits({**config, "batch_size": batch_size}, inputs, device, flops):
        batch_size //= 2
    gc.collect()
    give_back(device.torch)
    return batch_size or None


def _fits(config: Mapping[str, Any], inputs: Inputs, device: Device, flops: int | None) -> bool:
    """Train and evaluate on as many batches as it takes to allocate all that a run allocates.

    Two steps, because the optimizer makes its state in the first. Then the largest batch of
    evaluation, with all of that still allocated.
    """
    gc.collect()
    give_back(device.torch)
    try:
        trainer = make_trainer(config, inputs, make_model(config, inputs.facts), device, flops)
        trainer.model.train()
        epochs = (trainer.loader.epoch(epoch) for epoch in range(2))
        for images, labels in islice(chain.from_iterable(epochs), 2):
            trainer.step(images, labels)
        parts = [part for part in (trainer.validation, trainer.test) if part]
        if parts:  # evaluation.test=never without validation images has neither
            largest = max(parts, key=len)
            images, _ = next(iter(largest))
            trainer.model.eval()
            with torch.no_grad(), trainer.device.autocast():
                trainer.model(images)
        trainer.device.synchronize()
    except Exception as error:  # noqa: BLE001 - a user's model may raise any
        # Batch norm on one value per channel, say: whatever it was, this size does not work.
        _clear_frames(error)
        return False
    return True
