"""The code that a run is made of: whose it is, and whether it is the same."""

import functools
import importlib
import json
import linecache
import py_compile
import subprocess
import sys
import types

import pytest
import torch
from commands import TINY
from torch import nn
from torchvision.models import get_model

import fmbench
from fmbench.core.errors import StorageError
from fmbench.core.signals import StopRequested
from fmbench.models.lenet5 import LeNet5
from fmbench.records.reader import load_results
from fmbench.records.record import Record
from fmbench.report.table.build import benchmark_table
from fmbench.runs import run as runs
from fmbench.runs import source_code
from fmbench.runs.checkpointing import RunState
from fmbench.runs.source_code import own_source

NET = """
from torch import nn
from own.layers import scaled

class Net(nn.Module):
    def __init__(self, channels=1, classes=10):
        super().__init__()
        self.layer = nn.Linear(28 * 28 * channels, classes)

    def forward(self, images):
        return scaled(self.layer(images.flatten(1)))
"""
LAYERS = """
from .numbers import FACTOR

def scaled(values):
    return values * FACTOR
"""
FILES = {
    "__init__.py": "from .net import Net\nfrom .other import Unused\n",
    "net.py": NET,
    "layers.py": LAYERS,
    "numbers.py": "FACTOR = 2.0\n",
    "other.py": "class Unused:\n    pass\n",
    "more.py": "",
    "base.py": "from torch import nn\nclass Base(nn.Module):\n    pass\n",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a package `own` with these files (changed where given), and import it anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FMBENCH_TRUST", "own")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(**changed):
        forget()
        for name, text in (FILES | {f"{stem}.py": text for stem, text in changed.items()}).items():
            path = tmp_path / "own" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text.encode())
        importlib.invalidate_caches()
        return importlib.import_module("own.net")

    yield write
    forget()


def forget():
    source_code._is_own_file.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("own", "moved")]:
        del sys.modules[name]


def source(*built, target="torch.nn.Sequential"):
    groups = {group: {"_target_": target} for group in ("model", "optimizer", "scheduler")}
    return own_source(groups, *built)


def digest(*built, **options):
    found = source(*built, **options)
    assert found.missing == ()
    return found.digest


def test_what_is_fmbenchs_or_installed_has_no_source_of_its_own():
    net = LeNet5()
    normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    traced = torch.fx.symbolic_trace(net)
    for model in (net, normed, traced, get_model("squeezenet1_0"), get_model("swin_t")):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        assert source(model, optimizer) == source_code.Source(None)


def test_each_file_that_a_model_is_made_of_counts_and_no_other(own):
    first = digest(own().Net())
    assert first == "a23fdd00e39e6b16b3132bf7340820a3"  # another splits the rows of users
    assert digest(own().Net()) == first
    for changed in (
        {"net": NET.replace("flatten(1)", "flatten(1) / 2")},
        {"layers": LAYERS.replace("*", "/")},
        {"numbers": "FACTOR = 3.0\n"},
    ):
        assert digest(own(**changed).Net()) != first, changed
    assert digest(own(other="class Unused:\n    number = 3\n").Net()) == first


LAID_OUT = """
'''A net.'''
from torch import (
    nn,
)

from own.layers import scaled  # a comment


class Net(nn.Module):
    '''Of one layer.'''

    def __init__(self, channels=1,
                 classes=0xA):
        super().__init__()
        self.layer = nn.Linear((28 * 28) * channels, classes,)
    def forward(self, images):
        '''Logits.'''
        return scaled(
            self.layer(images.flatten(1))
        )
"""


@pytest.mark.parametrize("text", [
    LAID_OUT, NET.replace("\n", "\r\n"), "# a comment\n\n" + NET.replace("    ", "\t"),
])  # fmt: skip
def test_comments_and_layout_do_not_count(own, text):
    first = digest(own().Net())
    assert digest(own(net=text).Net()) == first


def test_places_and_names_of_files_do_not_count(own, tmp_path):
    first = digest(own().Net())
    (tmp_path / "own").rename(tmp_path / "moved")
    for path in (tmp_path / "moved").iterdir():
        path.write_text(path.read_text().replace("from own.", "from ."), "utf-8")
    importlib.invalidate_caches()
    moved = digest(importlib.import_module("moved.net").Net())
    assert digest(own(net=NET.replace("from own.", "from .")).Net()) == moved != first


