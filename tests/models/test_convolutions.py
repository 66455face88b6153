"""Each convolution of each model as the processor at hand computes it in both memory formats.

In a process of its own: code that writes beyond its memory ends the process, or spoils whatever
lies there.
"""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import yaml
from commands import CHECKOUT
from torch.utils._python_dispatch import TorchDispatchMode

from fmbench.runs import prepare

#: Of Fashion-MNIST.
IMAGES = prepare.ImageFacts((1, 28, 28), 10)

#: Forward FLOPs of a layer on 64 images above which they take too long.
HUGE = 2_000_000_000

#: Computes the layers that standard input names one after the other; the last line it prints names
#: the layer that it was at.
CHILD = """
import json, sys
import torch
import torch.nn.functional as F

torch.set_num_threads(1)
for line in sys.stdin:
    print(line.strip(), flush=True)
    images, weight, how = json.loads(line)
    torch.manual_seed(0)
    x, w = torch.randn(images), torch.randn(weight)
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        inputs = [t.to(memory_format=memory_format, copy=True).requires_grad_() for t in (x, w)]
        y = F.conv2d(*inputs, **how)
        gradient = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
        found.append([y.detach(), *torch.autograd.grad(y, inputs, gradient)])
    for name, one, other in zip(("output", "images", "weight"), *found):
        off = ((one - other).abs().max() / one.abs().max()).item()
        if not off < 1e-4:
            sys.exit(f"{name}: off by {off}")
"""


class Convolutions(TorchDispatchMode):
    """Notes the convolutions that are called: shapes of an image and of the weights, and how."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            image, weight, _, stride, padding, dilation, transposed, _, groups = args
            assert not transposed
            how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
            layer = json.dumps([image.shape[1:], weight.shape, how])
            flops = 2 * result[0].numel() * weight[0].numel()
            self.found[layer] = flops
        return result


@pytest.fixture(scope="module")
def layers():
    """FLOPs per image of each distinct convolution of all models, as they are trained."""
    seen = Convolutions()
    for path in sorted((CHECKOUT / "conf/model").glob("*.yaml")):
        if path.stem == "timm" and find_spec("timm") is None:
            continue
        option = yaml.safe_load(path.read_text("utf-8"))
        model = prepare.model_on_meta({"model": option}, IMAGES).train()
        with torch.device("meta"), torch.no_grad(), seen:
            model(torch.zeros(2, 1, 28, 28))
    return seen.found


def compare(sized):
    """Have a process compare layers on so many images each."""
    lines = []
    for layer, count in sized:
        image, weight, how = json.loads(layer)
        lines.append(json.dumps([[count, *image], weight, how]))
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        input="\n".join(lines), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    last = child.stdout.strip().rpartition("\n")[2]
    assert child.returncode == 0, f"{child.stderr[-300:]}\nat {last}"
    assert len(child.stdout.splitlines()) == len(lines)


def test_both_memory_formats_compute_the_same(layers):
    assert len(layers) > 150
    compare([(layer, 2) for layer in layers])


@pytest.mark.slow
def test_both_memory_formats_compute_the_same_on_whole_batches(layers):
    compare([(layer, 64 if 64 * flops <= HUGE else 16) for layer, flops in layers.items()])
