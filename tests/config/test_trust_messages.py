"""What is said of a `_target_` that may not be started, or leads to nothing."""

import sys

import pytest
from commands import TINY, compose, raises_one_line

from fmbench.config import checks, sources
from fmbench.core.errors import ConfigError
from fmbench.optim.schedules import Schedule
from fmbench.runs import prepare

CODE = """
import torch


class Signum(torch.optim.SGD):
    pass


def plain(*given):
    return given[0].sum()


def early(*given, **options):
    return undefined


def short(optimizer, rate=1):
    return optimizer


def fails(*given, error=RuntimeError, **options):
    raise error("no such luck")


def full(*given, **options):
    fails(error=MemoryError)


def decodes(*given, **options):
    import json

    return json.loads("")
"""

#: Files that cannot be imported, and what is said of them.
BROKEN = {
    "import torhc": "ModuleNotFoundError: No module named 'torhc' (broken.py, line 1)",
    "\nfrom torch import nothing": "ImportError: cannot import name 'nothing' from 'torch'",
    "import math\n\nmath.sqrt(-1)": "ValueError: math domain error (broken.py, line 3)",
    "class Signum(:\n    pass": "SyntaxError: invalid syntax (broken.py, line 1)",
    "def f():\n  x\n y": "IndentationError: unindent does not match any outer indentation level "
    "(broken.py, line 3)",
    "from mymethods import gone": "ImportError: cannot import name 'gone' from 'mymethods'",
}


@pytest.fixture
def research(tmp_path, monkeypatch):
    """A folder with a package `mymethods`, which is trusted, in no folder that is looked into."""
    monkeypatch.setenv("FMBENCH_TRUST", "mymethods")
    (tmp_path / "mymethods").mkdir()
    (tmp_path / "mymethods" / "__init__.py").touch()
    (tmp_path / "mymethods" / "signum.py").write_text(CODE)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mymethods"]:
        del sys.modules[name]


@pytest.mark.parametrize(("target", "said"), [
    ("signum.Sigum", "mymethods.signum has no Sigum; did you mean Signum?"),
    ("signum.Lion", "mymethods.signum has no Lion; there are: Signum, plain"),
    ("sgnum.Signum", "mymethods has no module sgnum; did you mean signum?"),
    ("signum.Signum.mak", "mymethods.signum.Signum has no mak"),
    ("signum.early", "NameError: name 'undefined' is not defined (signum.py, line 14)"),
])  # fmt: skip
def test_a_target_that_leads_nowhere(research, monkeypatch, target, said):
    monkeypatch.syspath_prepend(research)
    config = compose(*TINY, f"optimizer._target_=mymethods.{target}")
    raises_one_line(lambda: prepare.rehearse(config), ConfigError, said)


@pytest.mark.parametrize("group", [
    "model", "optimizer", "scheduler", "loss", "averaging", "data", "augmentation.own",
])  # fmt: skip
@pytest.mark.parametrize(("code", "said"), BROKEN.items())
def test_a_file_that_cannot_be_imported_is_said_with_its_line(
    research, monkeypatch, group, code, said
):
    monkeypatch.syspath_prepend(research)
    (research / "mymethods" / "broken.py").write_text(code)
    config = compose(*TINY)
    config["data"]["name"] = "mine" if group == "data" else "synthetic"
    part = config["augmentation"] if group == "augmentation.own" else config
    name = group.rpartition(".")[2]
    part[name] = {**(part[name] or {}), "_target_": "mymethods.broken.Signum"}
    where = "(broken.py, line " if said.endswith(("'torch'", "'mymethods'")) else ""
    raises_one_line(
        lambda: prepare.rehearse(config), ConfigError,
        f"{group} (mymethods.broken.Signum): {said}", where,
    )  # fmt: skip


@pytest.mark.parametrize("group", ["model", "optimizer", "scheduler", "loss", "averaging", "data"])
def test_a_mistake_in_ones_own_code_is_said_with_its_line(research, monkeypatch, group):
    monkeypatch.syspath_prepend(research)
    config = compose(*TINY)
    config["data"]["name"] = "mine" if group == "data" else "synthetic"
    config[group] = {**config[group], "_target_": "mymethods.signum.early"}
    said = f"{group} (mymethods.signum.early): NameError: name 'undefined' is not defined (signum"
    raises_one_line(lambda: prepare.rehearse(config), ConfigError, said)


