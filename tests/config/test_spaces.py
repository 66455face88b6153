"""The values that a search tries: of the optimizer's option, or the user's."""

from contextlib import contextmanager

import hydra
import pytest
import yaml
from commands import CHECKOUT, compose, raises_one_line, write_option
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from fmbench.config import checks as configuration
from fmbench.config import hydra_compat, spaces
from fmbench.config.contestants import contestants
from fmbench.config.overrides import mended
from fmbench.config.sweep import _check_search
from fmbench.core.errors import ConfigError
from fmbench.records.record import recorded_overrides

SGD, ADAM = "tag(log, interval(1e-3, 0.3))", "tag(log, interval(1e-4, 0.03))"


@contextmanager
def sweep(*overrides, searchpath=None):
    """The config of a sweep, as Hydra composes it."""
    configuration.register()
    own = [f"hydra.searchpath=[file://{searchpath}]"] if searchpath else []
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        loader = GlobalHydra.instance().config_loader()
        given = mended(["sweep=lr_batch", *overrides, *own])
        yield loader.load_configuration("config", given, RunMode.MULTIRUN)


def searched(config):
    """The distribution of the learning rate, as the search makes it."""
    given = [f"{key}={value}" for key, value in spaces.params(config).items()]
    return hydra_compat.search_space(given)[0].get("optimizer.lr")


@pytest.mark.parametrize(
    ("overrides", "values", "said"),
    [
        ([], SGD, f"optimizer.lr: {SGD} (of optimizer=sgd)"),
        (["optimizer=adam"], ADAM, f"optimizer.lr: {ADAM} (of optimizer=adam)"),
        (["optimizer=adam", "sweep=pareto"], ADAM, "(of optimizer=adam)"),
        (
            ["optimizer=adam", "optimizer.search.lr=interval(1e-3,0.1)"],
            "interval(1e-3,0.1)",
            "optimizer.lr: interval(1e-3,0.1) (of optimizer=adam)",
        ),
        (["optimizer.search=null"], SGD, "(as usual; optimizer=sgd brings no range)"),
        (["optimizer.search.lr=null"], None, "batch_size: choice(64, 256, 512) (as hydra."),
        (["optimizer.lr=interval(0.1,0.2)"], SGD, "optimizer.lr: interval(0.1,0.2) (as typed)"),
        (
            ["hydra.sweeper.params={optimizer.lr:'interval(0.1,0.3)'}"],
            "interval(0.1,0.3)",
            "optimizer.lr: interval(0.1,0.3) (as hydra.sweeper.params says)",
        ),
    ],
)
def test_a_search_takes_the_learning_rates_of_its_optimizer_unless_told_others(
    overrides, values, said
):
    with sweep(*overrides) as config:
        wanted = None if values is None else hydra_compat.search_space([f"optimizer.lr={values}"])
        assert searched(config) == (wanted and wanted[0]["optimizer.lr"])
        assert said in " ".join(spaces.told(config))


def test_a_search_over_optimizers_says_that_they_share_a_space():
    with sweep("optimizer=choice(sgd,adam)") as config:
        assert "one search" in spaces.told(config)[1]
        assert "sweep=tuned" in spaces.told(config)[1]


def test_contestants_have_the_schedule_of_their_optimizer():
    given = ["sweep=tuned", "optimizer=sgd,schedule_free_sgd"]
    with sweep(*given) as config:
        loader = GlobalHydra.instance().config_loader()
        found = contestants(loader, config, spaces.params(config), given)
    schedules = [one.config.scheduler._target_.rpartition(".")[2] for one in found]
    assert schedules == ["onecycle", "constant"]


def test_an_option_of_ones_own_needs_no_space(tmp_path):
    write_option("optimizer/mine.yaml", "{_target_: torch.optim.SGD, lr: 0.1}", tmp_path)
    with sweep("optimizer=mine", searchpath=tmp_path) as config:
        assert spaces.space(config) == {}
        assert (
            searched(config)
            == hydra_compat.search_space([f"optimizer.lr={SGD}"])[0]["optimizer.lr"]
        )