@pytest.mark.parametrize("text", [
    # A base class, a submodule, a function that is an attribute, a hook, an instance of a class.
    NET.replace("nn.Module)", "Base)").replace("from own", "from own.base import Base\nfrom own"),
    NET.replace("        self.layer =", "        from own.base import Base\n"
                "        self.inner = nn.Sequential(nn.ReLU(), Base())\n        self.layer ="),
    NET.replace("        self.layer =", "        from own.base import scale\n"
                "        self.scale = [scale]\n        self.layer ="),
    NET.replace("        self.layer =", "        from own.base import scale\n"
                "        self.register_forward_hook(scale)\n        self.layer ="),
    NET.replace("        self.layer =", "        from own.base import Settings\n"
                "        self.settings = Settings()\n        self.layer ="),
    # Ways to import.
    NET.replace("from own", "from own.base import *\nfrom own"),
    NET.replace("from own", "from . import base, more\nfrom own"),
    NET.replace("from own", "import own.base as b\nfrom own"),
    NET.replace("from own", "import importlib\nb = importlib.import_module('own.base')\nfrom own"),
    NET.replace("        return", "        from .base import scale\n        return"),  # not loaded
    NET.replace("        return", "        import own.base\n        return"),
])  # fmt: skip
def test_all_ways_to_another_file_are_followed(own, text):
    base = FILES["base.py"] + "class Settings:\n    number = 3\n\ndef scale(*_):\n    return None\n"
    first = digest(own(net=text, base=base).Net())
    assert digest(own(net=text, base=base).Net()) == first
    assert digest(own(net=text, base=base + "NUMBER = 3\n").Net()) != first


def test_a_function_that_gives_a_model_of_torchvision_counts(own):
    make = "from torchvision.models import get_model\ndef make():\n    return get_model('vgg11')\n"
    own(more=make)
    importlib.import_module("own.more")
    first = digest(nn.Linear(1, 1), target="own.more.make")
    assert first is not None
    own(more=make.replace("vgg11", "vgg13"))
    importlib.import_module("own.more")
    assert digest(nn.Linear(1, 1), target="own.more.make") != first


WRAPPED = """
import functools

def twice(function):
    @functools.wraps(function)
    def call(*arguments):
        return function(*arguments)
    return call

class Own(torch.optim.SGD):
    @twice
    @torch.no_grad()
    def step(self, closure=None):
        return super().step(closure)
"""
MADE = """
def make():
    class Own(torch.optim.SGD):
        number = 1
    return Own

Own = make()
"""


@pytest.mark.parametrize("text", ["class Own(torch.optim.SGD):\n    number = 1\n", WRAPPED, MADE])
def test_an_optimizer_of_ones_own_counts(own, text):
    def optimizer(text):
        own(more="import torch\n" + text)
        weights = [nn.Parameter(torch.zeros(1))]
        return importlib.import_module("own.more").Own(weights, lr=0.1)

    first = digest(optimizer(text))
    assert first is not None
    assert digest(optimizer(text + "CHANGED = 1\n")) != first


CELLS = {
    "<cell 1>": "from torch import nn\nWIDTH = 8\nPART = 0.5\nUNUSED = 1\n\n"
    "def scaled(x):\n    return x * 2\n",
    "<cell 2>": "class Net(nn.Module):\n    factor = 1\n"
    "    def __init__(self, part=PART):\n        super().__init__()\n"
    "        self.layer = nn.Linear(1, WIDTH)\n"
    "    def forward(self, x):\n        return scaled(self.layer(x)) * self.factor\n",
}


