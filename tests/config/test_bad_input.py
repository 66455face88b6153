"""Bad input of every kind gets one line and its exit status, and leaves nothing behind."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from commands import TINY, compose, fmbench, python, write_option
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf.basecontainer import BaseContainer

import fmbench as package
from fmbench.core.errors import ConfigError
from fmbench.runs.prepare import make_optimizer

LONG = "x" * 300
LENET5 = "_target_: fmbench.models.lenet5.LeNet5\n"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{other}'] * 10)}]\n"
    for other, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
def command(command, tmp_path, monkeypatch):
    """The same below a folder that is looked at, and with a secret."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SECRET", "s3cr3t")
    return command


@pytest.fixture
def refused(command, tmp_path):
    """Assert that a command is refused in one line, and that no file or folder has changed."""

    def call(arguments, status, *parts):
        before = tree(tmp_path)
        code, out, err = command(*arguments)
        assert code == status, err
        assert out == ""
        assert err.startswith("fmbench: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert len(err) < 2100
        assert err[:-1].isprintable()
        assert "s3cr3t" not in err
        for part in parts:
            assert part in err
        assert tree(tmp_path) == before

    return call


def tree(folder):
    """All paths below a folder, with what the files hold."""
    return {
        path: path.read_bytes() if path.is_file() and path.stat().st_size < 10**6 else None
        for path in folder.rglob("*")
    }


# The override line


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("epcohs=3", ["epcohs: no such key, did you mean epochs=3?"]),
        ("model=lenett", ["model=lenett", "did you mean lenet?", "wideresnet"]),
        ("hydra/launcher=foo", ["hydra/launcher=foo: no such option", "basic"]),
        ("optimizer.lr=[1", ["cannot read the override 'optimizer.lr=[1': "]),
        ("", ["cannot read the override '': "]),
        ("optimizer.lr=nan", ["optimizer.lr=nan: must be a finite number"]),
        ("batch_size=abc", ["batch_size", "'abc'", "Integer"]),
        ("batch_size=" + "9" * 5000, ["batch_size=999", "too many digits"]),
        ("device=tpu", ["device=tpu: must be auto, cpu, cuda or cuda:N"]),
        ("device=cuda:99", ["device=cuda:99: no such device here; there are: cpu"]),
        ("~hydra/launcher", ["hydra/launcher: cannot be taken out"]),
        ("hydra.run.dir='\x1b[31m'", ["hydra.run.dir=\\x1b[31m", "printable"]),
        ("hydra.output_subdir=../..", ["hydra.output_subdir=../..: must be a plain name"]),
        ("hydra.sweep.subdir=same", ["another for each run"]),
        ("hydra.run.dir=", ["hydra.run.dir=: must be the name of a folder"]),
        ("precision='a\nb'", ["precision=a b: must be one of"]),
        ("device='\x1b[31mred'", ["device=\\x1b[31mred: must be"]),
        ("batch_size=${nope}", ["batch_size", "nope"]),
        ("seed=${seed}", ["seed: Recursive interpolation"]),
        ("epochs=${eval:1}", ["epochs: Unsupported interpolation type eval"]),
        (f"+model.{LONG}=1", ["unexpected keyword argument"]),
        ("device=" + "y" * 100_000, ["device=yyy", "..."]),
        (f"hydra.job.name={LONG}", ["hydra.job.name", "must be a plain name"]),
        ("hydra.job.name=../../evil", ["hydra.job.name=../../evil: must be a plain name"]),
        ("hydra.sweep.subdir=../${hydra.job.num}", ["must be below the sweep's folder"]),
        ("data.split.name=../../x", ["data.split.name=../../x: unknown", "holdout"]),
        ("model=../optimizer/sgd", ["Parent traversal ('..')"]),
        ("hydra.verbose=5", ["hydra.verbose=5: must be"]),
        ("hydra.overrides.task=[x]", ["hydra.overrides", "cannot be set"]),
        ("data.train_size=1000000000000", ["allowed are 10 to 1,000,000"]),
        ("+model.colour=1", ["model", "colour"]),
        ("+hydra.job.env_set.PATH=/tmp", ["env_set", "PATH"]),
        ("model=null", ["model=null: must be the name of an option"]),
        # The parts of an augmentation.
        ("augmentation.cutout.size=8", ["write 'augmentation.cutout={size: VALUE}'"]),
        ("augmentation.crop=5", ["augmentation.crop: must be null", "augmentation.crop={}"]),
        ("augmentation.flip=true", ["augmentation.flip: must be null", "={}"]),
        ("~augmentation.crop", ["augmentation.crop: cannot be deleted", "=null"]),
        ("augmentation.flip={probability: yes}", ["augmentation.flip.probability", "'yes'"]),
        ("augmentation.crop={pad: 2}", ["augmentation.crop.pad: no such key", "padding"]),
        ("augmentation.erasing={scale: 0.1}", ["augmentation.erasing.scale: must be a list"]),
        ("+augmentation.blur={}", ["augmentation.blur: no such part", "cutout"]),
        # What only sweeps read.
        ("sweep.trials=5", ["sweep.trials=5: does nothing in a single run", "fmbench -m"]),
        ("hydra/launcher=joblib", ["hydra/launcher=joblib: does nothing in a single run"]),
        ("hydra.sweep.dir=x", ["hydra.sweep.dir=x: does nothing in a single run"]),
    ],
    ids=lambda value: ascii(value)[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_an_override_that_cannot_be(refused, override, parts):
    refused([*TINY, override], 2, *parts)


#: What newcomers type, and what they are told to type instead.
SAID = [
    # A key without its group, or with another, or by the name that others have for it.
    ("lr=0.1", "did you mean optimizer.lr=0.1?"),
    ("validation=5", "did you mean data.split.validation=5?"),
    ("learning_rate=0.1", "did you mean optimizer.lr=0.1?"),
    ("optimizer.momentm=0.9", "did you mean optimizer.momentum=0.9?"),
    ("arch=lenet", "did you mean model=lenet?"),
    ("split=custom", "did you mean data.split=custom?"),
    ("launcher=joblib", "did you mean hydra/launcher=joblib?"),
    ("optim.lr=0.1", "did you mean optimizer.lr=0.1?"),
    ("data.batch_size=3", "did you mean batch_size=3?"),
    ("hydra.launcher=joblib", "write hydra/launcher=joblib"),
    # A flag for a key.
    ("--epochs 3", "--epochs; did you mean epochs=VALUE?"),
    ("--lr 0.1", "did you mean optimizer.lr=VALUE?"),
    ("--keep-model", "did you mean keep_model=VALUE?"),
    ("--output runs", "did you mean hydra.run.dir=VALUE?"),
    ("--gpu", "did you mean device=VALUE?"),
    # No KEY=VALUE at all.
    ("epochs = 3", "epochs = 3: no spaces may stand here; write epochs=3"),
    ("epochs =3", "write epochs=3"),
    ("epochs= 3", "write epochs=3"),
    ("model=lenet, lenet5", "write model=lenet,lenet5"),
    ("optimizer={lr: 0.1}", "write 'optimizer={lr: 0.1}'"),
    ("epochs: 3", "did you mean epochs=VALUE?"),
    ("lenet", "did you mean model=lenet?"),
    ("train", "a subcommand (report, compare, preview, predict) comes first"),
    ("-m seed=0 1 2", "1: is no KEY=VALUE, as epochs=3 is, or seed=0,1,2 with -m"),
    ("epochs=3,seed=1", "each KEY=VALUE is a word of its own"),
    ("-m model=lenet5,", "a value is missing"),
    ("nonsense", "is no KEY=VALUE, as epochs=3 is"),
    # Options.
    ("optimizer=adamax", "any of PyTorch's is optimizer=torch optimizer.name=NAME"),
    ("model=resnet34", "torchvision's are model=torchvision model.name=NAME"),
    ("model=mlp", "one of your own is DIR/model/NAME.yaml, with --config-dir DIR"),
    ("experiment=resnet18", "did you mean resnet18_batch"),
    ("hydra/launcher=slurm", "did you mean submitit_slurm?"),
    ("+augmentation=flip", "write augmentation=flip"),
    ("augmentation=[crop,flip]", "augmentation=crop: no such option"),
    ("augmentation._target_=mine.Shift", "a transform of your own is own: {_target_: ...}"),
    # Values.
    ("seed=0,1", "seed=0,1: several values are a sweep; add -m\n"),
    ("optimiser=sgd,adamw", "optimiser=sgd,adamw: several values are a sweep; add -m\n"),
    ("seed=range(3)", "seed=range(3): several values are a sweep; add -m\n"),
    ("seed=null", "seed=null: must have a value"),
    ("data=synthetic optimizer=adam optimizer.betas=0.9", "must be a list, as [0.9, 0.999]"),
    ("model='lenet5", "a quote is not closed"),
    ("data=fashion_mnist data.root=~nouser/x", "~nouser/x: there is no such user"),
    ("-m seed=[0,1]", "have no brackets: -m seed=A,B"),
    # Of searches, in Optuna's words.
    ("-m sweep=lr_batch hydra.sweeper.n_trials=3", "did you mean sweep.trials=3?"),
    ("-m sweep=lr_batch hydra.sweeper.study_name=x", "did you mean sweep.study=x?"),
    ("-m sweep=lr_batch hydra.sweeper.sampler=random", "write hydra/sweeper/sampler=random"),
    ("-m sweep=lr_batch batch_size=interval(16,64)", "batch_size=int(interval(A,B))"),
    ("-m sweep=lr_batch optimizer.lr=loguniform(1,2)", "Available: "),
    ("-m hydra/launcher=joblib seed=0,1 n_jobs=2", "did you mean hydra.launcher.n_jobs=2?"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "said"), SAID, ids=[line for line, _ in SAID])
def test_what_to_type_instead(refused, line, said):
    given = [] if line.startswith(("model", "optimizer=adam", "data=")) else TINY
    refused([*line.split(" "), *given], 2, said)


def test_a_group_that_only_a_folder_of_ones_own_has(refused, tmp_path):
    (tmp_path / "own" / "optimiser").mkdir(parents=True)
    (tmp_path / "own" / "optimiser" / "signum.yaml").write_text("lr: 0.1")
    said = "optimiser=signum: no such group of options, did you mean optimizer=signum?"
    refused([*TINY, "--config-dir", str(tmp_path / "own"), "optimiser=signum"], 2, said)


def test_what_is_said_can_be_typed(monkeypatch):
    """So it leads somewhere: the suggestions for what is known elsewhere, and for a search."""
    given = ["optimizer=adam", "optimizer._target_=torch.optim.RAdam", "~optimizer.fused"]
    assert make_optimizer(compose(*given), torch.nn.Linear(1, 1), torch.zeros(1, 1)).defaults["lr"]
    (override,) = OverridesParser.create().parse_overrides(["batch_size=int(interval(16,64))"])
    assert type(override.value().start) is int


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a GPU here")
def test_a_gpu_where_there_is_none(refused):
    refused([*TINY, "device=cuda"], 2, "device=cuda: no such device here; there are: cpu")


@pytest.mark.parametrize("key", ["device", "data.split.name", "+model.x", "+data.root"])
def test_the_environment_gets_into_no_record(refused, key):
    said = f"{key.lstrip('+')}: reads the environment variable SECRET, which no config may"
    for value in ("${oc.env:SECRET}", "'${oc.select:nope,${oc.env:SECRET}}'"):
        refused([*TINY, f"{key}={value}"], 2, said)


@pytest.mark.parametrize("arguments", [
    ["--foo"],
    ["-x"],
    ["--config-dir"],
    ["--config-dir", "nope"],
    ["--config-dir", ".", "--config-dir", "nope"],
    ["--config-dir=~nouser/x"],
    ["--config-path", "pkg://this"],
    ["--config-path", "/tmp"],
    ["--config-name", "other"],
    ["--experimental-rerun", "outputs"],
    ["--cfg", "nothing"],
    ["--run", "--multirun"],
], ids=" ".join)  # fmt: skip
def test_a_flag_that_cannot_be(refused, arguments):
    refused([*arguments, *TINY] if arguments != ["--config-dir"] else arguments, 2)


# Sweeps


@pytest.mark.parametrize(("line", "parts"), [
    ("seed=range(10000000)", ["10,000,000 values", "max_runs=10000"]),
    ("seed=range(0,1e300,1)", ["over 10**15 values"]),
    ("seed=range(1000) epochs=range(1,1001) batch_size=range(1,11)",
     ["this sweep: 10,000,000 runs, more than max_runs=10000"]),
    ("sweep=lr_batch sweep.trials=10000000", ["10,000,000 runs"]),
    ("seed=0,1 max_runs=1", ["2 values, more than max_runs=1"]),
    ("model=glob(zzz*)", ["glob(zzz*)", "matches nothing"]),
    ("model=lenet,densnet", ["model=densnet"]),
    ("batch_size=64,0", ["batch_size=0"]),
    ("augmentation.cutout=null,true", ["augmentation.cutout: must be null", "={}"]),
    ("sweep=lr_batch optimizer.lr=interval(-1,0.1)", ["optimizer.lr=-1"]),
    ("sweep=lr_batch sweep.trials=0", ["sweep.trials=0", "1 or more"]),
    ("seed=0,1 hydra.sweep.dir=", ["hydra.sweep.dir=: must be"]),
    ("seed=0,1 hydra.sweeper.max_batch_size=0", ["max_batch_size=0: must be 1 or more"]),
    ("sweep=lr_batch sweep.jobs=0", ["sweep.jobs=0: must be 1 or more"]),
    ("seed=0,1 sweep.jobs=many", ["sweep.jobs=many: must be 1 or more, or auto"]),
    ("seed=0,1 sweep.jobs_per_gpu=0", ["sweep.jobs_per_gpu=0: must be 1 or more"]),
    ("seed=0,1 sweep.jobs=2 hydra/launcher=processes",
     ["sweep.jobs=2: is for runs on this machine; hydra/launcher=processes has keys"]),
    ("model=lenet,lenet5 batch_size=8,9,10 sweep.zip=[model,batch_size]",
     ["sweep.zip=", "needs as many values of each: model has 2, batch_size has 3"]),
    ("seed=0,1 sweep.zip=[seed,label_smoothing]", ["label_smoothing is not swept"]),
    ("seed=0,1 sweep.zip=[seed,seed]", ["needs as many values of each"]),
    ("seed=0,1 epochs=1,2 sweep.zip=[[seed],[epochs,seed]]", ["seed is in it twice"]),
    ("seed=0,1 sweep.zip=seed", ["must be a list of keys"]),
    ("sweep=lr_batch sweep.zip=[batch_size,optimizer.lr]", ["is for grids"]),
    ("sweep=lr_batch sweep.seeds=3", ["sweep.pruner=halving: prunes one run by its epochs"]),
    ("sweep=lr_batch sweep.pruner=wilcoxon",
     ["from the fourth on, and here it has 1; sweep.seeds=5 gives it five"]),
    ("sweep=lr_batch sweep.pruner=none sweep.seeds=3 seed=0,1",
     ["sweep.seeds=3: the seeds are listed already"]),
    ("sweep=lr_batch sweep.pruner=none seed=0,1,0", ["seed=0,1,0: has one twice"]),
    ("sweep=lr_batch sweep.pruner=none seed=range(100000000)",
     ["100,000,000 runs of each trial, more than max_runs=10000"]),
    ("sweep=lr_batch sweep.jobs=auto hydra/launcher=ray",
     ["sweep.jobs=auto: is for runs on this machine"]),
    ("sweep=lr_batch seed=interval(0,3)", ["is no list; the runs of a trial are seed=0,1,2"]),
    ("sweep=lr_batch sweep.seeds=0", ["sweep.seeds=0: must be 1 or more"]),
    ("sweep=lr_batch sweep.pruner=mean", ["sweep.pruner=mean: must be one of none, med"]),
    ("sweep=lr_batch sweep.objective=test_accuracy", ["must be one of validation_acc"]),
    ("sweep=lr_batch sweep.objective=[flops,flops]", ["sweep.objective=", "one of"]),
    ("sweep=lr_batch sweep.objective=flops", ["sweep.pruner=halving: prunes by"]),
    ("sweep=pareto sweep.pruner=median", ["sweep.pruner=median: prunes by validation"]),
    ("sweep=lr_batch sweep.storage=5", ["sweep.storage=5: "]),
    ("sweep=lr_batch sweep.storage=nope://x", ["sweep.storage=nope://x: "]),
    ("sweep=lr_batch evaluation.every=1", ["evaluation.every=1: a search uses the test set once"]),
    ("sweep=lr_batch data.split=custom,standard", ["cannot be searched"]),
    ("sweep=lr_batch hydra.sweep.subdir=x${hydra.job.num}", ["numbers the folders"]),
    ("sweep=lr_batch hydra.sweeper.params=null", ["gives nothing to search"]),
    pytest.param("sweep=lr_batch hydra/sweeper/sampler=cmaes", ["needs pip install cmaes"],
                 marks=pytest.mark.skipif(find_spec("cmaes") is not None, reason="it is there")),
    ("sweep=lr_batch hydra.sweeper.sampler=null", ["hydra.sweeper.sampler=null: "]),
    ("sweep=lr_batch +hydra.sweeper.sampler.foo=1", ["hydra.sweeper.sampler: ", "foo"]),
    ("seed=0,1 hydra/launcher=joblib +hydra.launcher.foo=1", ["launcher", "foo"]),
    ("sweep=lr_batch hydra.sweeper.sampler._target_=optuna.samplers.PartialFixedSampler",
     ["hydra.sweeper.sampler: "]),
    ("sweep=lr_batch optimizer.lr=interval(0.3,0.1)",
     ["hydra.sweeper.params: ValueError: `low <= hi"]),
    ("sweep=lr_batch hydra/sweeper/sampler=grid", ["GridSampler only supports disc"]),
    ("seed=0,1 hydra.launcher._target_=os.system", ["_target_=os.system: not allowed"]),
    ("seed=0,1 hydra.sweeper._target_=os.system", ["_target_=os.system: not allowed"]),
    ("sweep=lr_batch hydra.sweeper.sampler._target_=os.system", ["_target_=os.sys"]),
    ("sweep=lr_batch hydra.sweeper.custom_search_space=this.x", ["'this.x'"]),
    ("seed=0,1 sweep.trials=5", ["sweep.trials=5: is for searches", "sweep=lr_batch"]),
    ("sweep=lr_batch sweep.trials=2,3", ["sweep.trials=2,3: is one value of the whole"]),
    ("sweep=seeds,batch_size", ["sweep=seeds,batch_size: is one value of the whole sweep"]),
    ("seed=0,1 hydra.run.dir=x", ["hydra.run.dir=x: names", "hydra.sweep.dir=x"]),
    ("seed=0,1 hydra/launcher=submitit_slurm", ["submitit_slurm: Slurm is not here"]),
    ("seed=0,1 hydra/launcher=joblib hydra.launcher.inner_max_num_threads=0",
     ["inner_max_num_threads=0: must be 1 or more"]),
], ids=lambda value: value[:50] if isinstance(value, str) else "")  # fmt: skip
def test_a_sweep_that_cannot_be(refused, line, parts, monkeypatch):
    if "hydra/launcher=submitit_slurm" in line:
        pytest.importorskip("submitit", reason="needs the extra slurm")
        monkeypatch.setenv("PATH", "/nowhere")
    refused(["-m", *TINY, *line.split()], 2, *parts)


def test_a_sweep_of_many_runs_where_it_is_asked_for(monkeypatch):
    from fmbench.config import sweep

    for text, count in {
        "seed=range(10)": 10, "seed=range(1,10,4)": 3, "seed=range(10,0,-3)": 4, "seed=1,2,3": 3,
        "seed=range(0,1,0.3)": 4, "seed=range(3,1)": 0, "seed=shuffle(range(7))": 7,
        "seed=choice(1,2)": 2,
    }.items():  # fmt: skip
        (override,) = sweep.OverridesParser.create().parse_overrides([text])
        assert sweep._count(override) == count == len(list(override.sweep_string_iterator())), text


# Files of options


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (LENET5 + "_target_: x\n", "evil.yaml, line 2, column 1: found duplicate key _target_"),
        (LENET5 + BOMB, "YAML node expansion exceeds the configured limit of 10000"),
        (LENET5.encode() + b"x: '\xe9'\n", "evil.yaml: not UTF-8 text"),
        (LENET5.encode("utf-16"), "evil.yaml: not UTF-8 text"),
        ("_target_: !!python/object/apply:os.system ['touch evil']\n", "line 1, column 11: could"),
        ("a: [\n", "evil.yaml, line 2, column 1: did not find"),
        ("a: \0\n", "evil.yaml: unacceptable character #x0000"),
        ("{a: " * 3000 + "1" + "}" * 3000, "evil.yaml: nested too deeply"),
        (LENET5 + "x: " + "9" * 5000 + "\n", "a number of over 100 characters"),
        (LENET5 + "---\n" + LENET5, "line 2, column 1: but found another document"),
        ("# @package\n" + LENET5, "evil.yaml: Expected header format"),
        ("defaults: [evil]\n" + LENET5, "one of its files leads to itself"),
        ("defaults: [../../../x]\n", "Parent traversal"),
        ("defaults: ['pkg://this']\n", "Could not load"),
        ("- a\n- b\n", "model/evil"),
        ("", "model._target_: is not there"),
        (LENET5 + "x: ${model.x}\n", "model.x: Recursive interpolation"),
    ],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_an_option_that_is_no_config(refused, text, part):
    write_option("model/evil.yaml", text)
    refused(["--config-dir", "mine", *TINY, "model=evil"], 2, part)


