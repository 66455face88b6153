"""What draws the trials of a search: Optuna's own defaults, and those of searches begun before."""

import inspect
import sqlite3

import optuna
import pytest
from commands import TINY
from omegaconf import OmegaConf

from fmbench.config.checks import CONFIG_DIR
from fmbench.records.trials import DATABASE_NAME
from fmbench.search import sampler, study

pytestmark = pytest.mark.usefixtures("no_pictures")

SMALL = [word for word in TINY if not word.startswith("model=")]

#: Chosen by the number of parameters, so that no processor draws other trials than another.
SEARCH = [
    *("-m", "sweep=lr_batch", *SMALL, "epochs=1", "device=cpu", "sweep.pruner=none"),
    *("sweep.objective=parameters", "model=lenet5,lenet", "batch_size=choice(16,32)"),
    "hydra.sweep.dir=here",
]

#: Of fmbench before it took Optuna's defaults: batch size, learning rate and model of the trials.
#: From the eleventh on, TPE draws them.
BEFORE = [
    (32, 0.0028604883401488626, "lenet"), (16, 0.26342268854438095, "lenet"),
    (16, 0.27229165093716934, "lenet5"), (32, 0.00658926802197296, "lenet5"),
    (16, 0.0010249193350671223, "lenet5"), (16, 0.001861602614970849, "lenet"),
    (16, 0.014648868550590537, "lenet5"), (32, 0.22214189899030456, "lenet"),
    (16, 0.002679455624951313, "lenet5"), (16, 0.00245460831186178, "lenet5"),
    (32, 0.06147382788394684, "lenet5"), (32, 0.021457177640161793, "lenet5"),
    (32, 0.0105118616781865, "lenet5"), (32, 0.0894081688755399, "lenet5"),
]  # fmt: skip
OFF = {"multivariate": False, "constant_liar": False}
TYPED_OFF = [f"hydra.sweeper.sampler.{key}=false" for key in OFF]


def tpe():
    return OmegaConf.load(CONFIG_DIR / "hydra" / "sweeper" / "sampler" / "tpe.yaml")


def found(folder):
    """What the study in a folder keeps of its sampler, and the parameters of its trials."""
    storage = study.open_storage({"storage": None, "detach": False}, folder)
    its = optuna.load_study(study_name=study.OWN_STUDY, storage=storage)
    return its.user_attrs.get("fmbench.sampler"), [(*t.params.values(),) for t in its.get_trials()]


def same(ours, theirs):
    flat, other = ([value for trial in trials for value in trial] for trials in (ours, theirs))
    return flat == [pytest.approx(value) if isinstance(value, float) else value for value in other]


def test_tpe_is_as_optuna_has_it():
    parameters = inspect.signature(optuna.samplers.TPESampler).parameters
    theirs = {name: parameter.default for name, parameter in parameters.items()}
    ours = tpe() | sampler.choices(tpe())
    unlike = {key: ours[key] for key in ours if key[0] != "_" and ours[key] != theirs[key]}
    assert unlike == {}
    # Null, which says that it was not given.
    assert {name: tpe()[name] for name in OFF} == dict.fromkeys(OFF)


def test_what_a_study_keeps_of_its_sampler_stays_and_what_is_typed_wins():
    config, typed = tpe(), tpe() | {"multivariate": True}
    assert sampler.choices(config) == {"multivariate": None, "constant_liar": True}
    for kept, multivariate, liar in [
        (None, False, False),  # older than the entry
        ({}, None, True),  # of a sampler that has none of it
        ({"multivariate": True, "constant_liar": False}, True, False),
    ]:
        resumed = sampler.settled(config, kept)
        assert (resumed.multivariate, resumed.constant_liar) == (multivariate, liar)
        assert sampler.settled(typed, kept).multivariate is True
    random = OmegaConf.create({"_target_": "optuna.samplers.RandomSampler", "seed": 1})
    assert sampler.choices(random) == {}
    assert sampler.settled(random, None) == random


@pytest.mark.slow
def test_without_optunas_defaults_the_trials_are_those_of_before(command, tmp_path):
    assert command(*SEARCH, *TYPED_OFF, "sweep.trials=11")[0] == 0
    kept, ours = found(tmp_path / "here")
    assert kept == OFF
    assert same(ours, BEFORE[:11])
    # It goes on with what its study names, by the entry, and where there is none as well.
    assert command(*SEARCH, "sweep.trials=12")[0] == 0
    with sqlite3.connect(tmp_path / "here" / DATABASE_NAME) as database:
        gone = database.execute("DELETE FROM study_user_attributes WHERE key='fmbench.sampler'")
        assert gone.rowcount == 1
    assert command(*SEARCH, "sweep.trials=13")[0] == 0
    kept, ours = found(tmp_path / "here")
    assert kept is None
    assert same(ours, BEFORE[:13])


@pytest.mark.slow
def test_a_new_search_has_optunas_defaults(command, tmp_path):
    assert command(*SEARCH, "sweep.trials=12")[0] == 0
    kept, ours = found(tmp_path / "here")
    assert kept == {"multivariate": None, "constant_liar": True}
    assert same(ours[:10], BEFORE[:10])
    assert not same(ours[10:], BEFORE[10:12])
