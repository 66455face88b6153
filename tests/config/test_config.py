import importlib
import re
import shutil
from dataclasses import fields
from fnmatch import fnmatch

import optuna
import pytest
import torch
import yaml
from commands import CHECKOUT, compose, raises_one_line

from fmbench.config import checks as configuration
from fmbench.config import schema, sources, trust, whitelist
from fmbench.config.augmentation import Crop, Cutout, Erasing, Flip, Parts
from fmbench.config.schema import renamed_override
from fmbench.config.whitelist import TARGETS
from fmbench.core.errors import ConfigError


@pytest.mark.parametrize(("overrides", "changed"), [
    (["augmentation.cutout={size: 8}"], {"cutout": (8, 1.0, False)}),
    (["+augmentation.cutout={size:14}"], {"cutout": (14, 1.0, False)}),
    (["augmentation.cutout={}"], {"cutout": (16, 1.0, False)}),
    (["augmentation.cutout={}", "augmentation.cutout.inside=true"], {"cutout": (16, 1.0, True)}),
    (["augmentation.crop={padding: 2}"], {"crop": (2,)}),
    (["augmentation.flip=null"], {"flip": None}),
    (["augmentation.erasing={probability: 1}"], {"erasing": (1.0, [0.02, 0.33], [0.3, 3.3])}),
    (["augmentation={cutout: {size: 4}, crop: null}"], {"cutout": (4, 1.0, False), "crop": None}),
], ids=str)  # fmt: skip
def test_parts_of_an_augmentation_compose_and_are_recorded_whole(overrides, changed):
    """With every number, so that the same run has the same key however it was written."""
    before = compose("augmentation=crop_flip")["augmentation"]
    after = compose("augmentation=crop_flip", *overrides)["augmentation"]
    assert list(after) == [part.name for part in fields(Parts)]
    for name, numbers in after.items():
        if name in changed:
            assert (numbers and tuple(numbers.values())) == changed[name]
        else:
            assert numbers == before[name]


def test_the_parts_of_the_options_are_written_out_whole():
    """So that who reads an option's file sees every number."""
    for file in (CHECKOUT / "conf" / "augmentation").glob("*.yaml"):
        config = compose(f"augmentation={file.stem}")
        configuration.check(config)
        written = yaml.safe_load(file.read_text("utf-8"))
        left_out = {part.name: None for part in fields(Parts)}
        assert left_out | written == config["augmentation"], file
    for name, part in {"crop": Crop, "flip": Flip, "cutout": Cutout, "erasing": Erasing}.items():
        assert compose(f"augmentation.{name}={{}}")["augmentation"][name] == vars(part())


def test_an_option_and_its_parts_put_together_by_hand_are_one_config():
    for part in ("cutout", "erasing"):
        by_hand = compose("augmentation=crop_flip", f"augmentation.{part}={{}}")
        assert by_hand == compose(f"augmentation=crop_flip_{part}")
    by_hand = compose("augmentation.crop={}", "augmentation.flip={}")
    assert by_hand == compose("augmentation=crop_flip")