@pytest.mark.parametrize(
    "text", ["epochs: 1\n", "# @package experiment\nepochs: 1\n", "# package _global_\nepochs: 1\n"]
)
@pytest.mark.parametrize("group", ["experiment", "sweep"])
def test_an_experiment_without_its_header(refused, group, text):
    write_option(f"{group}/mine.yaml", text)
    said = f"mine/{group}/mine.yaml: must begin with the line '# @package _global_'"
    refused(["--config-dir", "mine", *TINY, f"{group}=mine"], 2, said)


def test_an_option_that_two_folders_have(refused):
    for folder in ("mine", "yours"):
        write_option(f"../{folder}/experiment/best.yaml", "# @package _global_\nepochs: 1\n")
    folders = ["--config-dir", "mine", "--config-dir", "yours"]
    said = f"experiment=best: is in {Path.cwd()}/mine and in {Path.cwd()}/yours; give one of them"
    refused([*folders, *TINY, "experiment=best"], 2, said)


def test_an_option_of_100_megabytes_is_not_read(refused):
    write_option("model/evil.yaml", LENET5)
    os.truncate("mine/model/evil.yaml", 100_000_000)
    said = "a config file may have at most 1,048,576 bytes"
    refused(["--config-dir", "mine", *TINY, "model=evil"], 2, said)


