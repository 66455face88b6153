"""That what a config says is what is built: each knob is followed to where it acts."""

from dataclasses import replace

import hydra
import numpy as np
import optuna
import pytest
import torch
from commands import CHECKOUT, TINY, compose, raises_one_line

from fmbench.config import schema, trust
from fmbench.config.augmentation import Crop, Flip, Parts
from fmbench.core.errors import ConfigError
from fmbench.runs import prepare
from fmbench.training.device import Device

#: Of Fashion-MNIST.
IMAGES = prepare.ImageFacts((1, 28, 28), 10)

CPU = Device(torch.device("cpu"), "fp32", threads=1, deterministic=False)


def trainer(*overrides, flops=10**6):
    config = compose(*TINY, *overrides)
    inputs = prepare.read_inputs(config)
    model = prepare.make_model(config, IMAGES)
    return prepare.make_trainer(config, inputs, model, CPU, flops), inputs


def test_every_knob_arrives():
    built, _ = trainer(
        "batch_size=7", "seed=3", "epochs=5", "evaluation.every=2", "label_smoothing=0.1",
        "augmentation=crop_flip", "data.mean=0.4", "data.std=0.5", "optimizer.lr=0.07",
        "scheduler=constant", "data.split=holdout",
    )  # fmt: skip
    assert built.loader.batch_size == 7
    assert built.loader.seed == 3
    assert built.loader.augmentation.parts == Parts(Crop(4), Flip(0.5))
    for part in (built.loader, built.validation, built.test):
        pixels = torch.full((1, 28, 28), 255, dtype=torch.uint8)
        assert part.normalization(pixels).max().item() == pytest.approx((1 - 0.4) / 0.5)
    assert (built.epochs, built.evaluate_every, built.step.loss.label_smoothing) == (5, 2, 0.1)
    assert built.optimizer.param_groups[0]["lr"] == 0.07
    assert isinstance(built.optimizer, torch.optim.SGD)
    assert built.schedule.interval == "epoch"
    assert [len(built.loader.labels), len(built.validation), len(built.test)] == [180, 20, 50]


@pytest.mark.parametrize(("overrides", "parts"), [
    (["scheduler=plateau"], ["scheduler: follows the validation accuracy", "data.split=holdout"]),
    (["early_stop.patience=3"], ["early_stop.patience=3", "data.split=holdout"]),
    (["early_stop.after=3"], ["early_stop.after=3", "epochs=2"]),
    (["averaging=ema", "averaging.decay=2"], ["averaging.decay=2"]),
    (["grad_accumulation=65"], ["grad_accumulation=65", "batch_size=64"]),
])  # fmt: skip
def test_methods_that_cannot_be_are_refused_before_anything_is_written(overrides, parts):
    config = compose(*TINY, *overrides)
    raises_one_line(lambda: prepare.rehearse(config), ConfigError, *parts)


@pytest.mark.parametrize(("override", "parts"), [
    ("scheduler._target_=tutorials.bare_schedule", ["gives a ExponentialLR", ".Schedule, of"]),
    ("averaging._target_=tutorials.bare_average", ["gives a list", "after_batch()"]),
])  # fmt: skip
def test_methods_of_ones_own_that_are_something_else_are_refused(monkeypatch, override, parts):
    monkeypatch.setenv("FMBENCH_TRUST", "tutorials")
    config = compose(*TINY, "scheduler=constant", override)
    raises_one_line(
        lambda: prepare.rehearse(config), ConfigError, override.replace("._target_=", ": "), *parts
    )


def test_a_run_of_a_sweep_refuses_what_no_graph_can_hold():
    """It is not rehearsed, as a run of its own is."""
    config = compose(*TINY, "optimizer=adagrad")
    inputs, graphs = prepare.read_inputs(config), replace(CPU, cuda_graphs=True)
    model = prepare.make_model(config, IMAGES)
    raises_one_line(
        lambda: prepare.make_trainer(config, inputs, model, graphs, 10**6),
        *(ConfigError, "cuda_graphs=true", "Adagrad"),
    )


def test_a_schedule_that_no_graph_can_follow_is_refused_before_a_step():
    config = compose(*TINY, "scheduler.cycle_momentum=true")
    inputs, model = prepare.read_inputs(config), prepare.make_model(config, IMAGES)
    graphs, recorded = replace(CPU, cuda_graphs=True), {**config, "cuda_graphs": True}
    raises_one_line(
        lambda: prepare.make_trainer(recorded, inputs, model, graphs, 10**6),
        *(ConfigError, "cuda_graphs=true: the schedule changes the momentum"),
    )


