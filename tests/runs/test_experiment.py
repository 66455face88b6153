"""What a run does otherwise than its experiment, and what stands for a ready sweep."""

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from fmbench.config import checks as configuration
from fmbench.config import sources
from fmbench.records.record import keys, recorded_overrides
from fmbench.runs.experiment import chosen, deviations, labels, options_of_sweep


@pytest.fixture
def job():
    """The resolved config and the `hydra` part of a job with these overrides."""
    configuration.register()
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        loader = GlobalHydra.instance().config_loader()

        def compose(*overrides):
            composed = loader.load_configuration("config", list(overrides), RunMode.RUN)
            return configuration.resolve(composed), composed.hydra

        yield compose


def test_an_experiment_as_it_is_deviates_in_nothing(job):
    assert deviations(*job("experiment=lenet")) == []
    assert deviations(*job()) == []
    assert chosen(job("experiment=lenet")[1], "experiment") == "lenet"
    assert chosen(job()[1], "experiment") is None


@pytest.mark.parametrize(
    "override",
    [
        "seed=7", "device=cpu", "precision=bf16", "threads=1", "deterministic=true",
        "evaluation.every=null",
        "data.root=/elsewhere", "data.download=false", "hydra.run.dir=x", "model=lenet",
        "optimizer.lr=0.001", "optimizer.lr=1e-3", "batch_size=8", "data.split=standard",
    ],
)  # fmt: skip
def test_what_is_no_part_of_a_recipe_is_no_deviation(job, override):
    assert deviations(*job("experiment=lenet", override)) == []


@pytest.mark.parametrize(("overrides", "found"), [
    (["epochs=3"], ["epochs=3"]),
    (["reference.accuracy=0.5"], ["reference.accuracy=0.5"]),
    (["label_smoothing=0.1"], ["label_smoothing=0.1"]),
    (["optimizer.lr=0.1"], ["optimizer.lr=0.1"]),
    (["scheduler.milestones=[1,2]"], ["scheduler.milestones=[1,2]"]),
    (["data.mean=0.3"], ["data.mean=0.3"]),
    (["data.split.validation=5000"], ["data.split.validation=5000"]),
    (["augmentation.flip=null"], ["augmentation.flip=null"]),
    (["model=lenet5"], ["model=lenet5"]),
    # What an option brings is said by the option.
    (["data=synthetic", "data.train_size=9"], ["data=synthetic"]),
    (["~optimizer.fused"], ["~optimizer.fused"]),
    (["data.split=holdout"], ["data.split=holdout"]),
    (["optimizer=adam", "epochs=1"], ["optimizer=adam", "epochs=1"]),
])  # fmt: skip
def test_deviations_are_the_overrides_that_matter(job, overrides, found):
    assert deviations(*job("experiment=lenet", *overrides)) == found


def test_a_ready_sweep_gives_way_to_the_options_it_chose(job):
    _, there = job("sweep=lr_batch", "seed=1")
    assert options_of_sweep(there) == ["data.split=holdout"]
    _, there = job("sweep=lr_batch", "data.split=custom", "data.split.validation=9")
    assert options_of_sweep(there) == []
    _, there = job("sweep=resnet18_batch_sizes", "experiment=resnet18_batch256")
    assert options_of_sweep(there) == []
    assert options_of_sweep(job("seed=1")[1]) == []


@pytest.mark.parametrize("overrides", [
    ["experiment=lenet", "seed=3"],
    ["sweep=resnet18_batch_sizes"],
    ["sweep=resnet18_batch_sizes", "experiment=resnet18_batch512", "model.width=8"],
    ["sweep=lr_batch", "experiment=lenet", "batch_size=256"],
    ["sweep=lr_batch", "model=lenet5", "optimizer=adam"],
    ["sweep=seeds", "experiment=preact_resnet20_cutout", "seed=2"],
])  # fmt: skip
def test_a_recorded_command_makes_its_run_again(job, overrides):
    resolved, there = job(*overrides)
    again, _ = job(*recorded_overrides([*overrides, *options_of_sweep(there)]))
    assert keys(again, "images", "split") == keys(resolved, "images", "split")