@pytest.mark.parametrize(("content", "said"), [
    ("a: " + "${" * 51, "over 50 interpolations"),
    ("".join(f"k{n}: ${{a}}\n" for n in range(501)), "line 502: over 50 interpolations"),
    ('a: "' + r"\x24{" * 51 + '"', "over 50 interpolations"),
    ("a: " + ":".join(["1"] * 300_000), "line 2: a value of over 10,000 characters"),
    ("a: 1" + ":59" * 3000, "a number of over 100 characters"),
    ("a: 1" + ":59" * 3000 + ".5", "a number of over 100 characters"),
    ("a: " + "9" * 101, "a number of over 100 characters"),
    ("a: [" + "1," * 10_001 + "]", "over 10,000 values"),
    ("a: " + "x" * 10_001, "a value of over 10,000 characters"),
], ids=range(9))  # fmt: skip
def test_an_option_that_takes_minutes_to_be_understood(refused, content, said):
    write_option("model/evil.yaml", f"{LENET5}{content}\n")
    refused(["--config-dir", "mine", *TINY, "model=evil"], 2, "mine/model/evil.yaml", said)


@pytest.mark.parametrize("key", ["max_runs: 20000", "max_runs: ${seed}"])
def test_a_file_does_not_say_how_many_runs_a_sweep_may_have(refused, key):
    write_option("sweep/mine.yaml", f"# @package _global_\n{key}\n")
    write_option("experiment/mine.yaml", f"# @package _global_\n{key}\n")
    said = "max_runs: a config file may not set it"
    for chosen in ("sweep=mine", "experiment=mine"):
        refused(["-m", "--config-dir", "mine", *TINY, chosen, "seed=0,1"], 2, said)
    refused(["--config-dir", "mine", *TINY, "experiment=mine"], 2, said)


