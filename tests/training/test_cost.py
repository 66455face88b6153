"""What a model costs: parameters and FLOPs, counted without running it."""

import pytest
import torch
from torch import nn

from fmbench.models.densenet import DenseNet
from fmbench.models.lenet import LeNet
from fmbench.models.torchvision import Torchvision
from fmbench.training.cost import count_flops, count_parameters, meta_copy


def test_flops_of_lenet_match_a_count_by_hand():
    convolutions = 28 * 28 * 6 * (1 * 5 * 5) + 10 * 10 * 16 * (6 * 5 * 5)
    linears = 400 * 120 + 120 * 84 + 84 * 10
    assert count_flops(LeNet()) == 2 * (convolutions + linears) == 833_040


class Coloured(nn.Module):
    """A model of pictures of three channels, given grey ones."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x.expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("name", "gigamacs"), [("resnet18", 1.81), ("vit_b_16", 17.56), ("swin_t", 4.49)]
)
def test_flops_match_those_torchvision_publishes(name, gigamacs):
    with torch.device("meta"):
        model = Torchvision(name=name, upsample=224, channels=3, classes=1000)
    assert round(count_flops(Coloured(model)) / 2e9, 2) == gigamacs


def test_counting_flops_leaves_the_model_as_it_was():
    model = DenseNet(depth=16, growth=6).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert count_flops(model) > 0
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_flops_are_those_of_evaluation():
    # In training a batch norm refuses one value per channel, and the count would be unknown.
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 4), nn.BatchNorm1d(4)).train()
    assert count_flops(model) == 2 * 784 * 4


def test_a_model_that_cannot_run_on_meta_has_unknown_flops():
    class ReadsItsInput(nn.Module):
        def forward(self, x):
            return x * x.sum().item()

    assert count_flops(ReadsItsInput()) is None


def test_a_meta_copy_keeps_ties_and_frozen_weights():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    copied = meta_copy(model)
    assert {tensor.device.type for tensor in copied.state_dict().values()} == {"meta"}
    assert copied[1].weight is copied[0].weight
    assert count_parameters(copied) == count_parameters(model) == 9 + 3 + 6