@pytest.mark.parametrize(("overrides", "parts"), [
    (["batch_size=0"], ["batch_size=0", "1 or more"]),
    (["epochs=0"], ["epochs=0"]),
    (["evaluation.every=0"], ["evaluation.every=0", "1 or more"]),
    (["evaluation.test=often"], ["evaluation.test=often", "end, never"]),
    (["evaluation.every=2", "evaluation.test=never"], ["evaluation.every=2", "test=never"]),
    (["threads=0"], ["threads=0"]),
    (["seed=-1"], ["seed=-1"]),
    (["seed=9223372036854775808"], ["must be at most 9,223,372,036,854,775,807"]),
    (["label_smoothing=1"], ["label_smoothing=1.0", "below 1"]),
    (["label_smoothing=nan"], ["label_smoothing=nan", "finite"]),
    (["device=tpu"], ["device=tpu", "cuda:N"]),
    (["device=cuda:x"], ["device=cuda:x"]),
    (["precision=fp16"], ["precision=fp16", "bf16"]),
    (["memory_format=nhwc"], ["memory_format=nhwc", "auto, contiguous, channels_last"]),
    (["optimizer.lr=0"], ["optimizer.lr=0", "above 0"]),
    (["optimizer.lr=nan"], ["optimizer.lr=nan", "finite"]),
    (["optimizer.lr=true"], ["optimizer.lr=True"]),
    (["optimizer.lr=fast"], ["optimizer.lr=fast"]),
    (["optimizer=adam", "optimizer.betas=[0.9,nan]"], ["optimizer.betas[1]=nan"]),
    (["data.std=0"], ["data.std=0", "above 0"]),
    (["data.mean=dark"], ["data.mean=dark"]),
    (["+nonsense=1"], ["nonsense", "batch_size"]),
    (["+logger._target_=os.system"], ["logger._target_", "name, experiment"]),
    (["logger.name=wandb"], ["logger.name=wandb", "tensorboard", "mlflow"]),
    (["logger=mlflow", "logger.experiment=' '"], ["logger.experiment=' '", "1 to 200"]),
    (["augmentation.crop={padding: 0}"], ["augmentation.crop.padding=0", "1 to 4096"]),
    (["+augmentation.blur=1"], ["augmentation.blur", "crop, flip, alternating_flip, affine"]),
])  # fmt: skip
def test_refuses(overrides, parts):
    config = compose(*overrides)
    raises_one_line(lambda: configuration.check(config), ConfigError, *parts)


def test_every_option_composes_and_opens_with_a_comment():
    """Experiments and models are composed by tests of their own."""
    for group in (*configuration.GROUPS, "logger", "sweep"):
        files = sorted((CHECKOUT / "conf" / group).glob("*.yaml"))
        assert files, group
        for file in files:
            assert file.read_text("utf-8").startswith("# "), file
            if group not in ("experiment", "model", "augmentation"):
                configuration.check(compose(f"{group}={file.stem}"))


def test_keys_stand_in_the_schema_alone():
    file = yaml.safe_load((CHECKOUT / "conf" / "config.yaml").read_text("utf-8"))
    assert list(file) == ["defaults"]
    config = compose()
    for name, value in schema.defaults().items():
        group, _, key = name.partition(".")
        assert (config[group][key] if key else config[name]) == value, name


def test_the_whitelist_names_what_there_is_and_nothing_private(monkeypatch):
    monkeypatch.setenv("FMBENCH_TRUST", "")
    listed = {group: whitelist.buildable(group) for group in TARGETS}
    for name in (*listed["model"], *listed["optimizer"], *listed["scheduler"]):
        assert "*" not in name
        assert not any(part.startswith("_") for part in name.split("."))
    for group in TARGETS:
        files = (CHECKOUT / "conf" / group).glob("*.yaml")
        named = {yaml.safe_load(file.read_text("utf-8"))["_target_"] for file in files}
        assert named <= set(listed[group])
        ours = {name for name in listed[group] if re.match(r"fmbench\.(?!schedule\.)", name)}
        assert ours <= named
    optimizers = {
        f"torch.optim.{name}"
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and name != "Optimizer"
    }
    assert {name for name in listed["optimizer"] if name.startswith("torch.")} == optimizers
    samplers = [name.rpartition(".") for name in trust.SAMPLERS]
    for module, _, name in samplers:
        assert callable(getattr(importlib.import_module(module), name))
    assert {name for module, _, name in samplers if module == "optuna.samplers"} == {
        name for name in dir(optuna.samplers)
        if name.endswith("Sampler") and not name.startswith("Base")
    }  # fmt: skip