def test_an_option_that_is_no_file(refused):
    write_option("model/other.yaml", LENET5)
    os.mkfifo("mine/model/evil.yaml")
    refused(["--config-dir", "mine", *TINY, "model=evil"], 2, "model=evil: no such option")


# What a file of options may not do


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{callbacks: {x: {_target_: os.system, command: touch evil}}}", "'os.system'"),
        ("{callbacks: {x: {_target_: fmbench.cli.callbacks.RunLog, filename: e}}}", "RunLog: is"),
        ("{callbacks: {preflight: null}}", "hydra.callbacks.preflight: a config file may not"),
        ("{launcher: {_target_: os.system}}", "hydra.launcher._target_: a config file may not"),
        ("{launcher: {setup: [touch evil]}}", "setup"),
        ("{sweeper: {_target_: os.system}}", "hydra.sweeper._target_=os.system: not allowed"),
        (
            "{hydra_logging: {handlers: {x: {class: logging.FileHandler, filename: evil}}}}",
            "hydra.hydra_logging.handlers.x: a config file may not set it",
        ),
        (
            "{job_logging: {handlers: {x: {'()': os.system, command: touch evil}}}}",
            "hydra.job_logging.handlers.x: a config file may not set it",
        ),
        ("{hydra_logging: {filters: {x: {'()': this.x}}}}", "hydra.hydra_logging.filters"),
        ("{job_logging: {formatters: {x: {format: 'ext://this'}}}}", "job_logging.formatters"),
        ("{job_logging: {handlers: {file: {filename: ../x}}}}", "handlers.file.filename"),
        ("{run: {dir: ../evil}}", "hydra.run.dir=../evil: a config file may name a folder below"),
        ("{run: {dir: 'x/${oc.env:SECRET}'}}", "hydra.run.dir"),
        ("{sweep: {dir: ../evil}}", "hydra.sweep.dir=../evil"),
        ("{sweep: {subdir: '../${hydra.job.num}'}}", "hydra.sweep.subdir"),
        ("{output_subdir: evil}", "hydra.output_subdir: a config file may not"),
        ("{job: {chdir: true}}", "hydra.job.chdir: a config file may not"),
        ("{job: {id: ../../evil}, run: {dir: 'x/${hydra.job.id}'}}", "hydra.job.id: a config file"),
        ("{runtime: {output_dir: /tmp/evil}}", "hydra.runtime.output_dir: a config file may not"),
        ("{job: {env_set: {PATH: /tmp}}}", "hydra.job.env_set.PATH"),
        ("{job: {env_copy: [HOME]}}", "hydra.job.env_set.HOME"),
        ("{searchpath: ['pkg://this']}", "hydra.searchpath"),
        ("{help: {template: evil}}", "hydra.help.template"),
        ("{overrides: {task: [evil=1]}}", "hydra.overrides"),
    ],
    ids=lambda value: value[:50],
)  # fmt: skip
def test_an_option_sets_nothing_of_hydra(refused, text, part):
    write_option("experiment/evil.yaml", f"# @package _global_\nhydra: {text}\n")
    refused(["--config-dir", "mine", *TINY, "experiment=evil"], 2, part)