def test_another_folder_has_another_recipe_of_the_same_name(tmp_path):
    """And so has the same folder, in a notebook, once its file was changed."""
    configuration.register()

    def found():
        conf = str(configuration.CONFIG_DIR)
        with sources.own_folders([tmp_path]), hydra.initialize_config_dir(conf):
            loader = GlobalHydra.instance().config_loader()
            composed = loader.load_configuration("config", ["experiment=own"], RunMode.RUN)
            return deviations(configuration.resolve(composed), composed.hydra)

    (tmp_path / "experiment").mkdir()
    for epochs in (1, 2):
        (tmp_path / "experiment" / "own.yaml").write_text(
            f"# @package _global_\nepochs: {epochs}\n"
        )
        assert found() == []


def test_an_experiment_of_ones_own_that_keeps_the_figures_is_compared_with_their_recipe(tmp_path):
    """It could otherwise claim the figures of another recipe for its own."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "short.yaml").write_text(
        "# @package _global_\ndefaults: [lenet, _self_]\nepochs: 1\n"
    )
    configuration.register()
    folders = [f"file://{tmp_path}", f"file://{configuration.CONFIG_DIR}"]
    with hydra.initialize_config_search_path(folders):
        loader = GlobalHydra.instance().config_loader()
        composed = loader.load_configuration("config", ["experiment=short"], RunMode.RUN)
        assert deviations(configuration.resolve(composed), composed.hydra) == ["epochs=1"]


def test_published_experiments_run_in_fp32(job):
    files = sorted((configuration.CONFIG_DIR / "experiment").glob("*.yaml"))
    assert len(files) == 18
    assert {yaml.safe_load(path.read_text("utf-8"))["precision"] for path in files} == {"fp32"}
    assert job("experiment=alexnet")[0]["precision"] == "fp32"
    assert job()[0]["precision"] == "auto"


@pytest.mark.parametrize(("overrides", "group", "label"), [
    (["optimizer=adam"], "optimizer", "adam"),
    (["optimizer=adam", "optimizer._target_=torch.optim.NAdam"], "optimizer", "torch.optim.NAdam"),
    (["optimizer=adam", "optimizer._target_=torch.optim.Adam"], "optimizer", "adam"),
    (["experiment=lenet5", "optimizer._target_=a.B"], "optimizer", "a.B"),
    (["model=lenet", "model._target_=own.Net"], "model", "own.Net"),
    (["model=torchvision"], "model", "torchvision"),
    (["scheduler._target_=own.warm"], "scheduler", "own.warm"),
    (["scheduler=constant"], "scheduler", "constant"),
])  # fmt: skip
def test_the_label_is_of_what_was_built(job, overrides, group, label):
    assert labels(*job(*overrides))[group] == label


@pytest.mark.parametrize(("name", "more", "label"), [
    ("mine", [], "mine"),
    ("mine", ["optimizer._target_=torch.optim.NAdam"], "torch.optim.NAdam"),
    ("adam", [], "own.Adam"),  # one's own option with the name of fmbench's
])  # fmt: skip
def test_the_label_of_an_option_of_ones_own(tmp_path, name, more, label):
    option = tmp_path / "optimizer" / f"{name}.yaml"
    option.parent.mkdir()
    option.write_text("defaults: [sgd]\n_target_: own.Adam\n", "utf-8")
    configuration.register()
    folders = [f"file://{tmp_path}", f"file://{configuration.CONFIG_DIR}"]
    with hydra.initialize_config_search_path(folders):
        loader = GlobalHydra.instance().config_loader()
        chosen_ones = [f"optimizer={name}", *more]
        composed = loader.load_configuration("config", chosen_ones, RunMode.RUN)
        found = labels(configuration.resolve(composed), composed.hydra)
    assert found["optimizer"] == label
