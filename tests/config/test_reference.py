"""Published figures: what may stand in a config under `reference`."""

import pytest
from commands import raises_one_line

from fmbench.config.published import check_reference
from fmbench.core.errors import ConfigError

GOOD = {
    "accuracy": 0.9016,
    "parameters": 61_706,
    "seconds": 1109,
    "device": "GTX 1070",
    "protocol": "best epoch on test",
    "source": "a project",
}


@pytest.mark.parametrize("changes", [
    {},
    {"accuracy": None, "parameters": None, "seconds": None, "device": None},
    {"protocol": "last epoch", "seconds": 0.5},
    {"protocol": "not stated", "accuracy": 1},
    {"approximate": True},
])  # fmt: skip
def test_takes(changes):
    check_reference({**GOOD, **changes})
    check_reference(None)


@pytest.mark.parametrize(("reference", "parts"), [
    ("90.16", ["reference=90.16", "null"]),
    ({**GOOD, "acuracy": 1}, ["reference.acuracy", "accuracy"]),
    ({k: v for k, v in GOOD.items() if k != "seconds"}, ["reference.seconds", "null"]),
    ({**GOOD, "accuracy": 90.16}, ["reference.accuracy=90.16", "0 to 1"]),
    ({**GOOD, "accuracy": True}, ["reference.accuracy=True"]),
    ({**GOOD, "parameters": 61_706.5}, ["reference.parameters=61706.5", "whole"]),
    ({**GOOD, "seconds": -1}, ["reference.seconds=-1", "0 or more"]),
    ({**GOOD, "approximate": "yes"}, ["reference.approximate=yes", "true or false"]),
    ({**GOOD, "device": 1070}, ["reference.device=1070", "text"]),
    ({**GOOD, "source": None}, ["reference.source=None", "text"]),
    ({**GOOD, "protocol": "best"}, ["reference.protocol=best", "last epoch", "not stated"]),
])  # fmt: skip
def test_refuses(reference, parts):
    raises_one_line(lambda: check_reference(reference), ConfigError, *parts)
