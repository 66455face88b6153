"""Models of pre-activation blocks, beside plain functions that say the same."""

import pytest
import torch
from small_models import assert_same_function, images, on_meta, randomise
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from fmbench.models.blocks import PreActBlock
from fmbench.models.dualpathnet import DualPathNet
from fmbench.models.preact_resnet20 import PreActResNet20
from fmbench.models.wideresnet import WideResNet
from fmbench.training.cost import count_parameters


class Weights:
    """Operations in training that take a model's parameters one after the other."""

    def __init__(self, model: nn.Module) -> None:
        self.left = list(model.parameters())

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


def residual_model(model: nn.Module, x: torch.Tensor, widths, blocks, *, first_activated: bool):
    weights = Weights(model)
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
    model = randomise(WideResNet(depth=depth, widen_factor=widen)).train()
    widths = [16 * widen, 32 * widen, 64 * widen]
    expected = residual_model(model, images(), widths, (depth - 4) // 6, first_activated=False)
    torch.testing.assert_close(model(images()), expected)


def test_preact_resnet20_is_what_the_paper_says():
    model = randomise(PreActResNet20(depth=14, width=8)).train()
    expected = residual_model(model, images(), [8, 16, 32], 2, first_activated=True)
    torch.testing.assert_close(model(images()), expected)


def test_thin_wideresnet_and_preact_resnet20_differ_in_one_shortcut_alone():
    thin, preact = WideResNet(depth=22, widen_factor=1), PreActResNet20()
    assert count_parameters(thin) == count_parameters(preact)
    assert preact.blocks[0].activated_shortcut
    preact.blocks[0].activated_shortcut = False
    assert_same_function(thin, preact)


def test_dropout_stands_between_the_convolutions_after_the_relu():
    block = PreActBlock(4, 4, 1, dropout=0.3)
    kinds = [type(layer).__name__ for layer in block.residual]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Dropout", "Conv2d"]
    model = on_meta(WideResNet, depth=16, widen_factor=1, dropout=0.3)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == 6 * [0.3]


def test_dualpathnet_is_what_the_published_definition_says():
    blocks, widths, growths = 2, [32, 64, 128], [5, 10, 20]
    model = randomise(DualPathNet(depth=16, widen_factor=2, growth=5)).train()
    weights = Weights(model)
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
    torch.testing.assert_close(model(images()), weights.classify(x))