@pytest.mark.parametrize("swept", [["experiment=lenet5,evil"], ["experiment=evil", "seed=0,1"]])
@pytest.mark.parametrize("text", [
    "hydra: {job_logging: {handlers: {x: {class: logging.FileHandler, filename: evil}}}}",
    "hydra: {sweep: {dir: ../evil}}",
    "hydra: {job: {env_set: {PATH: /tmp}}}",
    "model: {_target_: os.system}",
])  # fmt: skip
def test_an_option_among_others_of_a_sweep_sets_nothing_of_hydra(refused, text, swept):
    write_option("experiment/evil.yaml", f"# @package _global_\n{text}\n")
    refused(["-m", "--config-dir", "mine", *TINY, *swept], 2)


@pytest.mark.parametrize(("text", "part"), [
    ("custom_search_space: os.system", "custom_search_space: a config file may not"),
    ("sampler: {_target_: os.system}", "os.system"),
    ("params: {hydra.job_logging.handlers.file.filename: evil}", "must be a key of a run"),
    ("params: {+hydra.job.env_set.A: b}", "must be a key of a run"),
    ("params: {sweep: '{storage: x}'}", "must be a key of a run"),
    ("params: {max_runs: 5}", "must be a key of a run"),
    ("params: {+data.root: '/tmp/evil,x'}", "params.+data.root: is given on the command line"),
    ("params: {data.split.name: '${oc.env:SECRET}'}", "environment variable SECRET"),
    ("params: {model._target_: 'os.system,x'}", "os.system"),
    ("params: {epochs: 'range(100000000)'}", "100,000,000 values"),
], ids=lambda value: value[:40])  # fmt: skip
def test_a_ready_sweep_sets_only_what_it_searches(refused, text, part):
    write_option(
        "sweep/evil.yaml",
        "# @package _global_\ndefaults:\n- override /hydra/sweeper: optuna\n"
        "- override /data.split: holdout\n"
        f"hydra: {{sweeper: {{{text}}}}}\n",
    )
    refused(["-m", "--config-dir", "mine", *TINY[:3], "threads=1", "sweep=evil"], 2, part)


