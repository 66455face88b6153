"""What a model costs: trainable parameters and forward FLOPs, counted without running it."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fmbench.models.blocks import meta_copy


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters; a shared one counts once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_flops(model: nn.Module, shape: tuple[int, int, int] = (1, 28, 28)) -> int | None:
    """Count the floating-point operations of the forward pass of one image (C, H, W).

    Convolutions, matrix products and attention count, a multiply-add as two operations;
    activations, norms, pooling and biases do not, as PyTorch's counter has it. Papers that count
    multiply-adds (MACs) print half of this. A copy of the model is in evaluation mode and on the
    meta device: shapes are worked out, nothing is computed. None where it cannot be copied or run
    there.
    """
    try:
        copied = meta_copy(model).eval()
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            copied(torch.empty(1, *shape))
    except Exception:  # noqa: BLE001 - a stranger's model may fail in any way, and may still train
        return None
    return int(counter.get_total_flops())