@pytest.mark.parametrize(("group", "target"), [
    # Makes models that find things in pictures too, and downloads weights for them.
    ("model", "fmbench.models.torchvision._build"),
    ("model", "fmbench.models.torchvision.models.get_model"),
    ("model", "fmbench.models.checks.require_positive"),
    ("optimizer", "torch.optim.swa_utils.AveragedModel"),
    ("optimizer", "torch.optim.lr_scheduler.LambdaLR"),
    ("scheduler", "fmbench.optim.schedules.Schedule"),
])  # fmt: skip
def test_what_else_a_module_holds_is_not_started(group, target):
    config = compose()
    config[group]["_target_"] = target
    raises_one_line(lambda: configuration.check(config), ConfigError, f"{target}: not allowed")


def test_nothing_in_a_plugins_package_may_be_started_but_its_class():
    of_runs = (whitelist.buildable(group) for group in TARGETS)
    for patterns in (trust.around_runs(), *of_runs):
        for pattern in patterns:
            assert not fnmatch(
                "hydra_plugins.hydra_ray_launcher._launcher_util._run_command", pattern
            )
            assert not fnmatch("hydra._internal.core_plugins.bash_completion.run", pattern)
    assert not any("hydra" in name for name in whitelist.buildable("model"))


def test_trust_adds_packages_to_the_whitelist(monkeypatch):
    assert not any(name.startswith("mine") for name in trust.around_runs())
    monkeypatch.setenv("FMBENCH_TRUST", "mine, theirs.nets")
    assert {"mine.*", "theirs.nets.*"} <= set(trust.around_runs())


#: Keys of `evaluation` that the former name does not speak of.
LATER = {"corruptions": None, "flips": False}


@pytest.mark.parametrize(
    ("former", "every", "test"), [("0", None, "end"), ("3", 3, "end"), ("null", None, "never")]
)
def test_the_former_name_of_evaluation_is_accepted_for_one_release(former, every, test, caplog):
    configuration._tell_of_former_name.cache_clear()
    config = compose(f"test_every={former}")
    assert config["evaluation"] == {"every": every, "test": test, **LATER}
    assert "test_every" not in config
    now = " ".join(renamed_override(f"test_every={former}"))
    assert [one.message.partition(";")[0] for one in caplog.records] == [
        f"test_every is called {now} now"
    ]
    searched = compose(f"test_every={former}", "evaluation.test=never")
    assert searched["evaluation"] == {"every": None, "test": "never", **LATER}
    raises_one_line(lambda: compose("test_every=often"), ConfigError, "0 or more, or null")


def test_a_schedule_is_known_by_the_path_that_it_had():
    config = compose("scheduler._target_=fmbench.schedule.onecycle")
    assert config["scheduler"] == compose("scheduler=onecycle")["scheduler"]


def test_the_overrides_in_the_place_of_a_former_one_compose():
    """Over an experiment that evaluates after each epoch too."""
    today = renamed_override("test_every=null")
    config = compose("experiment=lenet", *today)
    configuration.check(config)
    assert config["evaluation"] == {"every": None, "test": "never", **LATER}


def test_options_of_fmbench_are_parsed_once_and_each_config_has_its_own(monkeypatch, tmp_path):
    """A sweep composes a config for each of its runs, several times."""
    folder = shutil.copytree(configuration.CONFIG_DIR, tmp_path / "conf")
    for module in (configuration, sources):
        monkeypatch.setattr(module, "CONFIG_DIR", folder)
    parsed = []
    parse = sources.ConfigFiles._parsed

    def counted(source, path):
        parsed.append(path)
        return parse(source, path)

    monkeypatch.setattr(sources.ConfigFiles, "_parsed", counted)
    first = compose("model=lenet5")
    assert len(parsed) == len({*parsed}) > 5
    parsed.clear()
    assert compose("model=lenet5") == first
    assert parsed == []
    # One that was edited meanwhile, as while a notebook is open, is read again.
    file = folder / "model" / "lenet5.yaml"
    file.write_text(file.read_text() + "classes: 7\n")
    assert compose("model=lenet5")["model"] == {**first["model"], "classes": 7}
    assert parsed == [file]
