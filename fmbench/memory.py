"""Runs that need more memory than there is: told from other faults, with a batch size that fits."""

import contextlib
import ctypes
import gc
import traceback
from collections.abc import Mapping
from typing import Any

import torch

from fmbench.assembly import make_model, make_optimizer
from fmbench.device import Device
from fmbench.errors import UserError
from fmbench.step import EagerStep

#: What PyTorch's CPU allocator and the libraries say; they have no exceptions of their own.
_SAID = (
    "can't allocate memory",
    "not enough memory",
    "could not create a primitive",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "could not create a memory object",
)


class OutOfMemoryError(UserError):
    """The device has less memory than the run asks for."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory was not to be had."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)


def out_of_memory(
    error: BaseException, config: Mapping[str, Any], device: Device
) -> OutOfMemoryError:
    """The line that says so, with a smaller batch size that was tried and fits.

    Call it when nothing of the run is held any more.

    Args:
        error: what `is_out_of_memory` is true of; what its frames hold is let go.
        config: of the run, resolved.
        device: that it ran on.
    """
    traceback.clear_frames(error.__traceback__)
    asked = config["batch_size"]
    fitting = largest_that_fits(config, device, asked)
    if fitting is None:
        advice = "not even batch_size=1 fits: take a smaller net or another device"
    elif fitting == asked:
        advice = "a step of this size fits now: other programs may have had the memory"
    else:
        advice = f"batch_size={fitting} fits"
    return OutOfMemoryError(f"out of memory on {device.name} with batch_size={asked}; {advice}")


def largest_that_fits(config: Mapping[str, Any], device: Device, batch_size: int) -> int | None:
    """The largest of batch_size, its half, its quarter... that trains for two steps; None if none.

    Two, because the optimizer makes its state in the first.
    """
    while batch_size:
        _give_back(device.torch)
        if _fits(config, device, batch_size):
            break
        batch_size //= 2
    _give_back(device.torch)
    return batch_size or None


def _give_back(device: torch.device) -> None:
    """Have freed memory given back to the system, which the allocators would rather keep."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        with contextlib.suppress(OSError, AttributeError):  # only glibc has it
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _fits(config: Mapping[str, Any], device: Device, batch_size: int) -> bool:
    try:
        model = device.place(make_model(config)).train()
        optimizer = make_optimizer(config, model.parameters())
        step = EagerStep(model, optimizer, device=device, label_smoothing=0.0)
        images = torch.zeros(batch_size, 1, 28, 28, device=device.torch)
        labels = torch.zeros(batch_size, dtype=torch.int64, device=device.torch)
        for _ in range(2):
            step(images, labels)
        device.synchronize()
    except Exception as error:
        if is_out_of_memory(error):
            return False
        # Not ours to judge: batch norm on one value per channel, say. The memory was there.
        if isinstance(error, (RuntimeError, ValueError)):
            return True
        raise
    return True