def notebook(monkeypatch, *, gone=False, **changed):
    """The model of a notebook with these cells, in a `__main__` of its own."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    for name, text in CELLS.items():
        cell = functools.reduce(lambda said, change: said.replace(*change), changed.items(), text)
        linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
        exec(compile(cell, name, "exec"), vars(main))
        if gone:
            del linecache.cache[name]
    return main.Net()


def test_of_a_notebook_what_is_used_counts(monkeypatch):
    first = digest(notebook(monkeypatch))
    assert first is not None
    assert digest(notebook(monkeypatch, UNUSED="OTHER")) == first
    for old, new in (
        *(("= 8", "= 16"), ("= 0.5", "= 0.6"), ("* 2", "* 3"), ("factor = 1", "factor = 2")),
        *(("nn.Module)", "nn.Sequential)"), ("x))", "x + 0))")),
    ):
        assert digest(notebook(monkeypatch, **{old: new})) != first, new


def test_a_cell_that_is_gone_is_named(monkeypatch):
    found = source(notebook(monkeypatch, gone=True))
    assert found.missing == ("__main__.Net.__init__", "__main__.Net.forward", "__main__.scaled")
    assert source(notebook(monkeypatch, gone=True)) == found
    assert source(notebook(monkeypatch, gone=True, **{"* 2": "* 3"})) != found


def test_code_of_exec_a_compiled_file_and_a_stale_import_have_no_source(own, tmp_path):
    made = {}
    exec("from torch import nn\nclass Net(nn.Linear):\n  def forward(self, x):\n    return x", made)
    assert source(made["Net"](1, 1)).missing == ("None.Net.forward",)
    model = own()
    (tmp_path / "own" / "net.py").write_text(NET.replace("flatten(1)", "flatten(1) / 2"), "utf-8")
    assert source(model.Net()).missing == ("own.net.Net.forward",)  # edited, not imported again
    own()
    for name in ("net", "layers"):
        path = tmp_path / "own" / f"{name}.py"
        py_compile.compile(path, path.with_suffix(".pyc"))
        path.unlink()
    forget()
    importlib.invalidate_caches()
    found = source(importlib.import_module("own.net").Net())
    assert {"own.net", "own.layers.scaled"} <= set(found.missing)


def test_code_that_is_edited_between_two_runs_of_a_process_is_what_was_imported(own, tmp_path):
    model = own()
    first = source(model.Net())
    numbers = tmp_path / "own" / "numbers.py"
    numbers.write_text("FACTOR = 3.0\n", "utf-8")
    edited = tmp_path / "own" / "net.py"
    edited.write_text(NET.replace("flatten(1)", "flatten(1) / 2"), "utf-8")
    found = source(model.Net())
    assert (found.digest, found.missing) == (first.digest, ())
    assert found.edited == (str(edited), str(numbers))
    for name in ("numbers", "layers", "net"):
        importlib.reload(sys.modules[f"own.{name}"])
    again = source(model.Net())
    assert (again.missing, again.edited) == ((), ())
    assert again.digest != first.digest


def test_what_is_installed_or_generated_is_not_searched(own, tmp_path):
    text = (
        "from dataclasses import dataclass\nfrom typing import NamedTuple\n"
        "@dataclass\nclass Settings:\n    number: int = 1\n"
        "class Pair(NamedTuple):\n    one: int\n"
    )
    model = NET.replace("from own", "from own.base import Settings, Pair\nfrom own").replace(
        "        self.layer =", "        self.it = Settings(), Pair(1)\n        self.layer ="
    )
    assert digest(own(net=model, base=text).Net()) is not None
    record = tmp_path / "own-1.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("own/layers.py,sha256=a,1\n", "utf-8")  # as by pip install --target
    source_code._is_own_file.cache_clear()
    assert not source_code._is_own_file(str(tmp_path / "own" / "layers.py"))
    assert source_code._is_own_file(str(tmp_path / "own" / "net.py"))
    record.unlink()
    (tmp_path / "own").rename(tmp_path / "site-packages")
    (tmp_path / "own").symlink_to(tmp_path / "site-packages")
    forget()
    assert source(importlib.import_module("own.net").Net()) == source_code.Source(None)


def run(folder, *overrides):
    tiny = [*TINY, "model._target_=own.net.Net", f"hydra.run.dir={folder}"]
    return fmbench.run([*tiny, *overrides])


def _stop_now(state):
    raise StopRequested(15, saved=state.save())


def stop(folder, monkeypatch):
    """Run, and stop after the first batch."""
    with monkeypatch.context() as patched:
        patched.setattr(RunState, "after_batch", _stop_now)
        with pytest.raises(StopRequested):
            run(folder)


def rows(folder):
    return benchmark_table(load_results(folder))[["n", "n_repeats", "source", "differs"]]


@pytest.mark.slow
def test_a_model_that_was_edited_between_two_seeds_has_a_row_of_its_own(own, tmp_path):
    runs = tmp_path / "runs"
    own()
    first = run(runs / "0")
    own(net="# a comment\n" + NET)
    assert run(runs / "1", "seed=1").source == first.source
    assert rows(runs)["n"].tolist() == [2]
    own(layers=LAYERS.replace("*", "/"))
    other = run(runs / "2")  # the same seed: it is no repeat of the first
    table = rows(runs)
    assert sorted(table["n"].tolist()) == [1, 2]
    assert table["n_repeats"].tolist() == [0, 0]
    assert {first.source, other.source} == set(table["source"])
    said = " ".join(table["differs"])
    assert f"source={first.source[:8]}" in said
    assert f"source={other.source[:8]}" in said


@pytest.mark.slow
def test_runs_without_source_share_a_row_with_nothing(own, tmp_path, monkeypatch, caplog):
    module = own()
    exec("def forward(self, x):\n    return self.layer(x.flatten(1))", made := {})
    module.Net.forward = made["forward"]
    module.Net.__module__ = "builtins"
    monkeypatch.setenv("FMBENCH_TRUST", "own,builtins")
    stop(tmp_path / "runs" / "0", monkeypatch)
    first = run(tmp_path / "runs" / "0")
    assert (first.status, len(first.restarts)) == ("completed", 1)  # it is known again
    for number in (1, 2):
        run(tmp_path / "runs" / str(number))
    assert rows(tmp_path / "runs")["n"].tolist() == [1, 1, 1]
    assert first.unsourced
    assert "this run shares a row with no other" in caplog.text


@pytest.fixture
def stopped(own, tmp_path, monkeypatch):
    """A run of one's own model that was stopped in its first epoch."""
    own()
    stop(tmp_path / "run", monkeypatch)
    return tmp_path / "run"


