"""The sweepers in `hydra_plugins/`, as Hydra starts them."""

import json
import pickle
import shutil
import sys
from types import SimpleNamespace

import hydra
import pytest
from commands import TINY, python, records
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import OmegaConf

from fmbench.cli import main as cli
from fmbench.config import checks as configuration
from fmbench.config.sweep import paired
from fmbench.search.grid import Resumed
from hydra_plugins.fmbench_sweepers.grid import GridSweeper

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def compositions(monkeypatch):
    """The overrides of each config of a sweep's run that Hydra composes in this process."""
    composed = []
    original = ConfigLoaderImpl.load_sweep_config

    def load(self, master_config, sweep_overrides):
        composed.append(list(sweep_overrides))
        return original(self, master_config, sweep_overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", load)
    return composed


@pytest.mark.slow
def test_each_run_is_composed_once_and_each_combination_of_options_before(
    compositions, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    arguments = [*TINY, "epochs=1", "scheduler=cosine,constant", "seed=range(3)"]
    monkeypatch.setattr(sys, "argv", ["fmbench", "-m", *arguments])
    cli.main()
    assert len(records(tmp_path)) == 6
    assert len(compositions) == 6 + 2
    first = compositions[:2]
    assert [next(text for text in run if "scheduler" in text) for run in first] == [
        "scheduler=cosine",
        "scheduler=constant",
    ]
    assert all("seed=0" in run for run in first)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]])
def test_a_grid_keeps_no_config_of_its_runs(monkeypatch, tmp_path, launcher):
    if launcher:
        pytest.importorskip("cloudpickle")
    kept = []
    original = Resumed.launch
    monkeypatch.setattr(
        Resumed, "launch", lambda *given, **named: kept.extend(original(*given, **named)) or kept
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["fmbench", "-m", *TINY, "epochs=1", "seed=0,1", *launcher]
    monkeypatch.setattr(sys, "argv", [*arguments, "hydra.sweep.dir=here"])
    cli.main()
    cli.main()
    assert len(kept) == 4
    assert all(0 < returned.return_value <= 1 for returned in kept)
    assert all(returned.cfg is None and returned.hydra_cfg is None for returned in kept)
    assert max(len(pickle.dumps(returned)) for returned in kept) < 2_000


def test_a_combination_that_cannot_be_composed_is_found_beforehand(monkeypatch):
    tried = []
    monkeypatch.setattr("fmbench.config.trust.refuse_untrusted", lambda *_: None)

    class Loader:
        def list_groups(self, _):
            return ["model", "optimizer"]

        def load_sweep_config(self, master_config, sweep_overrides):
            tried.append(sweep_overrides)
            if "data.split=b" in sweep_overrides and "+model=c" in sweep_overrides:
                raise HydraException("no")

    sweeper = GridSweeper(max_batch_size=None)
    choices = {"model": "x", "data.split": "y", "optimizer": None}
    of_hydra = {"runtime": {"choices": choices}, "job": {"config_name": "config"}}
    sweeper.config = OmegaConf.create({"hydra": of_hydra})
    sweeper.hydra_context = SimpleNamespace(config_loader=Loader())
    grid = [
        [f"data.split={split}", f"+model={model}", f"seed={seed}"]
        for split in "ab"
        for model in "cd"
        for seed in range(5)
    ]
    with pytest.raises(HydraException, match="no"):
        sweeper.validate_batch_is_legal(grid)
    assert len(tried) == 3
    sweeper.validate_batch_is_legal(grid[:10])
    assert [run[2] for run in tried[3:]] == ["seed=0", "seed=0"]


def test_a_grid_is_the_default_and_a_ready_sweep_may_choose_another_sweeper():
    def target(*overrides):
        configuration.register()
        with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
            composed = hydra.compose("config", list(overrides), return_hydra_config=True)
        return composed.hydra.sweeper._target_

    assert target() == target("sweep=seeds") == ("hydra_plugins.fmbench_sweepers.grid.GridSweeper")
    assert target("sweep=lr_batch").endswith("search.SearchSweeper")


@pytest.mark.slow
def test_a_grid_never_imports_optuna(tmp_path):
    probe = (
        "import sys; sys.argv = ['fmbench', *sys.argv[1:]]\n"
        "from fmbench.cli.main import main\n"
        "main()\n"
        "heavy = {'optuna', 'sqlalchemy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python("-c", probe, "-m", *TINY, "epochs=1", "seed=0,1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_keys_of_a_zip_are_paired_and_others_multiply(command, tmp_path):
    """Each model with its own batch size, whatever would not go together."""
    given = [text for text in TINY if not text.startswith(("model=", "batch_size="))]
    grid = [
        *("-m", *given, "epochs=1", "seed=0,1", "model=lenet5,lenet", "hydra.sweep.dir=here"),
        "sweep.zip=[model,batch_size]",
    ]
    status, _, err = command(*grid, "batch_size=20,30")
    assert status == 0, err
    assert "run 4 of 4: " in err
    found = {(r["model"], r["batch_size"], r["seed"]) for r in records(tmp_path)}
    assert found == {(m, b, s) for m, b in (("lenet5", 20), ("lenet", 30)) for s in (0, 1)}
    # It may get longer.
    longer = [text.replace("lenet5,lenet", "lenet5,lenet,lenet") for text in grid]
    status, _, err = command(*longer, "batch_size=20,30,60")
    assert status == 0, err
    assert "resumes the sweep: 4 of 6 runs are done" in err
    assert len(records(tmp_path)) == 6


def test_keys_of_a_zip_may_be_added_ones():
    configuration.register()
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        composed = hydra.compose("config", ["sweep.zip=[model,model.width]"])
        every = {"model": ["lenet", "resnet18"], "+model.width": ["4", "8"], "seed": ["0"]}
        assert paired(composed, every) == [("model", "+model.width"), ("seed",)]


@pytest.mark.slow
def test_a_run_that_has_no_record_gets_the_number_of_its_place(command, tmp_path):
    """Of a grid that was left to a cluster any run may be missing."""
    grid = ["-m", *TINY, "epochs=1", "seed=0,1,2", "hydra.sweep.dir=here"]
    assert command(*grid)[0] == 0
    for place in "01":
        shutil.rmtree(tmp_path / "here" / place)
    status, _, err = command(*grid)
    assert status == 0, err
    assert "run 1 of 3: " in err
    assert "run 2 of 3: " in err
    found = {
        path.parent.name: json.loads(path.read_text())["seed"]
        for path in tmp_path.glob("here/*/result.json")
    }
    assert found == {"0": 0, "1": 1, "2": 2}
