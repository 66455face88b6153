"""What the machine can do: the bare training step on one batch that lies on the device already."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from fmbench.training.device import MEMORY_FORMATS, Device

#: Trains on the batch as many times as it is told, and returns when that is done.
Steps = Callable[[int], None]


def variants(model: Callable[[], nn.Module], device: Device, batch_size: int) -> dict[str, Steps]:
    """The bare step in every memory format and precision; on a GPU also captured as one graph.

    Args:
        model: makes a net.
        device: to run on; its precision does not count.
        batch_size: images a step.
    """
    found = {}
    formats = dict(MEMORY_FORMATS)
    if device.memory_format == "contiguous":  # a net that was found not to run in the other
        del formats["channels_last"]
    captures = (False, True) if device.torch.type == "cuda" else (False,)
    for (name, memory_format), precision, capture in itertools.product(
        formats.items(), ("fp32", "bf16"), captures
    ):
        chosen = replace(device, precision=precision)
        step = bare_step(model(), chosen, batch_size, memory_format)
        key = f"{name}, {precision}{', captured' if capture else ''}"
        found[key] = _repeated(captured(step) if capture else step, chosen)
    return found


def bare_step(
    model: nn.Module, device: Device, batch_size: int, memory_format: torch.memory_format
) -> Callable[[], None]:
    """Forward, loss, backward, optimizer, on images that are always the same."""
    model = model.to(device.torch).to(memory_format=memory_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    images = torch.randn(batch_size, 1, 28, 28, device=device.torch)
    images = images.to(memory_format=memory_format)
    labels = torch.randint(0, 10, (batch_size,), device=device.torch)

    def step() -> None:
        with device.autocast():
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as one CUDA graph, as PyTorch's notes on CUDA graphs have it."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):  # what is made at the first step must not be made by the graph
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def fastest(found: dict[str, Steps], seconds: float = 0.2) -> tuple[str, float]:
    """The name of the fastest variant, and the seconds that one of its steps takes.

    Args:
        found: what `variants` gave.
        seconds: of each of three measurements, at least a step long; of one for steps of seconds.
    """
    best: dict[str, float] = {}
    for turn in range(4):
        if turn > 1 and min(best.values()) > 1:
            break
        for name, steps in found.items():
            # Slow steps tell at once; the first of a small net tells little.
            if turn and best[name] > max(0.5, 2 * min(best.values())):
                continue
            count = max(1, min(50, round(seconds / best[name]))) if turn else 1
            start = time.perf_counter()
            steps(count)
            taken = (time.perf_counter() - start) / count
            best[name] = min(best[name], taken) if turn > 1 else taken
    chosen = min(best, key=best.__getitem__)
    return chosen, best[chosen]


def _repeated(step: Callable[[], None], device: Device) -> Steps:
    def steps(count: int) -> None:
        for _ in range(count):
            step()
        device.synchronize()

    return steps