@pytest.mark.parametrize("place", [0, 1])
def test_none_of_several_folders_sets_anything_of_hydra(refused, place):
    write_option("../good/model/mine.yaml", LENET5)
    text = "# @package _global_\nhydra: {callbacks: {preflight: null}, run: {dir: ../evil}}\n"
    write_option("experiment/evil.yaml", text)
    write_option("schema.yaml", "evil: 1\n")
    folders = ["mine", "good"][:: 1 - 2 * place]
    flags = [f"--config-dir={folder}" for folder in folders]
    line = "hydra.callbacks.preflight: a config file may not set it"
    refused([*flags, *TINY, "experiment=evil"], 2, line)
    with pytest.raises(ConfigError, match=line):
        package.run([*TINY, "experiment=evil"], config_dir=folders)


@pytest.mark.parametrize("key", ["storage", "study"])
def test_a_ready_sweep_names_no_database(refused, key):
    write_option("sweep/evil.yaml", f"# @package _global_\nsweep: {{{key}: 'sqlite:///evil.db'}}\n")
    line = f"sweep.{key}: a config file may not set it"
    refused(["-m", "--config-dir", "mine", *TINY, "sweep=evil", "seed=0,1"], 2, line)


def test_a_folder_of_options_takes_no_place_of_fmbenchs_own(refused, command):
    """Neither the schema nor the main config, nor options for Hydra."""
    write_option("schema.yaml", "evil: 1\n")
    write_option("config.yaml", "evil: 1\n")
    write_option("model/lenet5.yaml", "_target_: os.system\n")
    write_option("hydra/launcher/evil.yaml", "_target_: os.system\n")
    arguments = ["--config-dir", "mine", *TINY, "epochs=1"]
    refused([*arguments, "hydra/launcher=evil"], 2, "hydra/launcher=evil: no such option")
    assert command(*arguments)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("value", ["{0}{0}", "{{a: '{0}', b: '{0}'}}"])