def test_a_run_does_not_go_on_with_another_model(own, stopped):
    own(numbers="FACTOR = 3.0\n")
    before = (stopped / "result.json").read_text("utf-8")
    with pytest.raises(StorageError, match=r"checkpoint\.pt: was trained with other code: .* put"):
        run(stopped)
    after = json.loads((stopped / "result.json").read_text("utf-8"))
    assert after["source"] == json.loads(before)["source"]
    own(numbers="FACTOR = 2.0  # put back\n")
    assert run(stopped).status == "completed"


@pytest.mark.slow
def test_without_a_checkpoint_it_begins_anew_with_the_model_that_there_is(own, stopped):
    (stopped / "checkpoint.pt").unlink()
    own(numbers="FACTOR = 3.0\n")
    before = json.loads((stopped / "result.json").read_text("utf-8"))["source"]
    record = run(stopped)
    assert (record.status, record.restarts[0]["epoch"]) == ("completed", 0)
    assert record.source != before


def test_a_run_of_code_that_nobody_noted_goes_on_in_its_row(own, tmp_path, monkeypatch, caplog):
    own()
    with monkeypatch.context() as patched:
        patched.setattr(runs, "own_source", lambda *_: source_code.Source(None))
        stop(tmp_path / "run", monkeypatch)
    then = Record.from_json((tmp_path / "run" / "result.json").read_text("utf-8"))
    record = run(tmp_path / "run")
    assert "was not noted when this run was begun" in caplog.text
    assert (record.source, record.key) == (None, then.key)


LOSS = """
import importlib

def make():
    return importlib.import_module("own.more").Loss()
"""
MORE = """
from torch.nn import functional

class Loss:
    def __call__(self, logits, targets):
        return 1.0 * functional.cross_entropy(logits, targets)
"""


def test_the_loss_that_a_function_gives_counts(own, tmp_path):
    made = ["loss._target_=own.loss.make", "~loss.class_weights", "~loss.label_smoothing"]
    own(loss=LOSS, more=MORE)
    first = run(tmp_path / "first", *made)
    own(loss=LOSS, more=MORE.replace("1.0", "2.0"))
    other = run(tmp_path / "other", *made)
    assert first.source != other.source


def test_a_later_look_at_the_test_set_is_of_the_same_model(own, tmp_path):
    own()
    folder = tmp_path / "run"
    run(folder, "evaluation.every=null", "evaluation.test=never", "keep_checkpoint=true")
    own(numbers="FACTOR = 3.0\n")
    before = (folder / "result.json").read_text("utf-8")
    with pytest.raises(StorageError, match="was trained with other code"):
        run(folder, "keep_checkpoint=true")
    assert (folder / "result.json").read_text("utf-8") == before
    own()
    assert run(folder, "keep_checkpoint=true").test_accuracy is not None


@pytest.mark.slow
def test_a_later_look_elsewhere_is_recorded_as_such(tmp_path, monkeypatch, caplog):
    folder = tmp_path / "run"
    here = [*TINY, f"hydra.run.dir={folder}", "keep_checkpoint=true"]
    blind = fmbench.run([*here, "evaluation.every=null", "evaluation.test=never"])
    monkeypatch.setattr(runs, "git_state", lambda: {"commit": "b" * 40, "dirty": False})
    record = fmbench.run([*here, "threads=2"])
    assert (record.fingerprint, record.device) == (blind.fingerprint, blind.device)
    assert record.seconds == blind.seconds
    assert record.evaluated["changed"]["threads"] == [1, 2]
    assert record.evaluated["changed"]["git"] == [blind.git, {"commit": "b" * 40, "dirty": False}]
    assert record.evaluated["device"].endswith("2 threads")
    assert record.evaluated["seconds"] > 0
    assert "threads, git changed since it was trained" in caplog.text


def test_changed_plugins_make_a_checkout_dirty(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)

    for name in ("fmbench", "hydra_plugins", "conf", "docs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("as committed", "utf-8")
    git("init")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "all")
    monkeypatch.setattr(source_code, "PACKAGE", tmp_path / "fmbench")
    states = []
    for name in ("docs", "hydra_plugins"):
        (tmp_path / name / "file").write_text("changed", "utf-8")
        source_code.git_state.cache_clear()
        states.append(source_code.git_state()["dirty"])
    source_code.git_state.cache_clear()
    assert states == [False, True]