def test_every_method_arrives():
    built, _ = trainer(
        "averaging=ema", "scheduler=plateau", "early_stop.patience=3", "evaluation.flips=true",
        "grad_accumulation=3", "batch_size=64", "data.split=holdout",
    )  # fmt: skip
    assert built.average is not None
    assert built.schedule.metric == "accuracy"
    assert built.early_stop.patience == 3
    assert built.flips
    assert built.step.micro_batch == 22


class Read(dict):
    """A config that knows which of its keys were read."""

    def __init__(self, config):
        super().__init__(config)
        self.names = set()

    def __getitem__(self, name):
        self.names.add(name)
        return super().__getitem__(name)


def test_a_trainer_is_made_of_what_decides(monkeypatch):
    """A key that is read here and is declared otherwise would put two recipes in one row."""
    monkeypatch.setattr(prepare.configuration, "check", lambda _: None)  # reads all of them
    config = Read(compose(*TINY))
    inputs = prepare.read_inputs(config)
    prepare.make_trainer(config, inputs, prepare.make_model(config, IMAGES), CPU, 10**6)
    assert {"model", "optimizer", "loss"} <= config.names
    for name in config.names - {"evaluation"}:
        assert schema.TOP[name].role in ("result", "hardware"), name


@pytest.mark.parametrize("split", ["standard", "holdout", "custom"])
def test_images_and_labels_are_those_of_the_split(split):
    built, inputs = trainer(f"data.split={split}", "data.split.validation=30")
    images, labels = inputs.dataset.images, inputs.dataset.labels
    expected = [inputs.split.train, inputs.split.validation, inputs.split.test]
    windows = built.loader.windows[0, :, 0, 0]
    found = [
        (windows, built.loader.labels),
        (built.validation.images, built.validation.labels),
        (built.test.images, built.test.labels),
    ]
    for indices, (pixels, classes) in zip(expected, found, strict=True):
        assert np.array_equal(pixels.numpy(), images[indices])
        assert np.array_equal(classes.numpy(), labels[indices])


def test_large_models_are_evaluated_in_smaller_batches():
    assert trainer()[0].test.batch_size == 1000
    assert trainer(flops=10**9)[0].test.batch_size == 128
    assert trainer("batch_size=150", flops=None)[0].test.batch_size == 150


@pytest.mark.parametrize("path", sorted((CHECKOUT / "conf/model").glob("*.yaml")), ids=str)
def test_every_model_can_be_started_from_its_config(path):
    if path.stem == "timm":
        pytest.importorskip("timm", reason="timm is not installed (the extra timm)")
    config = compose(*TINY, f"model={path.stem}")
    prepare.rehearse(config)
    with torch.device("meta"):  # the largest has a gigabyte of weights
        assert isinstance(prepare.make_model(config, IMAGES), torch.nn.Module)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("scheduler", ["constant", "step", "multistep", "cosine", "onecycle"])
def test_every_optimizer_goes_with_every_schedule(optimizer, scheduler):
    built, _ = trainer(f"optimizer={optimizer}", f"scheduler={scheduler}", "epochs=1")
    (epoch,) = built.fit(lambda *_sums: None)
    assert epoch.train.loss < 3


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["optimizer=adam", "optimizer.betas=[0.9]"], "optimizer"),
        (["optimizer.weight_decay=abc"], "optimizer"),
        (["scheduler.warmup=abc"], "scheduler"),
        (["scheduler=multistep", "scheduler.milestones=3"], "scheduler"),
        (["scheduler=multistep", "scheduler.milestones=[1.5]"], "milestones"),
        (["scheduler=multistep", "scheduler.gamma=-1"], "gamma"),
        (["scheduler=step", "scheduler.step_size=2.5"], "step_size"),
        (["scheduler.cycle_momentum=true", "optimizer.momentum=0", "optimizer.nesterov=false"],
         "no momentum"),
        (["augmentation=crop_flip_erasing", "augmentation.erasing.scale=[0.1]"], "scale"),
        (["augmentation=crop_flip_erasing", "augmentation.erasing.ratio=[1,2,3]"], "ratio"),
        (["++model.channels=3"], "model.channels=3: must be 1, as the images"),
        (["++model.classes=5"], "model.classes=5"),
        (["threads=99999999999"], "threads=99999999999"),
        (["device=cuda:007"], "device=cuda:007"),
        (["device=cuda:256"], "cuda:256"),
        (["~data.seed"], "data.seed: is not there"),
        (["~data.split.validation"], "data.split.validation: is not there"),
        (["data.train_size=1.5"], "data.train_size=1.5: must be a whole number, is a float"),
        (["data.split.seed=x"], "data.split.seed=x: must be a whole number"),
        (["model._target_=fmbench.models.lenet5.Nothing"], "Nothing"),
        (["model._target_=fmbench.training.cost.count_flops"], "not allowed"),
        (["batch_size=201"], "batch_size=201: larger than the training part, 200 images"),
    ],
)  # fmt: skip
def test_rehearsal_refuses(overrides, part):
    config = compose(*TINY, *overrides)
    raises_one_line(lambda: prepare.rehearse(config), ConfigError, part)


