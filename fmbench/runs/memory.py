"""What a run is told that needs more memory than there is: what ran out, and what would fit."""

import contextlib
import gc
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from fmbench.core.errors import UserError
from fmbench.data.loader import EvaluationLoader
from fmbench.runs.prepare import Inputs, make_model, make_trainer
from fmbench.training.device import Device, give_back
from fmbench.training.step import WARM_UP, GraphStep
from fmbench.training.trainer import DivergedError, Trainer, evaluate


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

    Call it when nothing of the run is held any more.

    Args:
        error: that memory was not to be had; what its frames hold is let go.
        config: of the run, resolved.
        inputs: of the run.
        device: that it ran on.
        flops: of its net, as `fmbench.runs.prepare.make_trainer` takes them.
    """
    where = " in evaluation" if _raised_in(evaluate, error) else ""
    _let_go(error)
    asked = config["batch_size"]
    fitting = largest_that_fits(config, inputs, device, flops)
    lost = device.cuda_graphs and GraphStep.ran_out
    eagerly = " with cuda_graphs=false" if lost else ""
    if fitting is None:
        advice = (
            f"no batch_size down to 1 fits{eagerly} in training and evaluation: take a smaller net "
            "or another device"
        )
    elif fitting == asked and not lost:
        advice = "a step of this size fits now: other programs may have had the memory"
    else:
        advice = f"batch_size={fitting} fits{eagerly}"
    if lost:
        advice += "; start others with cuda_graphs=true in a new process"
    return OutOfMemoryError(
        f"out of memory{where} on {device.name} with batch_size={asked}; {advice}"
    )


def _raised_in(function: Callable[..., Any], error: BaseException) -> bool:
    return any(
        frame.f_globals.get("__name__") == function.__module__
        and frame.f_code.co_name == function.__name__
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _let_go(error: BaseException | None) -> None:
    """Have the frames of an exception, and of those it came from, hold nothing any more."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def largest_that_fits(
    config: Mapping[str, Any], inputs: Inputs, device: Device, flops: int | None
) -> int | None:
    """The largest of the batch size, its half, its quarter... that trains and evaluates.

    Tried as the run would do it. Once a recording has run out of memory, without: see
    `fmbench.training.step.GraphStep`.

    Args:
        config: of the run, resolved.
        inputs: of the run.
        device: to try it on.
        flops: of the net, as `fmbench.runs.prepare.make_trainer` takes them.

    Returns:
        None where not even one image at once fits.
    """
    batch_size: int = config["batch_size"]
    while batch_size:
        gc.collect()
        give_back(device.torch)
        graphs = device.cuda_graphs and not GraphStep.ran_out
        tried = replace(device, cuda_graphs=graphs)
        if _fits({**config, "batch_size": batch_size}, inputs, tried, flops):
            break
        if graphs and GraphStep.ran_out:
            continue  # it may fit without
        batch_size //= 2
    gc.collect()
    give_back(device.torch)
    return batch_size or None


def _fits(config: Mapping[str, Any], inputs: Inputs, device: Device, flops: int | None) -> bool:
    try:
        _try(make_trainer(config, inputs, make_model(config), device, flops))
    except Exception as error:  # noqa: BLE001 - that of a foreign net may be any
        # Batch norm on one value per channel, say: whatever it was, the size did not go through.
        _let_go(error)
        return False
    return True


def _try(trainer: Trainer) -> None:
    """Train and evaluate on as many batches as it takes to ask for all that a run asks for.

    Two steps, because the optimizer makes its state in the first; with graphs up to the second
    that is replayed. Then the largest batch of evaluation, with all of that still held.
    """
    trainer.model.train()
    steps = WARM_UP + 2 if trainer.device.cuda_graphs else 2
    epochs = (trainer.loader.epoch(epoch) for epoch in range(steps))
    for images, labels in islice(chain.from_iterable(epochs), steps):
        trainer.step(images, labels)
    parts = [part for part in (trainer.validation, trainer.test) if part]
    if parts:  # evaluation.test=never without validation images has neither
        largest = max(parts, key=len)
        first = EvaluationLoader(
            largest.images[: largest.batch_size],
            largest.labels[: largest.batch_size],
            normalization=largest.normalization,
            batch_size=largest.batch_size,
        )
        with contextlib.suppress(DivergedError):  # steps at the full rate may lead there
            evaluate(trainer.model, first, device=trainer.device)
    trainer.device.synchronize()