@pytest.mark.parametrize(("target", "said"), [
    ("fails", "RuntimeError: no such luck (signum.py, line 22)"),
    ("decodes", "JSONDecodeError: Expecting value: line 1 column 1 (char 0) (signum.py, line 32)"),
])  # fmt: skip
def test_whatever_ones_own_code_raises_is_said_with_its_line(research, monkeypatch, target, said):
    monkeypatch.syspath_prepend(research)
    config = compose(*TINY)
    config["model"] = {"_target_": f"mymethods.signum.{target}"}
    images = prepare.ImageFacts((1, 28, 28), 10)
    raises_one_line(lambda: prepare.make_model(config, images), ConfigError, said)
    assert prepare.model_on_meta(config, images) is None  # it may be that device
    config["model"] = {"_target_": "mymethods.signum.full"}
    with pytest.raises(MemoryError):
        prepare.make_model(config, images)


def test_what_ones_own_code_takes_is_said(research, monkeypatch):
    monkeypatch.syspath_prepend(research)
    config = compose(*TINY, "optimizer._target_=mymethods.signum.Signum", "+optimizer.mometum=1")
    said = "unexpected keyword argument 'mometum'; it takes params, lr, momentum, "
    raises_one_line(lambda: prepare.rehearse(config), ConfigError, said)
    config = compose(*TINY)
    config["scheduler"] = {"_target_": "mymethods.signum.short", "rate": 2}
    said = "; it takes optimizer, rate, and is called with epochs and batches"
    raises_one_line(lambda: prepare.rehearse(config), ConfigError, said)


@pytest.mark.parametrize(("given", "adds"), [
    (["optimizer=torch", "optimizer.name=Adam", "optimizer.amsgrad=true"],
     "; +optimizer.amsgrad=true adds it"),
    (["optimizer._target_=mine.Lion", "optimizer.beta=0.9"], "; +optimizer.beta=0.9 adds it"),
    (["optimizer.amsgrad=true"], ""),
])  # fmt: skip
def test_a_key_that_a_class_may_have_is_said_to_be_added(command, given, adds):
    _, _, err = command(*TINY, *given)
    assert "no such key" in err
    assert err.endswith(f"{adds}\n")
    assert ("adds it" in err) is bool(adds)


def test_a_package_in_another_folder_is_said_to_be_there(research):
    config = compose(*TINY, "optimizer._target_=mymethods.signum.Signum")
    said = "No module named 'mymethods': commands are typed in the folder that holds it"
    raises_one_line(lambda: prepare.rehearse(config), ConfigError, f"{said}, or")
    with sources.own_folders([research / "options"]):
        raises_one_line(lambda: prepare.rehearse(config), ConfigError, f"{said} (cd {research})")


@pytest.mark.parametrize(("key", "what"), [("loss", "loss"), ("augmentation.own", "transform")])
def test_a_function_that_is_called_is_said_to_need_partial(research, monkeypatch, key, what):
    monkeypatch.syspath_prepend(research)
    config = compose(*TINY)
    group, _, part = key.partition(".")
    function = {"_target_": "mymethods.signum.plain", "size": 1}
    config[group] = {part: function} if part else function
    said = f"a function that is the {what} itself needs _partial_: true"
    raises_one_line(lambda: prepare.rehearse(config), ConfigError, said)


@pytest.mark.parametrize(("target", "trusted", "said"), [
    ("mymethods.Signum", "", "not allowed; type FMBENCH_TRUST=mymethods before the command to"),
    ("mymethods.Signum", "yours", "FMBENCH_TRUST=yours,mymethods before the command"),
    ("mymethods.Signum", "", "command to trust mymethods (none is trusted now)"),
    ("mymethods.Signum", "yours", "(trusted now: yours)"),
    ("torchvision.ops.X", "", "type FMBENCH_TRUST=torchvision.ops before the command"),
    ("Signum", "", "not allowed; must be an import path, as mine.Signum of mine.py"),
    ("torch.load", "", "not allowed; FMBENCH_TRUST names packages to trust"),
    ("torch.optim.RProp", "", "torch.optim has no RProp to use here; did you mean Rprop?"),
    # Of files of strangers: nothing is made easy to trust that starts programs.
    ("os.system", "", "not allowed; FMBENCH_TRUST names packages to trust"),
    ("fmbench.core.files.remove", "", "not allowed; FMBENCH_TRUST names packages to trust"),
    ("x;rm.y", "", "not allowed; FMBENCH_TRUST names packages to trust"),
])  # fmt: skip
def test_what_is_not_trusted_is_said_with_what_to_type(monkeypatch, target, trusted, said):
    monkeypatch.setenv("FMBENCH_TRUST", trusted)
    config = compose(*TINY)
    config["optimizer"]["_target_"] = target
    raises_one_line(
        lambda: checks.check(config), ConfigError, f"optimizer._target_={target}: ", said
    )


def test_a_schedule_with_another_interval_is_refused():
    raises_one_line(lambda: Schedule(None, "batches"), ConfigError, "interval='batches'")
