"""Nets of pre-activation blocks, beside plain functions that say the same."""

from functools import partial

import pytest
import torch
from nets import assert_same_function, images, on_meta, randomise, sides
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from fmbench.models.blocks import PreActBlock
from fmbench.models.dualpathnet import DualPathNet
from fmbench.models.preact_resnet20 import PreActResNet20
from fmbench.models.wideresnet import WideResNet
from fmbench.training.cost import count_parameters


class Weights:
    """Operations in training that take a net's parameters one after the other."""

    def __init__(self, net: nn.Module) -> None:
        self.left = list(net.parameters())

    def conv(self, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight = self.left.pop(0)
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def bn_relu(self, x: torch.Tensor) -> torch.Tensor:
        scale, shift = self.left.pop(0), self.left.pop(0)
        return F.relu(F.batch_norm(x, None, None, scale, shift, training=True))

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        logits = F.linear(self.bn_relu(x).mean((2, 3)), *self.left)
        assert len(self.left) == 2
        return logits


def residual_net(net: nn.Module, x: torch.Tensor, widths, blocks, *, first_activated: bool):
    weights = Weights(net)
    x = weights.conv(x)
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            active = weights.bn_relu(x)
            residual = weights.conv(weights.bn_relu(weights.conv(active, stride)))
            if x.shape[1] != width:
                shortcut = weights.conv(active, stride)
            else:
                shortcut = active if first_activated and not block else x
            x = residual + shortcut
            assert x.shape[1:3] == (width, [28, 14, 7][stage])
    return weights.classify(x)


@pytest.mark.parametrize(("depth", "widen"), [(16, 2), (10, 1)])
def test_wideresnet_is_what_the_paper_says(depth, widen):
    net = randomise(WideResNet(depth=depth, widen_factor=widen)).train()
    widths = [16 * widen, 32 * widen, 64 * widen]
    expected = residual_net(net, images(), widths, (depth - 4) // 6, first_activated=False)
    torch.testing.assert_close(net(images()), expected)


def test_preact_resnet20_is_what_the_paper_says():
    net = randomise(PreActResNet20(depth=14, width=8)).train()
    expected = residual_net(net, images(), [8, 16, 32], 2, first_activated=True)
    torch.testing.assert_close(net(images()), expected)


def test_thin_wideresnet_and_preact_resnet20_differ_in_one_shortcut_alone():
    thin, preact = WideResNet(depth=22, widen_factor=1), PreActResNet20()
    assert count_parameters(thin) == count_parameters(preact)
    assert preact.blocks[0].activated_shortcut
    preact.blocks[0].activated_shortcut = False
    assert_same_function(thin, preact)


@pytest.mark.parametrize(("build", "millions"), [
    # Table 4 of the paper, and its text: CIFAR, so in colour.
    (partial(WideResNet, depth=40, widen_factor=4), 8.9),
    (partial(WideResNet, depth=16, widen_factor=8), 11.0),
    (partial(WideResNet, depth=28, widen_factor=10), 36.5),
    # He et al. 2016 (arXiv:1512.03385), table 6: the plain form, as deep and as wide.
    (partial(PreActResNet20, depth=20), 0.27),
    (partial(PreActResNet20, depth=110), 1.7),
])  # fmt: skip
def test_sizes_are_those_the_papers_state(build, millions):
    digits = len(str(millions).partition(".")[2])
    assert round(count_parameters(on_meta(build, channels=3)) / 1e6, digits) == millions


def test_dropout_stands_between_the_convolutions_after_the_relu():
    block = PreActBlock(4, 4, 1, dropout=0.3)
    kinds = [type(layer).__name__ for layer in block.residual]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Dropout", "Conv2d"]
    net = on_meta(WideResNet, depth=16, widen_factor=1, dropout=0.3)
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == 6 * [0.3]


@pytest.mark.parametrize("build", [WideResNet, PreActResNet20, DualPathNet])
def test_stages_see_28_14_and_7_pixels_a_side(build):
    assert list(dict.fromkeys(sides(on_meta(build), nn.Conv2d))) == [28, 14, 7]


def test_dualpathnet_is_what_the_published_definition_says():
    blocks, widths, growths = 2, [32, 64, 128], [5, 10, 20]
    net = randomise(DualPathNet(depth=16, widen_factor=2, growth=5)).train()
    weights = Weights(net)
    x = weights.conv(images())
    for stage, (width, growth) in enumerate(zip(widths, growths, strict=True)):
        stride = 2 if stage else 1
        active = weights.bn_relu(x)
        residual = weights.conv(weights.bn_relu(weights.conv(active, stride)))
        residual = residual + weights.conv(active, stride)
        dense = weights.conv(x, stride)
        assert dense.shape[1] == 2 * growth
        for _ in range(blocks - 1):
            out = weights.bn_relu(torch.cat([residual, dense], dim=1))
            out = weights.conv(weights.bn_relu(weights.conv(out)))
            assert out.shape[1] == width + growth
            residual = residual + out[:, :width]
            dense = torch.cat([dense, out[:, width:]], dim=1)
        x = torch.cat([residual, dense], dim=1)
    torch.testing.assert_close(net(images()), weights.classify(x))
