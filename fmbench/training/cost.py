"""What a model costs: trainable parameters and forward FLOPs, counted without running it."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters; a shared one counts once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_flops(model: nn.Module) -> int | None:
    """Count the floating-point operations of the forward pass of one image.

    Convolutions, matrix products and attention count, a multiply-add as two operations;
    activations, norms, pooling and biases do not, as PyTorch's counter has it. Papers that count
    multiply-adds (MACs) print half of this. A copy of the model is in evaluation mode and on the
    meta device: shapes are worked out, nothing is computed. None where it cannot be copied or run
    there.
    """
    try:
        copied = meta_copy(model).eval()
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            copied(torch.empty(1, 1, 28, 28))
    except Exception:  # noqa: BLE001 - a stranger's model may fail in any way, and may still train
        return None
    return int(counter.get_total_flops())


def meta_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy whose parameters and buffers are shapes on the meta device.

    The weights are never copied, so a model that fills half the memory can still be copied.
    """
    # deepcopy takes what the memo holds for an object's id in place of copying that object.
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        shadow = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(shadow, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)
