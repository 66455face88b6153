"""Searches for tests: one to run, what it has left, and one made by hand.

The last has four trials, one of each state, as `search.json` and as run folders.
"""

import json
from pathlib import Path
from typing import Any

import optuna
from commands import TINY
from records import write

from fmbench.records.trials import Search
from fmbench.search import study

#: Six trials of three epochs, over in a few seconds.
SEARCH = [
    *("-m", "sweep=lr_batch", *TINY, "epochs=3", "sweep.trials=6", "device=cpu"),
    *("batch_size=choice(16,32)", "sweep.pruner=none", "hydra.sweep.dir=here"),
    "evaluation.corruptions=[rotate]",
]

#: Two trials of one epoch, for tests in which each has several runs.
REPEATED = [*SEARCH, "sweep.trials=2", "epochs=1"]


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials of the study in a search's folder, by their numbers."""
    storage = study.open_storage({"storage": None, "detach": False}, folder)
    return optuna.load_study(study_name=study.OWN_STUDY, storage=storage).get_trials()


def sorted_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a sweep, by the numbers of the runs."""
    numbers = sorted(int(path.parent.name) for path in folder.glob("*/result.json"))
    return [json.loads((folder / str(n) / "result.json").read_text()) for n in numbers]


def objective(name: str, direction: str = "maximize") -> dict[str, Any]:
    """An objective as its file has it."""
    return {"name": name, "direction": direction}


def trial(number: int, **changes: Any) -> dict[str, Any]:
    """A complete trial, with some of its fields changed."""
    return {
        "number": number,
        "state": "complete",
        "parameters": {"batch_size": 64, "optimizer.lr": 0.01},
        "values": [0.9],
        "reports": {"1": 0.85, "2": 0.9},
        "folder": str(number),
        "seconds": 12.5,
        "error": None,
    } | changes


def content(**changes: Any) -> dict[str, Any]:
    """A search as its file has it, with some of its fields changed."""
    return {
        "schema": 1,
        "study": "lr_batch",
        "sampler": "TPESampler",
        "pruner": "median",
        "total": 5,
        "objectives": [{"name": "validation_accuracy", "direction": "maximize"}],
        "trials": [
            trial(0),
            trial(1, state="pruned", values=None, reports={"1": 0.5, "2": 0.6}, seconds=5.0),
            trial(2, state="failed", values=None, reports={}, seconds=None, error="no memory"),
            trial(3, parameters={"batch_size": 512, "optimizer.lr": 0.00123}, values=[0.8]),
        ],
        "importances": {"optimizer.lr": 0.8, "batch_size": 0.2},
        "best": [0],
    } | changes


def put(folder: Path, **changes: Any) -> Path:
    """Write `content(**changes)` into a folder, made if need be, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "search.json").write_text(json.dumps(content(**changes)), encoding="utf-8")
    return folder


def sweep(folder: Path, **changes: Any) -> Path:
    """A sweep's folder: the search, and a record of each of its trials; the best was tested."""
    put(folder, **changes)
    untested: dict[str, Any] = {"test_accuracy": None, "test_loss": None}
    write(folder / "0", batch_size=64, validation_accuracy=0.9, test_accuracy=0.887)
    write(folder / "1", batch_size=65, status="pruned", validation_accuracy=0.6, **untested)
    write(folder / "2", batch_size=66, status="failed", error="no memory", **untested)
    write(folder / "3", batch_size=512, validation_accuracy=0.8, **untested)
    return folder


def search(**changes: Any) -> Search:
    """The search that a file of `content(**changes)` is."""
    return Search.from_json(json.dumps(content(**changes)))


def two_objectives() -> dict[str, Any]:
    """Changes that make a search of two objectives, three of its trials on the front."""
    names = [("validation_accuracy", "maximize"), ("parameters", "minimize")]
    values = [(0.9, 1e7), (0.8, 6e4), (0.7, 2e7), (0.85, 3e5)]
    return {
        "objectives": [{"name": name, "direction": way} for name, way in names],
        "trials": [trial(number, values=list(pair)) for number, pair in enumerate(values)],
        "best": [0, 1, 3],
        "pruner": "none",
        "total": 4,
    }
