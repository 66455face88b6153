"""Each private part of Hydra, OmegaConf and plugins, and what breaks where it has changed."""

import inspect
from dataclasses import dataclass
from pathlib import Path

import hydra
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.core.utils import JobStatus, run_job
from hydra.plugins.config_source import ConfigSource
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from hydra.utils import get_class, get_method
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import InterpolationKeyError, ValidationError

from fmbench.config import checks as configuration
from fmbench.config import hydra_compat, trust
from fmbench.core.errors import ConfigError


@dataclass
class Typed:
    """A structured config."""

    count: int = 1


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_command_runs_a_task(tmp_path):
    """Else the command starts nothing."""
    Path("config.yaml").write_text("x: 1\n")
    parser, seen = hydra_compat.get_args_parser(), []
    arguments = parser.parse_args(["x=2", "hydra.run.dir=out"])
    hydra_compat.run_command(arguments, parser, lambda config: seen.append(config.x), tmp_path)
    assert seen == [2]


def test_config_sources_read_what_a_class_of_ours_gives():
    """Else config files are read without their bounds."""

    class Ours(hydra_compat.FileConfigSource):
        def load_config(self, config_path):
            names.append(self._normalize_file_name(config_path))
            assert self._get_header_dict("# @package _global_\n") == {"package": "_global_"}
            return super().load_config(config_path)

    names = []
    with hydra_compat.separate_state():
        hydra_compat.read_with(file=Ours)
        Path("config.yaml").write_text("x: 1\n")
        with hydra.initialize_config_dir(str(Path.cwd())):
            assert hydra.compose("config").x == 1
    assert "config.yaml" in names


def test_sources_are_of_files_and_packages():
    """Else Hydra looks for options inside any package."""
    sources = hydra_compat.FileConfigSource, hydra_compat.ImportlibResourcesConfigSource
    assert all(issubclass(one, ConfigSource) for one in sources)
    assert [one.scheme() for one in sources] == ["file", "pkg"]


def test_options_and_interpolations_are_counted():
    """Else a small config file can cost hours to compose."""
    Path("config.yaml").write_text("defaults: [_self_, g: a]\nx: [1]\ny: ${x}\n")
    Path("g").mkdir()
    Path("g/a.yaml").write_text("z: 1\n")
    options, costs = [], []
    with hydra_compat.separate_state():
        hydra_compat.count_work(options.append, costs.append)
        with hydra.initialize_config_dir(str(Path.cwd())):
            config = hydra.compose("config")
        del costs[:]
        assert OmegaConf.to_container(config, resolve=True)["y"] == [1]
    assert BaseContainer._to_content.__module__ == "omegaconf.basecontainer"
    assert options[-1] >= 2
    assert sum(costs) >= 7


def test_the_same_options_are_merged_once(monkeypatch):
    """Else a composition takes twice as long; and what differs at all is merged anew."""
    merged, merge = {}, ConfigLoaderImpl._compose_config_from_defaults_list
    monkeypatch.setattr(hydra_compat, "_merged", merged)
    Path("config.yaml").write_text("defaults: [_self_, g: a]\nx: 1\n")
    Path("g").mkdir()
    Path("g/a.yaml").write_text("z: {k: 1}\n")
    Path("g/b.yaml").write_text("# @package other\nz: {k: 1}\n")

    def composed(*overrides):
        with hydra.initialize_config_dir(str(Path.cwd())):
            config = hydra.compose("config", overrides=list(overrides))
        plain = OmegaConf.to_container(config)
        OmegaConf.set_struct(config, False)
        config.g = None  # whoever has it may change it
        return plain

    with hydra_compat.separate_state():
        hydra_compat.merge_once()
        first = {"x": 1, "g": {"z": {"k": 1}}}
        assert composed() == first
        assert composed("x=2") == first | {"x": 2}
        assert composed() == first
        assert len(merged) == 1
        assert composed("g=b") == {"x": 1, "other": {"z": {"k": 1}}}
        Path("g/a.yaml").write_text("z: {k: 2}\n")
        assert composed() == {"x": 1, "g": {"z": {"k": 2}}}
        assert len(merged) == 3
        monkeypatch.setattr(hydra_compat, "_MOST_MERGED", 1)
        assert composed("g=b") == {"x": 1, "other": {"z": {"k": 1}}}
        Path("g/a.yaml").write_text("z: {k: 3}\n")
        assert composed() == {"x": 1, "g": {"z": {"k": 3}}}
        assert len(merged) == 1
    assert merge is ConfigLoaderImpl._compose_config_from_defaults_list


def test_each_composition_has_a_folder_of_its_own():
    """Else two runs of one process have the same one, for its name is drawn once and merged."""
    configuration.register()
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        composed = [hydra.compose("config", return_hydra_config=True) for _ in range(3)]
    assert len({config.hydra.run.dir for config in composed}) == 3


def test_a_config_can_be_without_hydras_own():
    """Else what leads into it has a value before a run, and none in it."""
    config = OmegaConf.create({"hydra": {"num": 3}, "a": "${hydra.num}", "b": {"c": 1}})
    with hydra_compat.without_hydra(config):
        assert [*config] == ["a", "b"]
        assert config.b.c == 1
    with pytest.raises(InterpolationKeyError), hydra_compat.without_hydra(config):
        _ = config.a
    assert [*config] == ["hydra", "a", "b"]
    assert config.a == 3


def test_nothing_of_a_run_leads_into_hydras_own_config():
    configuration.register()
    leads = ("label=${hydra.runtime.cwd}", "+model.note=${..hydra[job].config_name}")
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        composed = [hydra.compose("config", [one], return_hydra_config=True) for one in leads]
    for config in composed:
        with pytest.raises(ConfigError, match=r"hydra.*not found"):
            configuration.resolve(config)
        assert config.hydra.job.config_name == "config"