def test_a_device_with_and_without_a_number_is_chosen(monkeypatch):
    from fmbench.training import device as devices

    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name, index in [("auto", 0), ("cuda", 0), ("cuda:1", 1)]:
        selected = devices.select(name, threads=1, deterministic=False)
        assert selected.torch == chosen[-1] == torch.device("cuda", index)
    raises_one_line(
        lambda: devices.select("cuda:256", threads=1, deterministic=False), ConfigError, "cuda:1"
    )


def test_fp32_is_not_tf32():
    from fmbench.training import device as devices

    with devices.settings_kept():
        before = torch.backends.cudnn.conv.fp32_precision
        devices.select("cpu", threads=1, deterministic=True)
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == before
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
@pytest.mark.parametrize("model", [
    ["model=lenet"],
    ["model=densenet", "model.depth=10", "model.dropout=0.2"],
    ["model=shakeshake", "model.depth=8", "model.base_channels=4"],
], ids=lambda overrides: overrides[0])  # fmt: skip
def test_the_same_run_twice_gives_the_same_weights(model):
    weights = []
    for _ in range(2):
        torch.manual_seed(4)
        built, _ = trainer(*model, "augmentation=crop_flip_cutout", "epochs=2")
        list(built.fit(lambda *_sums: None))
        weights.append(built.model.state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def test_what_may_be_started_around_a_run_is_no_part_of_it(monkeypatch):
    made = []
    monkeypatch.setattr(optuna.samplers.RandomSampler, "__init__", lambda _: made.append(1))
    config = compose(*TINY)
    config["model"]["classes"] = {"_target_": "optuna.samplers.RandomSampler"}
    with hydra.utils.execution_whitelist(trust.around_runs()), pytest.raises(ConfigError):
        prepare.make_model(config, IMAGES)
    assert made == []


@pytest.mark.parametrize(("augmentation", "stored"), [
    ("none", 200 * 28 * 28), ("flip", 2 * 200 * 28 * 28), ("crop_flip", 2 * 200 * 36 * 36),
])  # fmt: skip
def test_padded_and_mirrored_images_are_kept_in_a_quarter_of_the_memory(
    monkeypatch, augmentation, stored
):
    given = compose(*TINY, f"augmentation={augmentation}")
    loaders = []
    for memory in (4 * stored, 4 * stored - 1):
        monkeypatch.setattr(Device, "memory", lambda _, memory=memory: memory)
        inputs = prepare.read_inputs(given)
        loaders.append(prepare.make_train_loader(given, inputs, inputs.device.torch))
    kept, grouped = loaders
    assert kept.windows.untyped_storage().nbytes() == stored
    if augmentation == "none":  # what is kept is no second copy
        assert grouped.windows.untyped_storage().nbytes() == stored
    else:
        assert grouped.windows is None
        assert grouped.images.untyped_storage().nbytes() == 200 * 28 * 28
    for one, other in zip(kept.epoch(1), grouped.epoch(1), strict=True):
        assert all(map(torch.equal, one, other))


def test_images_that_do_not_fit_on_the_device_are_refused_with_the_size_that_would(monkeypatch):
    monkeypatch.setattr(Device, "memory", lambda _: 500_000)
    raises_one_line(
        lambda: prepare.read_inputs(
            compose(*TINY, "augmentation=crop_flip", "data.train_size=300")
        ),
        ConfigError,
        "350 images of 28 x 28 take ",
        "would fit with data.size=",
    )
