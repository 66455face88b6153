"""Models that are one layer after another: LeNet, AlexNet, VGG."""

import pytest
import torch
from small_models import images, on_meta, sides
from torch import nn

from fmbench.models.alexnet import AlexNet, LocalResponseNorm
from fmbench.models.alexnet_light import AlexNetLight
from fmbench.models.lenet import LeNet
from fmbench.models.lenet5 import LeNet5
from fmbench.models.vgg_light import VGGLight


def describe(layer: nn.Module) -> str:
    match layer:
        case nn.Conv2d():
            assert layer.bias is not None
            assert layer.stride == (1, 1)
            text = f"conv {layer.in_channels}>{layer.out_channels} k{layer.kernel_size[0]}"
            return f"{text} p{layer.padding[0]}"
        case nn.Linear():
            return f"FC {layer.in_features}-{layer.out_features}"
        case nn.MaxPool2d() | nn.AvgPool2d():
            assert layer.padding == 0
            name = "MP" if isinstance(layer, nn.MaxPool2d) else "AP"
            return f"{name}{layer.kernel_size} s{layer.stride}"
        case nn.LocalResponseNorm():
            return f"LRN {layer.size} {layer.alpha} {layer.beta} {layer.k}"
        case nn.Dropout():
            return f"dropout {layer.p}"
    return type(layer).__name__


# The published definitions, layer by layer.
LAYERS = {
    LeNet: """
        conv 1>6 k5 p2, ReLU, MP2 s2, conv 6>16 k5 p0, ReLU, MP2 s2,
        FC 400-120, ReLU, FC 120-84, ReLU, FC 84-10""",
    LeNet5: """
        conv 1>6 k5 p0, Tanh, AP2 s2, conv 6>16 k5 p0, Tanh, AP2 s2, conv 16>120 k4 p0, Tanh,
        FC 120-84, Tanh, FC 84-10""",
    AlexNetLight: """
        conv 1>96 k3 p0, ReLU, MP2 s2, conv 96>256 k3 p2, ReLU, MP3 s2,
        conv 256>384 k3 p1, ReLU, conv 384>384 k3 p1, ReLU, conv 384>256 k3 p1, ReLU, MP3 s2,
        FC 2304-1024, ReLU, dropout 0.5, FC 1024-256, ReLU, dropout 0.5, FC 256-10""",
    AlexNet: """
        conv 1>96 k5 p2, ReLU, MP3 s2, LRN 5 0.0001 0.75 2.0,
        conv 96>256 k5 p2, ReLU, MP3 s2, LRN 5 0.0001 0.75 2.0,
        conv 256>384 k3 p1, ReLU, conv 384>384 k3 p1, ReLU, conv 384>256 k3 p1, ReLU, MP3 s2,
        FC 1024-4096, ReLU, dropout 0.5, FC 4096-10""",
    VGGLight: """
        conv 1>64 k3 p1, ReLU, conv 64>64 k3 p1, ReLU, MP2 s2,
        conv 64>128 k3 p1, ReLU, conv 128>128 k3 p1, ReLU, MP2 s2,
        conv 128>256 k3 p1, ReLU, conv 256>256 k3 p1, ReLU, conv 256>256 k3 p1, ReLU, MP2 s2,
        FC 2304-512, ReLU, dropout 0.5, FC 512-128, ReLU, dropout 0.5, FC 128-10""",
}


@pytest.mark.parametrize(
    ("build", "layers"), LAYERS.items(), ids=[build.__name__ for build in LAYERS]
)
def test_layers_are_those_published_in_their_order(build, layers):
    model = on_meta(build)
    found = [describe(layer) for layer in (*model.features, *model.classifier)]
    assert found == [layer.strip() for layer in layers.split(",")]


@pytest.mark.parametrize(("build", "expected"), [
    (LeNet, [14, 5]),
    (LeNet5, [12, 4]),
    (AlexNetLight, [13, 7, 3]),
    (AlexNet, [13, 6, 2]),
    (VGGLight, [14, 7, 3]),
])  # fmt: skip
def test_poolings_leave_these_sides(build, expected):
    assert sides(on_meta(build), nn.MaxPool2d, nn.AvgPool2d) == expected


@pytest.mark.parametrize("build", [AlexNet, AlexNetLight, VGGLight])
def test_width_scales_every_layer_and_dropout_is_as_asked(build):
    full, wide = on_meta(build), on_meta(build, width=192, dropout=0.1)
    ratio = 192 // full.features[0].out_channels
    for one, other in zip(full.modules(), wide.modules(), strict=True):
        if isinstance(one, nn.Conv2d):
            assert other.out_channels == ratio * one.out_channels
        if isinstance(one, nn.Linear) and one.out_features != 10:
            assert other.out_features == ratio * one.out_features
        if isinstance(one, nn.Dropout):
            assert other.p == 0.1


def test_local_response_norm_is_pytorchs():
    x = 100 * images(3, channels=7)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        ours = x.to(memory_format=memory_format, copy=True).requires_grad_()
        theirs = x.to(memory_format=memory_format, copy=True).requires_grad_()
        expected = nn.LocalResponseNorm(5, 1e-4, 0.75, 2.0)(theirs)
        computed = LocalResponseNorm()(ours)
        assert computed.stride() == expected.stride()
        torch.testing.assert_close(computed, expected)
        expected.square().sum().backward()
        computed.square().sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_local_response_norm_keeps_its_precision_in_bf16():
    x = (40 * images(2, channels=7)).bfloat16()
    computed = LocalResponseNorm()(x)
    assert computed.dtype == torch.bfloat16
    expected = nn.LocalResponseNorm(5, 1e-4, 0.75, 2.0)(x.float())
    torch.testing.assert_close(computed.float(), expected, rtol=2**-8, atol=0)


def test_alexnet_trains_through_no_operation_that_a_gpu_cannot_repeat():
    """PyTorch's list, `torch.use_deterministic_algorithms`: average pooling in three dimensions."""
    names, nodes = set(), [AlexNet(width=3)(images(1)).grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None:
            names.add(node.name())
            nodes += [parent for parent, _ in node.next_functions]
    assert "AvgPool2DBackward0" in names
    assert not [name for name in names if "3D" in name]