def test_values_that_name_each_other_twice_end(refused, value):
    lines = [f"  x{i}: " + value.format(f"${{model.x{i + 1}}}") for i in range(40)]
    text = "\n".join(["# @package _global_", "model:", *lines, "  x40: end"])
    write_option("experiment/laughs.yaml", text)
    said = "the interpolations of the config, ${...}, lead to too many others"
    refused(["--config-dir", "mine", *TINY, "experiment=laughs"], 2, said)
    with pytest.raises(ConfigError, match="lead to too many others"):
        package.run([*TINY, "experiment=laughs"], config_dir="mine")
    # What another program does in this process is none of ours.
    assert BaseContainer._to_content.__module__ == "omegaconf.basecontainer"


def test_options_that_name_each_other_twice_end(refused):
    for i in range(30):
        write_option(f"model/x{i}.yaml", f"defaults:\n  - x{i + 1}@a\n  - x{i + 1}@b\n")
    write_option("model/x30.yaml", "x: 1\n")
    refused(["--config-dir", "mine", *TINY[:3], "model=x0"], 2, "composed of over 500 options")


def test_an_option_reads_no_file_outside_of_its_folder(refused, tmp_path):
    """Whatever is written as YAML elsewhere may be a secret, and a record would hold it."""
    secret = tmp_path / "home" / "hosts.yaml"
    secret.parent.mkdir()
    secret.write_text("token: s3cr3t\n")
    write_option("data/linked.yaml", "")
    Path("mine/data/linked.yaml").unlink()
    Path("mine/data/linked.yaml").symlink_to(secret)
    Path("mine/model").symlink_to(secret.parent)
    for name, path in (
        ("linked", "/data/linked"),
        ("folder", "/model/hosts"),
        ("absolute", f"/{secret.with_suffix('')}"),
    ):
        text = f"# @package _global_\ndefaults:\n  - {path}@data.stolen\n"
        write_option(f"experiment/{name}.yaml", text)
        refused(["--config-dir", "mine", *TINY, f"experiment={name}"], 2, path.strip("/"))


