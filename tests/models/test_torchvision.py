"""Any classification model of torchvision by name."""

import socket

import pytest
import torch
from small_models import images, on_meta
from torch import nn
from torchvision import models as tv_models

from fmbench.core.errors import ConfigError
from fmbench.models.torchvision import Torchvision

# One model of each torchvision family: all eighty take half a minute.
FAMILIES = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": None,
    "googlenet": None,
    "inception_v3": 96,
    "maxvit_t": 224,
    "mnasnet0_5": None,
    "mobilenet_v2": None,
    "mobilenet_v3_small": None,
    "regnet_y_128gf": None,
    "resnet18": None,
    "shufflenet_v2_x0_5": None,
    "squeezenet1_0": None,
    "swin_t": None,
    "swin_v2_t": None,
    "vgg11": 32,
    "vit_b_16": 32,
    "vit_h_14": None,
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def connect(self, address):
        raise AssertionError(f"connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "raft_small", "deeplabv3_resnet50"])
def test_models_whose_makers_download_weights_are_none_of_those_allowed(name):
    with pytest.raises(ConfigError, match="is not one of torchvision's"):
        on_meta(Torchvision, name=name)


def test_every_family_of_torchvision_is_covered():
    names = tv_models.list_models(module=tv_models)
    modules = {tv_models.get_model_builder(name).__module__ for name in names}
    assert {tv_models.get_model_builder(name).__module__ for name in FAMILIES} == modules


@pytest.mark.slow
@pytest.mark.parametrize(("name", "smallest"), FAMILIES.items())
def test_torchvision_model_runs_or_says_the_size_it_needs(name, smallest):
    if smallest is not None:
        with pytest.raises(ConfigError) as refusal:
            on_meta(Torchvision, name=name)
        assert str(refusal.value) == (
            f"model.name={name} cannot take images of 28 x 28; "
            f"the smallest usual size that works is model.upsample={smallest}"
        )
    model = on_meta(Torchvision, name=name, upsample=smallest).train()
    with torch.no_grad():
        assert model(images(2).to("meta")).shape == (2, 10)


@pytest.mark.parametrize(("name", "upsample"), [("googlenet", None), ("inception_v3", 96)])
def test_auxiliary_heads_are_left_out(name, upsample):
    model = on_meta(Torchvision, name=name, upsample=upsample).train()
    assert isinstance(model(images(2).to("meta")), torch.Tensor)
    assert not [name for name, _ in model.named_parameters() if "aux" in name.lower()]


def test_upsampling_happens_only_when_asked():
    assert not any(isinstance(m, nn.Upsample) for m in Torchvision().modules())
    model = Torchvision(upsample=64)
    assert model.upsample(images()).shape == (4, 1, 64, 64)


def test_dropout_of_torchvision_is_its_own_unless_given():
    def rates(**settings):
        model = on_meta(Torchvision, **settings)
        return {m.p for m in model.modules() if isinstance(m, nn.Dropout)}

    assert rates() == {0.2}
    assert rates(dropout=0.4) == {0.4}


def test_a_refused_model_never_gets_its_weights(monkeypatch):
    built = []
    convolution = nn.Conv2d.__init__

    def spy(self, *args, **kwargs):
        convolution(self, *args, **kwargs)
        built.append(self.weight.device.type)

    monkeypatch.setattr(nn.Conv2d, "__init__", spy)
    with pytest.raises(ConfigError):
        Torchvision(name="vgg19")
    assert set(built) == {"meta"}


def test_first_convolution_of_torchvision_keeps_the_spread_of_its_responses():
    def stem(channels):
        torch.manual_seed(0)
        model = Torchvision(name="resnet18", channels=channels)
        return model.net.conv1.weight

    colour, grey, six = stem(3), stem(1), stem(6)
    assert (colour.shape[1], grey.shape[1], six.shape[1]) == (3, 1, 6)
    torch.testing.assert_close(grey, colour[:, :1] * 3**0.5)
    torch.testing.assert_close(six.square().sum(), colour.square().sum())
