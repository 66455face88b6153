"""How values are written."""

import shlex
import subprocess

import pytest

from fmbench.report.table import formats
from fmbench.report.table.columns import METRICS
from fmbench.report.table.describe import command


@pytest.mark.parametrize(("text", "expected"), [
    (formats.percent(0.90164), "90.16"),
    (METRICS["test_accuracy"].with_spread(0.9016, 0.0012), "90.16 ± 0.12"),
    (METRICS["test_accuracy"].interval(0.9, 0.9123), "90.00 to 91.23"),
    (formats.percent(None), "-"),
    (formats.count(61706), "61,706"),
    (formats.number(1e-05), "1e-05"),
    (formats.rate(22_222.2), "22,222"),
    (formats.rate(99.96), "100"),
    (formats.rate(41.25), "41.2"),
    (formats.rate(None), "-"),
    (formats.split("custom", 30_000, 0, 40_000), "custom 30,000/0/40,000"),
    (formats.split("custom", None, None, None), "custom"),
    (formats.seeds(3, 0, 0, 0, 0), "3"),
    (formats.seeds(3, 1, 2, 0, 0), "3 of 6 (1 failed, 2 unfinished)"),
    (formats.flops(833_040), "0.83 M"),
    (formats.flops(1_113_000_000), "1.11 G"),
    (formats.flops(7), "7"),
    (formats.duration(0.42), "0.42 s"),
    (formats.duration(8.06), "8.1 s"),
    (formats.duration(59.96), "1 min 00 s"),
    (formats.duration(1109), "18 min 29 s"),
    (formats.duration(3599.7), "1 h 00 min"),
    (formats.duration(7_380), "2 h 03 min"),
    (formats.published_time(1_109, False, "GTX 1070"), "18 min 29 s, GTX 1070"),
    (formats.published_time(12_600, True, "GTX 1080 Ti"), "about 3.5 h, GTX 1080 Ti"),
    (formats.published_time(1_440_000, True, None), "about 400 h, -"),
    (formats.published_time(1_200, True, "a CPU"), "about 20 min, a CPU"),
    (formats.published_time(45, True, "a CPU"), "about 45 s, a CPU"),
])  # fmt: skip
def test_formats(text, expected):
    assert text == expected


def test_a_command_survives_the_shell():
    def line_of(overrides, seeds):
        others = dict.fromkeys(("trust", "difference_in", "config_dirs", "config_dir", "folds"))
        return command({**others, "overrides": tuple(overrides), "seeds": seeds})[0]

    words = ["model=a b", "model.x='y'", "+model.z=$(reboot) `id`"]
    assert shlex.split(line_of(words, [0]))[3:] == [*words, "seed=0"]
    assert line_of(["seed=4", "model=lenet"], [4]) == "python -m fmbench model=lenet seed=4"
    line = line_of(["model.a=b'\n```\n\\n"], [])
    assert "\n" not in line
    told = f'set -- {line.removeprefix("python -m fmbench")}; printf %s "$1"'
    echoed = subprocess.run(["bash", "-c", told], capture_output=True, check=True).stdout
    assert echoed.decode() == "model.a=b'\n```\n\\n"
