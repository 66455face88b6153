"""Each published row is an experiment, with the recipe and the figures that were published."""

import functools
import re

import hydra
import pytest
import torch
import yaml
from commands import CHECKOUT, compose
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from fmbench.config import checks as configuration
from fmbench.config.published import check_reference
from fmbench.runs import prepare
from fmbench.training.cost import count_parameters
from fmbench.training.device import Device

#: Of Fashion-MNIST.
IMAGES = prepare.ImageFacts((1, 28, 28), 10)

FOLDER = CHECKOUT / "conf" / "experiment"

CNN = "CNN Implementation for Fashion-MNIST"
FASHION_CNN = "FashionMNIST_CNN"
CUSTOM = "PyTorch Image Classification on CUSTOM Fashion MNIST"
PYTORCH = "Fashion-MNIST with PyTorch"
HYSTS = "hysts/pytorch_image_classification, README"

#: Of each project: split, batch size, epochs, seed, normalisation, optimizer, schedule.
LIGHT = {
    "split": "standard", "batch_size": 8, "epochs": 30, "seed": 230, "mean": 0.406, "std": 0.225,
    "optimizer": ("SGD", 1e-3, 0.9, False, 1e-4),
    "scheduler": {"milestones": [6, 13, 20, 27], "gamma": 0.1},
    "augmentation": "flip",
}  # fmt: skip
HOLDOUT = {
    "split": "holdout", "batch_size": 100, "epochs": 15, "seed": 0,
    "optimizer": ("Adam", 1e-3, None, None, 0), "scheduler": {}, "augmentation": "none",
}  # fmt: skip
HALVES = {"split": "custom", "augmentation": "crop_flip"}
SHAKE = {
    **HALVES, "batch_size": 256, "epochs": 1800, "seed": 30000, "cutout": 16,
    "optimizer": ("SGD", 0.1, 0.9, False, 1e-4), "scheduler": {"min_lr": 0},
    "augmentation": "crop_flip_cutout",
}  # fmt: skip
BATCHES = {
    "split": "standard", "epochs": 50, "seed": 0, "optimizer": ("SGD", 0.01, 0, False, 0),
    "scheduler": {}, "augmentation": "none",
}  # fmt: skip
COSINE = {
    "split": "standard", "batch_size": 128, "epochs": 200, "seed": 0,
    "optimizer": ("SGD", 0.2, 0.9, True, 1e-4), "scheduler": {"min_lr": 0},
    "augmentation": "crop_flip",
}  # fmt: skip

