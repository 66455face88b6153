"""Every option of `conf/model`: the model it names, its arguments, its size."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml
from small_models import SMALL, of_each, on_meta, sides
from torch import nn

import fmbench
from fmbench.models.densenet import DenseNet
from fmbench.models.dualpathnet import DualPathNet
from fmbench.models.preact_resnet20 import PreActResNet20
from fmbench.models.resnet18 import ResNet18
from fmbench.models.resnet_light import ResNetLight
from fmbench.models.shakeshake import ShakeShake
from fmbench.models.wideresnet import WideResNet
from fmbench.training.cost import count_parameters

OPTIONS = sorted((Path(fmbench.__file__).parent.parent / "conf" / "model").glob("*.yaml"))
every_option = pytest.mark.parametrize("path", of_each({path.stem: path for path in OPTIONS}))

# Exact, counted from the published definitions; preact_resnet20 is published as 0.27 million.
PARAMETERS = {
    "alexnet": 7_954_122,
    "alexnet_light": 5_945_290,
    "densenet": 768_730,
    "dualpathnet": 47_751_450,
    "inception_light": 218_366_666,
    "lenet": 61_706,
    "lenet5": 44_426,
    "preact_resnet20": 271_994,
    "resnet18": 11_172_810,
    "resnet_light": 15_897_546,
    "shakeshake": 26_330_026,
    "timm": 1_527_818,
    "torchvision": 1_527_818,
    "vgg_light": 2_981_450,
    "wideresnet": 36_478_906,
}


def read(path):
    """The class that an option names, and its arguments."""
    settings = yaml.safe_load(path.read_text("utf-8"))
    module, _, name = settings.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), name), settings


@every_option
def test_option_has_the_size_of_the_published_model(path):
    build, settings = read(path)
    assert count_parameters(on_meta(build, **settings)) == PARAMETERS[path.stem]
    assert path.read_text("utf-8").startswith("# ")
    assert f"{PARAMETERS[path.stem]:,}" in path.read_text("utf-8")


@every_option
def test_option_file_and_class_agree(path):
    build, settings = read(path)
    assert build.__module__ == f"fmbench.models.{path.stem}"
    assert build.__name__.lower() == path.stem.replace("_", "")
    # The option shows every keyword with its default: what it does not show cannot be overridden.
    shown = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    known = {k: p.default for k, p in inspect.signature(build).parameters.items()}
    of_images = {"channels": 1, "classes": 10, "image_size": (28, 28)}
    assert shown == {k: value for k, value in known.items() if k not in of_images}
    assert known.items() - shown.items() <= of_images.items()


@pytest.mark.parametrize(("build", "settings", "millions"), [
    # Table 4 of the paper, and its text: CIFAR, so in colour.
    (WideResNet, {"depth": 40, "widen_factor": 4}, 8.9),
    (WideResNet, {"depth": 16, "widen_factor": 8}, 11.0),
    (WideResNet, {"depth": 28, "widen_factor": 10}, 36.5),
    # He et al. 2016 (arXiv:1512.03385), table 6: the plain form, as deep and as wide.
    (PreActResNet20, {"depth": 20}, 0.27),
    (PreActResNet20, {"depth": 110}, 1.7),
    # Table 2, CIFAR.
    (DenseNet, {"depth": 100, "growth": 12}, 0.8),
    (DenseNet, {"depth": 250, "growth": 24}, 15.3),
    # Table 1; its 26.2 of 2x96d has a stem of 16 channels.
    (ShakeShake, {"base_channels": 32}, 2.9),
    (ShakeShake, {"base_channels": 64}, 11.7),
])  # fmt: skip
def test_sizes_are_those_the_papers_state(build, settings, millions):
    digits = len(str(millions).partition(".")[2])
    counted = count_parameters(on_meta(build, channels=3, **settings))
    assert round(counted / 1e6, digits) == millions


@pytest.mark.parametrize(("build", "expected"), [
    (ResNet18, [28, 14, 7, 4]), (ResNetLight, [32, 17, 9, 5, 3]),
    *((build, [28, 14, 7]) for build in (DenseNet, WideResNet, PreActResNet20, DualPathNet)),
])  # fmt: skip
def test_convolutions_see_these_sides(build, expected):
    assert list(dict.fromkeys(sides(on_meta(build), nn.Conv2d))) == expected


def test_every_option_is_tested_small_and_every_model_has_an_option():
    assert {path.stem for path in OPTIONS} == SMALL.keys() == PARAMETERS.keys()
