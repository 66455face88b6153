"""Every option of `conf/model`: the net it names, its arguments, its size."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml
from nets import SMALL, on_meta

import fmbench
from fmbench.training.cost import count_parameters

OPTIONS = sorted((Path(fmbench.__file__).parent.parent / "conf" / "model").glob("*.yaml"))
every_option = pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)

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
def test_option_has_the_size_of_the_published_net(path):
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
    assert shown == {k: p.default for k, p in inspect.signature(build).parameters.items()}


def test_every_option_is_tested_small_and_every_net_has_an_option():
    assert {path.stem for path in OPTIONS} == SMALL.keys() == PARAMETERS.keys()
