"""How weights start."""

import pytest
import torch
from torch import nn

from fmbench.models.alexnet import AlexNet
from fmbench.models.alexnet_light import AlexNetLight
from fmbench.models.densenet import DenseNet
from fmbench.models.dualpathnet import DualPathNet
from fmbench.models.inception_light import InceptionLight
from fmbench.models.preact_resnet20 import PreActResNet20
from fmbench.models.resnet18 import ResNet18
from fmbench.models.resnet_light import ResNetLight
from fmbench.models.shakeshake import ShakeShake
from fmbench.models.vgg_light import VGGLight
from fmbench.models.wideresnet import WideResNet


@pytest.mark.parametrize(("build", "settings"), [
    (DenseNet, {"depth": 22, "growth": 24}),
    (DualPathNet, {"depth": 10, "widen_factor": 2}),
    (PreActResNet20, {"depth": 14, "width": 32}),
    (ResNet18, {"depths": [1, 1, 1, 1], "width": 32}),
    (ShakeShake, {"depth": 8, "base_channels": 48}),
    (WideResNet, {"depth": 10, "widen_factor": 3}),
])  # fmt: skip
def test_residual_and_dense_models_start_he_normal_by_fan_out(build, settings):
    torch.manual_seed(0)
    model = build(**settings)
    checked = 0
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
            if module.weight.numel() > 10_000:
                fan_out = module.out_channels * module.kernel_size[0] ** 2
                assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
                checked += 1
    assert checked > 3
    assert not model.classifier.bias.any()


def test_classifier_of_dualpathnet_starts_he_normal_by_fan_in():
    torch.manual_seed(0)
    weight = DualPathNet(depth=10, widen_factor=4, classes=100).classifier.weight
    assert weight.std().item() == pytest.approx((2 / weight.shape[1]) ** 0.5, rel=0.05)
    assert weight.abs().max() > 3 / weight.shape[1] ** 0.5  # no uniform has such tails


@pytest.mark.parametrize(
    ("build", "width"),
    [(AlexNet, 12), (AlexNetLight, 12), (InceptionLight, 4), (ResNetLight, 8), (VGGLight, 8)],
)
def test_models_of_the_tutorials_start_as_pytorch_draws_them(build, width):
    torch.manual_seed(0)
    model = build(width=width)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5
            assert module.weight.abs().max() <= bound
            if module.weight.numel() > 500:
                assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
            assert module.bias is None or 0 < module.bias.abs().max() <= bound