@pytest.mark.parametrize("path", sorted((CHECKOUT / "conf/optimizer").glob("*.yaml")), ids=str)
def test_every_optimizer_but_those_by_name_brings_a_space_that_composes(path):
    option = yaml.safe_load(path.read_text("utf-8"))
    if path.stem in ("torch", "extra"):
        assert "search" not in option
        return
    assert "lr" in option["search"]
    given = spaces.space(OmegaConf.create({"optimizer": option}))
    assert given.keys() == {f"optimizer.{name}" for name in option["search"]}
    assert ("weight_decay" in option) == ("optimizer.weight_decay" in given)
    space, fixed, _ = hydra_compat.search_space([f"{key}={one}" for key, one in given.items()])
    assert space.keys() == given.keys()
    assert not fixed


@pytest.mark.parametrize("path", sorted((CHECKOUT / "conf/optimizer").glob("*.yaml")), ids=str)
def test_the_decay_that_is_searched_is_of_its_kind(path):
    """Decoupled decay is a share of the rate, an L2 penalty is a part of the gradient."""
    option = yaml.safe_load(path.read_text("utf-8"))
    decay = option.get("search", {}).get("weight_decay")
    decoupled = {"adafactor", "adamw", "lion", "muon", "nadamw", "schedule_free_adamw"}
    assert decay is None or ("interval(1e-3," in decay) == (path.stem in decoupled)


def test_a_search_of_an_optimizer_by_name_needs_a_range_that_is_typed():
    given = ["optimizer=torch", "optimizer.name=Rprop"]
    with sweep(*given) as config:
        raises_one_line(lambda: spaces.told(config), ConfigError, "optimizer=torch: brings no ran")
    for typed in ("optimizer.lr=tag(log,interval(0.1,1))", "optimizer.search.lr=interval(0.1,1)"):
        with sweep(*given, typed) as config:
            assert "interval(0.1,1)" in spaces.told(config)[0]


def test_a_key_is_left_out_where_there_is_none():
    with sweep("optimizer=adam", "optimizer.search.momentum=null") as config:
        assert spaces.space(config).keys() == {"optimizer.lr", "optimizer.weight_decay"}
    with sweep("optimizer=adam", "optimizer.search.momentum=interval(0,1)") as config:
        raises_one_line(lambda: spaces.space(config), ConfigError, "has no key momentum")


@pytest.mark.parametrize(
    ("search", "part"),
    [
        ({"lr": 0.1}, "optimizer.search.lr=0.1: must be a range or a list"),
        ({"lr": "interval(1"}, "optimizer.search.lr=interval(1: must be a range"),
        ({"beta": "interval(0, 1)"}, "optimizer.search.beta: this optimizer has no key beta"),
        (3, "optimizer.search=3: must be a table"),
    ],
)
def test_refuses(search, part):
    with pytest.raises(ConfigError, match=r"^optimizer\.search") as error:
        spaces.space(OmegaConf.create({"optimizer": {"lr": 0.1, "search": search}}))
    assert part in str(error.value)


def test_a_space_is_no_part_of_a_run():
    assert "search" not in compose("optimizer=adam")["optimizer"]
    typed = mended(["optimizer.search.lr=interval(1,2)", "optimizer.lr=0.1"])
    assert recorded_overrides(typed) == ["optimizer.lr=0.1"]
    assert spaces.is_of_space("+optimizer.search.lr=3")
    assert not spaces.is_of_space("optimizer.searches=3")


def test_a_single_run_refuses_a_space(command):
    status, _, said = command("data=synthetic", "optimizer.search.lr=interval(1,2)")
    assert status == 2
    assert "does nothing in a single run" in said


def test_an_argument_of_an_optimizer_is_not_called_as_its_space():
    for value in ("3", "word"):
        said = f"optimizer.search={value}: is the space of searches, a table of KEY: VALUES"
        raises_one_line(lambda v=value: compose(f"optimizer.search={v}"), ConfigError, said)
    assert "search" not in compose("optimizer.search=null")["optimizer"]


def test_a_wrong_range_of_the_optimizer_is_refused_before_the_study_is_written():
    """Of a key too that the search does not refer to."""
    with (
        sweep("optimizer.search.weight_decay=foo") as config,
        pytest.raises(
            ConfigError, match=r"optimizer\.search\.weight_decay=foo: must be a range or a list"
        ),
    ):
        _check_search(config)