@pytest.mark.parametrize("override", [
    "model._target_=os.system",
    "model._target_=shutil.copyfile",
    "model._target_=builtins.eval",
    "model._target_=fmbench.models.blocks.torch.load",
    "optimizer._target_=torch.optim.adam.torch.load",
    "scheduler._target_=torch.load",
    "+model.x={_target_: os.system, command: touch evil}",
    "+model._execution_whitelist_=[os.system]",
    "+optimizer._execution_whitelist_=os.*",
    "+hydra.callbacks.x._target_=os.system",
    "+hydra.callbacks.x._target_=hydra.experimental.callbacks.PickleJobInfoCallback",
    "hydra.launcher._target_=os.system",
    "hydra.job_logging.handlers.console.class=os.system",
    "hydra.job_logging.handlers.console.stream=ext://os.environ",
    "+hydra.job_logging.handlers.x={class: logging.handlers.SocketHandler}",
    "hydra.searchpath=[pkg://this]",
    "hydra.searchpath=[file://nope]",
    "hydra.job.env_copy=[HOME]",
])  # fmt: skip
def test_nothing_is_started_that_is_not_listed(refused, override):
    refused([*TINY, override], 2)
    assert "this" not in sys.modules
    if not override.startswith("hydra.job"):
        with pytest.raises(ConfigError):
            package.run([*TINY, override])


# Data


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]], ids=["run", "sweep"])
def test_data_that_are_not_the_official_ones(refused, tmp_path, sweep):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(bytes(16))
    given = ["data=fashion_mnist", f"data.root={tmp_path}", "data.download=false", "threads=1"]
    part = "train-images-idx3-ubyte: not the official file of Fashion-MNIST, 16 bytes where"
    refused([*sweep, *given, "model=lenet5"], 3, part)


# Folders


@pytest.mark.parametrize("sweep", [[], ["-m"]], ids=["run", "sweep"])
def test_a_folder_whose_name_is_too_long(refused, sweep):
    key = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    refused([*sweep, *TINY, f"{key}={LONG}"], 5, LONG, "File name too long")


# In processes of their own


@pytest.mark.slow
def test_as_people_start_it(tmp_path):
    for start in (
        lambda: fmbench("batch_size=0", cwd=tmp_path),
        lambda: fmbench("-m", "seed=range(10000000)", cwd=tmp_path),
        lambda: python("-m", "fmbench.report", "nowhere", cwd=tmp_path),
    ):
        done = start()
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
