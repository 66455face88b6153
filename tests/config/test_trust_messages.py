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
"""


@pytest.fixture
def research(tmp_path, monkeypatch):
    """A folder with a package `mymethods`, which is trusted, in no folder that is looked into."""
    monkeypatch.setenv("FMBENCH_TRUST", "mymethods")
    (tmp_path / "mymethods").mkdir()
    (tmp_path / "mymethods" / "__init__.py").touch()
    (tmp_path / "mymethods" / "signum.py").write_text(CODE)
    (tmp_path / "mymethods" / "broken.py").write_text("import torhc")
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mymethods"]:
        del sys.modules[name]


@pytest.mark.parametrize(("target", "said"), [
    ("signum.Sigum", "mymethods.signum has no Sigum; did you mean Signum?"),
    ("signum.Lion", "mymethods.signum has no Lion; there are: Signum, plain"),
    ("sgnum.Signum", "mymethods has no module sgnum; did you mean signum?"),
    ("signum.Signum.mak", "mymethods.signum.Signum has no mak"),
    ("broken.Signum", "No module named 'torhc'"),
])  # fmt: skip
def test_a_target_that_leads_nowhere(research, monkeypatch, target, said):
    monkeypatch.syspath_prepend(research)
    config = compose(*TINY, f"optimizer._target_=mymethods.{target}")
    raises_one_line(lambda: prepare.rehearse(config), ConfigError, said)


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