#: Experiment: model, its parameters, published accuracy, seconds, source, recipe.
ROWS = {
    "lenet": ("lenet", 61_706, 0.9016, 18 * 60 + 29, CNN, LIGHT),
    "alexnet_light": ("alexnet_light", 5_945_290, 0.9219, 35 * 60 + 39, CNN, LIGHT),
    "vgg_light": ("vgg_light", 2_981_450, 0.9135, 30 * 60 + 35, CNN, LIGHT),
    "inception_light": ("inception_light", 218_366_666, 0.9274, 416 * 60 + 54, CNN, LIGHT),
    "resnet_light": ("resnet_light", 15_897_546, 0.9340, 82 * 60 + 24, CNN, LIGHT),
    "lenet5": ("lenet5", 44_426, 0.883, None, FASHION_CNN, HOLDOUT),
    "alexnet": ("alexnet", 7_954_122, 0.9141, None, FASHION_CNN, HOLDOUT),
    "wideresnet": (
        "wideresnet", 36_478_906, 0.932775, 7 * 3600, CUSTOM,
        {**HALVES, "batch_size": 256, "epochs": 200, "seed": 40000,
         "optimizer": ("SGD", 0.1, 0.9, True, 5e-4),
         "scheduler": {"milestones": [60, 120, 160], "gamma": 0.2}},
    ),
    "densenet": (
        "densenet", 768_730, 0.9377, 3.5 * 3600, CUSTOM,
        {**HALVES, "batch_size": 128, "epochs": 300, "seed": 40000,
         "optimizer": ("SGD", 0.1, 0.9, True, 1e-4),
         "scheduler": {"milestones": [150, 225], "gamma": 0.1}},
    ),
    "dualpathnet": (
        "dualpathnet", 47_751_450, 0.9321, 6 * 3600, CUSTOM,
        {**HALVES, "batch_size": 256, "epochs": 200, "seed": 30000,
         "optimizer": ("SGD", 0.1, 0.9, False, 5e-4),
         "scheduler": {"milestones": [60, 120, 160], "gamma": 0.2}},
    ),
    "shakeshake_96": ("shakeshake", 26_330_026, 0.937275, 40 * 3600, CUSTOM, SHAKE),
    "shakeshake_64": ("shakeshake", 11_708_362, 0.93725, 25 * 3600, CUSTOM, SHAKE),
    "resnet18_batch64": (
        "resnet18", 11_172_810, None, None, PYTORCH, {**BATCHES, "batch_size": 64},
    ),
    "resnet18_batch256": (
        "resnet18", 11_172_810, None, None, PYTORCH, {**BATCHES, "batch_size": 256},
    ),
    "resnet18_batch512": (
        "resnet18", 11_172_810, None, None, PYTORCH, {**BATCHES, "batch_size": 512},
    ),
    "preact_resnet20": ("preact_resnet20", 0.27e6, 0.9496, 26 * 60, HYSTS, COSINE),
    "preact_resnet20_cutout": (
        "preact_resnet20", 0.27e6, 0.9551, 26 * 60, HYSTS,
        {**COSINE, "augmentation": "crop_flip_cutout", "cutout": 16},
    ),
    "shakeshake_96_cutout14": (
        "shakeshake", 26_330_026, 0.9640, 26 * 3600 + 42 * 60, HYSTS,
        {**COSINE, "epochs": 800, "augmentation": "crop_flip_cutout", "cutout": 14},
    ),
}  # fmt: skip
every_row = pytest.mark.parametrize("name", ROWS)

#: What makes a two-step training of a large model fast; the structure stays.
NARROW = {
    "alexnet": ["model.width=9"],
    "alexnet_light": ["model.width=9"],
    "vgg_light": ["model.width=8"],
    "inception_light": ["model.width=4"],
    "resnet_light": ["model.width=8"],
    "resnet18": ["model.width=8"],
    "wideresnet": ["model.depth=10", "model.widen_factor=1"],
    "densenet": ["model.depth=16"],
    "dualpathnet": ["model.depth=16", "model.widen_factor=1"],
    "shakeshake": ["model.base_channels=8"],
}


@functools.cache
def composed(name):
    """The resolved config of an experiment, and the option taken from each group."""
    configuration.register()
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", [f"experiment={name}"], RunMode.RUN)
        return configuration.resolve(config), dict(config.hydra.runtime.choices)


def test_every_published_row_has_its_experiment_and_no_other_is_there():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(ROWS)


@every_row
def test_the_recipe_is_the_published_one(name):
    recipe = ROWS[name][-1]
    config, choices = composed(name)
    configuration.check(config)
    for knob in ("batch_size", "epochs", "seed"):
        assert config[knob] == recipe[knob]
    assert config["label_smoothing"] == 0
    assert choices["data.split"] == config["data"]["split"]["name"] == recipe["split"]
    assert config["data"]["mean"] == recipe.get("mean", 0.2860)
    assert config["data"]["std"] == recipe.get("std", 0.3530)
    optimizer = config["optimizer"]
    keys = ("lr", "momentum", "nesterov", "weight_decay")
    found = (optimizer["_target_"].rpartition(".")[2], *(optimizer.get(key) for key in keys))
    assert found == recipe["optimizer"]
    schedule = {k: v for k, v in config["scheduler"].items() if k != "_target_"}
    assert schedule == recipe["scheduler"]
    kind = {2: "multistep", 1: "cosine", 0: "constant"}[len(schedule)]
    assert config["scheduler"]["_target_"] == f"fmbench.optim.schedules.{kind}"
    parts = config["augmentation"]
    assert choices["augmentation"] == recipe["augmentation"]
    assert parts["crop"] == ({"padding": 4} if "crop" in recipe["augmentation"] else None)
    assert parts["flip"] == ({"probability": 0.5} if "flip" in recipe["augmentation"] else None)
    cutout = {"size": recipe.get("cutout"), "probability": 1.0, "inside": False}
    assert parts["cutout"] == (cutout if "cutout" in recipe else None)
    assert parts["erasing"] is None


