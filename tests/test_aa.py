"""`scripts/aa.py`: pairs of rows of one configuration, and the sweep that makes such rows."""

import importlib
import json

import hydra
import pytest
from commands import CHECKOUT, compose
from records import answer, write

import fmbench
from fmbench.config import checks as configuration
from fmbench.records.record import keys, recorded_config


@pytest.fixture
def aa(monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT / "scripts")
    return importlib.import_module("aa")


def runs(folder, accuracies):
    for seed, right in enumerate(accuracies):
        write(folder / str(seed), seed=seed, config__seed=seed, test_accuracy=right / 10_000)
        answer(folder / str(seed), right, swap=seed)


def test_rows_are_disjoint_and_those_that_ranks_part_are_counted(aa, tmp_path, capsys):
    runs(tmp_path, [9000 + 3 * seed for seed in range(13)])
    aa.main([str(tmp_path)])
    said = json.loads(capsys.readouterr().out)
    assert (said["runs"], said["pairs"], said["parted"]) == (13, 2, 0)
    assert said["interval"] == [0.0, pytest.approx(84.2, abs=0.1)]  # 1 - 0.025 ** (1 / 2)
    monkey = aa.pairs
    aa.pairs = lambda frame, *_: [(frame.iloc[:3], frame.iloc[-3:])]
    runs(tmp_path, [9000] * 6 + [8000] * 7)
    aa.main([str(tmp_path)])
    aa.pairs = monkey
    assert json.loads(capsys.readouterr().out)["parted"] == 1


def test_no_run_is_used_twice(aa, tmp_path):
    runs(tmp_path, [9000] * 13)
    frame = fmbench.load_results(tmp_path)
    used = [seed for pair in aa.pairs(frame, 2, 9) for row in pair for seed in row["seed"]]
    assert len(used) == len({*used}) == 12


def test_other_folders_are_refused(aa, tmp_path):
    write(tmp_path / "0")
    with pytest.raises(SystemExit, match="1 runs make no pair"):
        aa.main([str(tmp_path)])
    write(tmp_path / "1", model="other")
    with pytest.raises(SystemExit, match="2 configurations"):
        aa.main([str(tmp_path)])


def test_the_sweep_pairs_labels_with_seeds_and_labels_decide_nothing():
    configuration.register()
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        given = ["sweep=aa", "sweep.seeds=2"]
        config = hydra.compose("config", given, return_hydra_config=True)
    params = config.hydra.sweeper.params
    assert (params["label"], params["seed"]) == ("A,A,B,B", "range(4)")
    assert list(config.sweep.zip) == ["label", "seed"]
    plain = compose("model=lenet5")
    assert keys(plain, "d", "s") == keys({**plain, "label": "A"}, "d", "s")
    assert recorded_config({**plain, "label": "A"})["label"] == "A"