def test_a_structured_config_is_known_by_its_name():
    """Else there is no schema, and every key passes."""
    with hydra_compat.separate_state():
        hydra_compat.store("mine", OmegaConf.structured(Typed))
        with hydra.initialize_config_dir(str(Path.cwd())):
            config = hydra.compose("mine")
            assert config == {"count": 1}
            with pytest.raises(ValidationError):
                config.count = "no number"
    assert "mine.yaml" not in ConfigStore.instance().repo


def test_a_text_costs_by_its_length():
    """Else interpolations of long texts can fill the memory."""
    costs = []
    config = OmegaConf.create({"x": "a" * 200, "y": "${x}"})
    with hydra_compat.separate_state():
        hydra_compat.count_work(lambda number: None, costs.append)
        assert len(config.y) == 200
    assert costs == [15]


def test_state_of_the_process_is_set_aside():
    """Else fmbench.run changes the Hydra of the program around it."""
    OmegaConf.register_resolver("mine", lambda: 1, replace=True)
    with hydra.initialize_config_dir(str(Path.cwd())):
        there, before = GlobalHydra.instance(), Singleton._instances
        with hydra_compat.separate_state():
            OmegaConf.clear_resolver("mine")
            own = GlobalHydra.instance()
            assert not own.is_initialized()
        assert GlobalHydra.instance() is there is not own
        assert Singleton._instances is before
    assert OmegaConf.has_resolver("mine")
    OmegaConf.clear_resolver("mine")


def test_the_config_of_a_run_is_checked_before_its_log_is_opened():
    """Else a file sets any part of Hydra."""
    Path("config.yaml").write_text("hydra: {job_logging: {version: 5}}\nx: 1\n")

    def refuse(config, overrides):
        assert (config.x, overrides) == (2, ["x=2"])
        raise ConfigError("no")

    with hydra_compat.checked(refuse), hydra.initialize_config_dir(str(Path.cwd())):
        assert hydra.compose("config").x == 1
        with pytest.raises(ConfigError, match="no"):
            GlobalHydra.instance().hydra.run("config", lambda _: None, ["x=2"])


def test_a_node_knows_its_root():
    """Else a mistyped key is not answered with the one that was meant."""
    config = OmegaConf.create({"a": {"b": {}}})
    assert hydra_compat.root(config.a.b) is config


def test_a_failed_run_gives_its_error():
    """Else why a run of a sweep failed is lost."""
    error = ValueError("no")
    made = hydra_compat.job_return(JobStatus.FAILED, error, ["x=1"])
    assert (made.status, made.overrides) == (JobStatus.FAILED, ["x=1"])
    with pytest.raises(ValueError, match="no"):
        _ = made.return_value
    assert hydra_compat.value(made) is error


def test_the_usual_launcher_and_sweeper_have_these_names():
    """Else a sweep without a launcher is refused."""
    Path("config.yaml").write_text("x: 1\n")
    with hydra.initialize_config_dir(str(Path.cwd())):
        loader = GlobalHydra.instance().config_loader()
        found = loader.load_configuration("config", [], RunMode.MULTIRUN).hydra
    assert hydra_compat.runs_in_turn(found.launcher)
    assert not hydra_compat.runs_in_turn({"_target_": "mine.BasicLauncher"})
    assert get_class(hydra_compat.BASIC_SWEEPER) is hydra_compat.BasicSweeper


def test_the_usual_sweeper_has_the_steps_that_the_grid_changes():
    """Else a grid computes every run again."""
    sweeper = hydra_compat.BasicSweeper(max_batch_size=None, params={"x": "1,2"})
    assert isinstance(sweeper, Sweeper)
    assert "self.validate_batch_is_legal(batch)" in inspect.getsource(type(sweeper).sweep)
    assert hydra_compat.params(sweeper) == ["x=1,2"]
    assert callable(sweeper.split_arguments)


def test_a_config_that_cannot_be_written_is_named(monkeypatch):
    """Else a full disk is reported without the file's name."""

    def fail(config):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(OmegaConf, "to_yaml", fail)
    Path("config.yaml").write_text("x: 1\n")
    parser = hydra_compat.get_args_parser()
    arguments = parser.parse_args(["hydra.run.dir=out"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(OSError, match="No space") as raised:
        hydra_compat.run_command(arguments, parser, lambda config: None, Path.cwd())
    path = hydra_compat.file_being_written(raised.value)
    assert "_save_config(" in inspect.getsource(inspect.getmodule(run_job))
    assert (path.parent.name, path.suffix) == (".hydra", ".yaml")


def test_overrides_become_a_space_and_that_a_grid():
    """Else searches start no trial."""
    given = ["a=choice(1,2)", "b=interval(0.1,1)", "c=3", "~d"]
    space, fixed, deleted = hydra_compat.search_space(given)
    assert (fixed, deleted) == ({"c": "3"}, ["~d"])
    assert list(space) == ["a", "b"]
    space, _, _ = hydra_compat.search_space(["a=choice(1,x)", "b=range(0,4,2)"])
    grid = {name: list(one) for name, one in hydra_compat.grid_of(space).items()}
    assert grid == {"a": [1, "x"], "b": [0, 2]}


def test_samplers_of_several_objectives_are_made_by_functions():
    """Else sampler=nsgaii and nsgaiii are refused."""
    assert set(hydra_compat.SAMPLER_FUNCTIONS) < set(trust.SAMPLERS)
    assert all(callable(get_method(name)) for name in hydra_compat.SAMPLER_FUNCTIONS)