@every_row
def test_the_published_figures_are_those_of_the_source(name):
    _, parameters, accuracy, seconds, source, _ = ROWS[name]
    config, _ = composed(name)
    reference = config["reference"]
    check_reference(reference)
    assert reference["source"] == source
    assert reference["accuracy"] == accuracy
    assert reference["seconds"] == seconds
    assert reference["parameters"] == parameters
    protocol = "best epoch on test" if source in (CNN, CUSTOM) else "not stated"
    assert reference["protocol"] == ("last epoch" if source == HYSTS else protocol)
    # What is the best of all epochs can only be compared with as many looks.
    assert (config["evaluation"]["every"] == 1) == (source in (CNN, CUSTOM, PYTORCH))
    assert reference.get("approximate", False) == (source == CUSTOM)
    devices = {CNN: "GTX 1070", CUSTOM: "GTX 1080 Ti", HYSTS: "GTX 1080 Ti"}
    assert reference["device"] == devices.get(source)
    with torch.device("meta"):
        counted = count_parameters(prepare.make_model(config, IMAGES))
    assert (round(counted, -4) if source == HYSTS and parameters < 1e6 else counted) == parameters


@every_row
def test_the_file_opens_with_its_command_and_what_to_expect(name):
    lines = (FOLDER / f"{name}.yaml").read_text("utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    opening = "\n".join(line[1:].strip() for line in lines[1 : lines.index("defaults:")])
    assert f"python -m fmbench experiment={name}\n" in opening
    accuracy = ROWS[name][2]
    if accuracy is not None:
        (published,) = re.findall(r"^Published: ([\d.]+) %", opening, re.MULTILINE)
        assert float(published) == pytest.approx(100 * accuracy)
    assert re.search(r"^Expect", opening, re.MULTILINE)
    # Whether it was run, and what came out, is said in one place alone.
    assert "reached here: docs/results.md" in opening


#: One of each source, or of each family of models.
FEW = (
    "lenet",
    "alexnet",
    "densenet",
    "shakeshake_96",
    "resnet18_batch64",
    "preact_resnet20_cutout",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in ROWS]
)
def test_two_steps_of_training(name):
    option = ROWS[name][0]
    config = compose(
        f"experiment={name}", "data=synthetic", "data.train_size=200", "data.test_size=50",
        "epochs=1", "batch_size=60", "threads=1", *NARROW.get(option, []),
    )  # fmt: skip
    inputs = prepare.read_inputs(config)
    device = Device(torch.device("cpu"), "fp32", threads=1, deterministic=False)
    torch.manual_seed(0)
    model = prepare.make_model(config, IMAGES)
    before = [parameter.clone() for parameter in model.parameters()]
    trainer = prepare.make_trainer(config, inputs, model, device, flops=10**6)
    (epoch,) = trainer.fit(lambda *_sums: None)
    assert len(trainer.loader) >= 2
    assert 0 < epoch.train.loss < 10
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert all(moved)


def test_the_ready_sweep_is_the_three_batch_sizes():
    said = yaml.safe_load((CHECKOUT / "conf/sweep/resnet18_batch_sizes.yaml").read_text("utf-8"))
    names = said["hydra"]["sweeper"]["params"]["experiment"].split(",")
    assert names == [name for name in ROWS if name.startswith("resnet18_")]
