"""A factory of run records for tests: plausible by default, wrong where a test asks for it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from fmbench.records.folder import RunFolder
from fmbench.records.predictions import mistakes

BASE: dict[str, Any] = {
    "schema": 2,
    "fmbench_version": "0.1.0",
    "status": "completed",
    "error": None,
    "choices": {
        "model": "lenet",
        "optimizer": "sgd",
        "scheduler": "onecycle",
        "data": "fashion_mnist",
        "data.split": "standard",
        "augmentation": "none",
    },
    "overrides": ["model=lenet", "epochs=3"],
    "config": {
        "batch_size": 64,
        "epochs": 3,
        "seed": 0,
        "model": {"_target_": "fmbench.models.lenet.LeNet"},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.05, "weight_decay": 0.0005},
        "scheduler": {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "pct_start": 0.3},
    },
    "model": "lenet",
    "parameters": 61706,
    "flops": 833040,
    "data": {"name": "fashion_mnist", "sha256": "d1" * 32},
    "split": {
        "name": "standard",
        "train": 60000,
        "validation": 0,
        "test": 10000,
        "hash": "5a" * 32,
    },
    "augmentation": "none",
    "optimizer": "sgd",
    "scheduler": "onecycle",
    "batch_size": 64,
    "learning_rate": 0.05,
    "epochs": 3,
    "seed": 0,
    "train_loss": 0.31,
    "train_accuracy": 0.89,
    "test_accuracy": 0.9001,
    "test_loss": 0.28,
    "validation_accuracy": None,
    "validation_loss": None,
    "best_test_accuracy": None,
    "best_test_epoch": None,
    "seconds": {"train": 8.1, "evaluate": 0.4, "total": 9.2},
    "images_per_second": 22000.0,
    "peak_memory": 512000000,
    "device": "AMD EPYC, 2 threads",
    "fingerprint": {
        "fmbench": "0.1.0",
        "python": "3.11.7",
        "torch": "2.15.0",
        "device": "cpu",
        "processor": "AMD EPYC",
        "threads": 2,
        "precision": "fp32",
        "memory_format": "channels_last",
        "deterministic": False,
    },
    "started": "2026-11-20T23:00:00Z",
    "git": {"commit": "abc123", "dirty": False},
}

# What a change of value leaves alone: it is measured, or names the run rather than its recipe.
MEASURED = {
    *("status", "error", "overrides", "parameters", "flops", "train_loss", "train_accuracy"),
    *("test_accuracy", "test_loss", "validation_accuracy", "validation_loss", "seconds"),
    *("best_test_accuracy", "best_test_epoch", "images_per_second", "peak_memory", "device"),
    *("fingerprint", "started", "git", "key", "configuration", "fmbench_version", "seed"),
    *("experiment", "reference", "deviations", "config_dir", "config_dirs", "trust"),
    *("runs_at_once", "scores", "corrupted"),
}


def record(**changes: Any) -> dict[str, Any]:
    """A record of schema 2 with some fields changed.

    Args:
        **changes: Values by field name; `__` leads into an object (`split__name="custom"`,
            `config__optimizer__weight_decay=0.001`), and an object given for one replaces it.

    Returns:
        The record. `key` and `configuration` are hashes of what it says about its recipe, as in a
        real one, unless they are given.
    """
    made: dict[str, Any] = json.loads(json.dumps(BASE))
    for name, value in changes.items():
        *path, last = name.split("__")
        place = made
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    recipe = {name: value for name, value in made.items() if name not in MEASURED}
    if isinstance(recipe["config"], dict):
        recipe["config"] = {
            k: v for k, v in recipe["config"].items() if k not in ("seed", "test_every")
        }
    made.setdefault("configuration", _hash(recipe))
    made.setdefault("key", _hash([recipe, made["seed"]]))
    return made


def write(folder: Path, **changes: Any) -> Path:
    """Write `record(**changes)` into a run folder, made if need be, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(record(**changes)), encoding="utf-8")
    return folder


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


#: What an experiment adds to a record: pass as `record(**PUBLISHED)`.
PUBLISHED: dict[str, Any] = {
    "experiment": "lenet",
    "reference": {
        "accuracy": 0.8970,
        "parameters": 61_706,
        "seconds": 1109,
        "device": "GTX 1070",
        "protocol": "best epoch on test",
        "source": "a project",
    },
    "deviations": [],
    "config__test_every": 1,
}


def answer(folder: Path, right: int, *, seed: int = 0, swap: int = 0) -> Path:
    """Add predictions of 10,000 images to a run's folder: the first `right` are right.

    `seed` is that of the labels; `swap` of the right ones are wrong, and as many wrong ones right.
    """
    images = 10_000
    labels = np.random.default_rng(seed).integers(0, 10, images).astype(np.uint8)
    correct = np.arange(images) < right
    correct[:swap], correct[images - swap :] = False, correct[images - swap :] | (swap > 0)
    predicted = np.where(correct, labels, (labels + 1) % 10).astype(np.uint8)
    nothing = mistakes(
        predicted, labels, np.full(images, 0.5, np.float32), np.zeros((images, 1, 28, 28), np.uint8)
    )
    with RunFolder(folder) as held:
        held.write_predictions(predicted, labels, nothing)
    return folder
