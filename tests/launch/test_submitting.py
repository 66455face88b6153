"""A driver that is killed where Slurm has its jobs, and nobody has noted their numbers."""

import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from clusters import PATIENCE, installed
from commands import CHECKOUT, TINY, UNREPORTED, records, started, wait_for

from fmbench.launch import slurm_queue
from fmbench.records.reader import read_history
from fmbench.records.trials import SEARCH_NAME, Search

pytestmark = [
    pytest.mark.slow,
    pytest.mark.submitit,
    pytest.mark.slurm,
    pytest.mark.skipif(not installed("submitit"), reason="extra slurm"),
]

#: fmbench, which dies as soon as a function has returned.
DIES = """
import os, signal
from fmbench.__main__ import main
from submitit.slurm.slurm import SlurmExecutor as submitit
from fmbench.launch.submitit import Slurm as fmbench

submit = {function}
def submit_and_die(*arguments):
    submit(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
{function} = submit_and_die
main()
"""

#: When Slurm has them and they have not found their tasks yet; when they are at work.
TAKEN, SUBMITTED = "submitit._submit_command", "fmbench._submitted"

#: As many as two cores run at once.
GRID = ["-m", *TINY, "seed=range(2)"]
#: And one that comes later.
SEARCH = [
    *("-m", "sweep=lr_batch", *TINY, "device=cpu", "sweep.trials=3", "sweep.jobs=2"),
    *("sweep.pruner=none", "batch_size=choice(16,32)"),
]


def in_queue(environment):
    """The jobs in Slurm's queue, of arrays one by one."""
    command = ["squeue", "-h", "--array", "-o", "%i"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return told.stdout.split()


@pytest.mark.parametrize(
    ("sweep", "function", "detached"),
    [
        pytest.param(GRID, TAKEN, (False, False), id="grid, taken"),
        pytest.param(GRID, SUBMITTED, (False, False), id="grid, attached"),
        pytest.param(GRID, SUBMITTED, (True, True), id="grid, detached"),
        pytest.param(SEARCH, SUBMITTED, (False, False), id="search, attached"),
        pytest.param(SEARCH, SUBMITTED, (True, True), id="search, detached"),
        # The jobs of a grid are the same whether they are waited for or not.
        pytest.param(SEARCH, SUBMITTED, (True, False), id="search, attached after detached"),
    ],
)
def test_a_driver_that_dies_as_it_submits(slurm, tmp_path, sweep, function, detached):
    first, second = (["sweep.detach=true"] * each for each in detached)
    environment = {**os.environ, **slurm, "PYTHONPATH": str(CHECKOUT)}
    words = [*sweep, UNREPORTED, "hydra/launcher=submitit_slurm", "hydra.sweep.dir=here"]
    killed = subprocess.run(
        [sys.executable, "-c", DIES.format(function=function), *words, *first],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr
    folder, left = tmp_path / "here", in_queue(environment)
    assert left
    assert not slurm_queue.noted(folder)
    with started(*words, *second, cwd=tmp_path, environment=slurm) as driver:
        if function is TAKEN:  # or they would look for their tasks for a minute
            next(line for line in driver.stderr if "submitted to Slurm" in line)
            subprocess.run(["scancel", *left], env=environment, check=True)
        _, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    wait_for(lambda: not in_queue(environment), PATIENCE)
    found = records(folder)
    runs = 2 if sweep is GRID else 3
    assert Counter(record["status"] for record in found) == {"completed": runs}
    assert {path.parent.name for path in folder.glob("*/result.json")} == set(map(str, range(runs)))
    for number in range(runs):
        run = folder / str(number)
        assert [line["epoch"] for line in read_history(run)] == [0, 1]
        assert records(run)[0]["restarts"] == []
        epochs = re.findall(r"epoch (\d)/2", (run / "fmbench.log").read_text())
        assert epochs == ["1", "2"], number
    if sweep is SEARCH:
        search = Search.from_json((folder / SEARCH_NAME).read_text())
        assert search.total == len(search.trials) == runs
        values = {trial.folder: trial.values for trial in search.trials}
        for number in range(runs):
            assert values[str(number)] == (records(folder / str(number))[0]["validation_accuracy"],)
        assert sum(record["test_accuracy"] is not None for record in found) == 1
