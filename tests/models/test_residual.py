"""Residual models of basic blocks, and the dense one, beside torchvision's."""

import pytest
from small_models import assert_same_function, images, on_meta
from torch import nn
from torchvision import models as tv_models

from fmbench.models.blocks import BasicBlock
from fmbench.models.densenet import DenseNet
from fmbench.models.resnet18 import ResNet18
from fmbench.models.resnet_light import ResNetLight


def test_resnet18_is_torchvisions_but_for_the_stem():
    reference = tv_models.resnet18(num_classes=10)
    reference.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    assert_same_function(ResNet18(), reference)


def test_resnet_light_is_torchvisions_but_for_the_stem_and_the_head():
    reference = tv_models.resnet18()
    reference.conv1 = nn.Conv2d(1, 64, 3, padding=3, bias=False)
    reference.maxpool = nn.MaxPool2d(2, stride=2, padding=1)
    reference.avgpool = nn.Identity()
    reference.fc = nn.Sequential(nn.Linear(4608, 1024), nn.ReLU(), nn.Linear(1024, 10))
    assert_same_function(ResNetLight(), reference)


def test_densenet_is_torchvisions_but_for_the_stem():
    reference = tv_models.DenseNet(
        growth_rate=12, block_config=(2, 2, 2), num_init_features=24, num_classes=10
    )
    reference.features.conv0 = nn.Conv2d(1, 24, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(reference.features, name, nn.Identity())
    assert_same_function(DenseNet(depth=16), reference)


@pytest.mark.parametrize("depths", [[1], [1, 1], [1, 1, 1], [2, 1, 1, 1, 1], [1] * 7])
def test_resnet_light_takes_any_number_of_stages(depths):
    model = on_meta(ResNetLight, depths=depths, width=4)
    assert model.eval()(images(2).to("meta")).shape == (2, 10)
    assert sum(isinstance(module, BasicBlock) for module in model.modules()) == sum(depths)
