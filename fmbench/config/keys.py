"""What is known of a config's key, and the keys of the open groups: of data sets and splits too.

Those of the top of a config are in `fmbench.config.schema`, which has all of them together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import NoneType
from typing import Any, Literal

#: What a key decides.
Role = Literal[
    "result",  # what is computed: part of a run's key, so that another value is another row
    "hardware",  # where and how it is computed: in a record's fingerprint, a row of its own too
    "kept",  # what is evaluated and kept of a run: recorded, but no part of a row
    "sweep",  # the sweep around the run: one value for all of its runs, not recorded
    "around",  # trackers, where files lie: not recorded
]


@dataclass(frozen=True)
class Key:
    """What fmbench knows of a key.

    `neutral` is, of a key that was added after records were written, the value at which a run
    computes what it computed before there was the key. At this value it is left out of a run's key,
    so that older records stay in their rows. It never changes, whatever the default becomes.
    """

    help: str
    role: Role
    resumes: bool = False  # whether it may differ when an interrupted run resumes
    repeats: bool = False  # whether the runs of one row differ in it
    in_trials: Any = ...  # the value that a search gives it in its trials, if it gives one
    neutral: Any = ...  # none, where the key is as old as the records
    least: float | None = None
    most: float | None = None
    below: float | None = None  # the least value that is too large
    allowed: tuple[str, ...] = ()
    types: tuple[type, ...] = ()  # of a key of an open group; Hydra checks the others
    example: str = ""  # what `--help` shows in place of the default

    def fault(self, value: Any) -> str | None:
        """What a value must be, where it is out of bounds; None, as for a value of None."""
        if value is None:
            return None
        if self.allowed and value not in self.allowed:
            return f"must be one of {', '.join(self.allowed)}"
        if self.least is not None and value < self.least:
            return f"must be {self.least} or more"
        if self.most is not None and value > self.most:
            return f"must be at most {self.most:,}"
        if self.below is not None and value >= self.below:
            return f"must be below {self.below}"
        return None


def _key(role: Role, text: str, *types: type, **meaning: Any) -> Key:
    return Key(text, role, types=types, **meaning)


_result, _kept, _around = (partial(_key, role) for role in ("result", "kept", "around"))

#: What an optimizer's option says of searches; see `fmbench.config.spaces`.
SPACE = "optimizer.search"

#: Keys of the open groups that every option has.
IN_GROUPS = {
    "model._target_": _result("the class", str),
    "optimizer._target_": _result("the class", str),
    "optimizer.lr": _result(
        "learning rate (the peak, where the schedule has one)", int, float, example="0.05"
    ),
    "optimizer.decay_norms": _result(
        "whether weight decay is of norm weights and biases too",
        bool, neutral=True, example="false",
    ),
    "optimizer.bias_lr_factor": _result(
        "what the learning rate of biases is multiplied by",
        int, float, neutral=1.0, example="2",
    ),
    SPACE: _key(
        "sweep", "the values that a search tries, by key of the optimizer",
        dict, NoneType, neutral=None,
    ),
    "scheduler._target_": _result("the function", str),
    "loss._target_": _result("the class", str),
    "averaging._target_": _result("the class", str),
    "data.name": _result("of the data set", str),
    "data.mean": _result(
        "subtracted from each pixel, 0 to 1; null: that of the training part, by channel",
        int, float, list, NoneType,
    ),
    "data.std": _result("divides each pixel then; null: the same", int, float, list, NoneType),
    "data.limit": _result(
        "train on N images, in proportion of the classes",
        int, NoneType, neutral=None, example="N",
    ),
    "data.limit_test": _result("test on N images", int, NoneType, neutral=None, example="N"),
    "data.split.name": _result("of the split", str),
    "data.split.validation": _result(
        "hold N training images out, stratified by class", int, NoneType, example="N"
    ),
    "data.split.seed": _result("of the split", int),
}  # fmt: skip

_PLACE = _around(
    "your file or folder; of a public set where its files are, or go (default: FMBENCH_DATA, else "
    "data)", str, NoneType, resumes=True, example="DIR",
)  # fmt: skip

_FILES = {
    # Where they lie says nothing about the run, and may name a person's folders.
    "data.root": _PLACE,
    "data.download": _around("whether they may be downloaded", bool),
}
_MIRRORS = {"data.mirrors": _around("where they are downloaded from", list)}
_SUBSET = {"data.subset": _result("which part of the set", str, NoneType)}

_ROOT = {
    "data.root": _PLACE,
    "data.cache": _around(
        "auto: keep a prepared copy in FMBENCH_CACHE; null: none", str, NoneType, resumes=True
    ),
    "data.cache_gb": _around("gigabytes of all prepared copies", int, float, resumes=True),
}
# What they do is in the hash of the images.
_READ = {
    "data.size": _kept(
        "pixels a side, to which images are resized; null: as they are", int, NoneType
    ),
    "data.fit": _kept("what becomes of images that are not square: crop, pad, stretch", str),
    "data.channels": _kept("1: grey, 3: colour; null: as they are", int, NoneType),
    "data.classes": _kept("the names of the classes, in the order of the labels", list, NoneType),
    "data.test_fraction": _kept(
        "share of the images that test, where there is no test part", int, float
    ),
    "data.seed": _kept("of the draw of that part", int),
}
_TEST = {"data.test": _around("the file of the test part", str, NoneType, resumes=True)}
_LABEL = {
    "data.label": _kept("the column of the labels; null: one that is called so", str, NoneType)
}
_IMAGE = {
    "data.image": _kept("the column of the pictures; null: one that is called so", str, NoneType)
}
_NAMES = {
    "data.keys": _kept(
        "the names of the arrays: {train_images: NAME, train_labels: NAME, ...}", dict, NoneType
    )
}

#: Keys of one data set alone, by its name.
OF_DATA: Mapping[str, Mapping[str, Key]] = {
    "fashion_mnist": _FILES | _MIRRORS,
    "mnist": _FILES | _MIRRORS,
    "kmnist": _FILES,
    "qmnist": _FILES | _SUBSET,
    "emnist": _FILES | _SUBSET,
    "cifar10": _FILES,
    "cifar100": _FILES,
    "svhn": _FILES,
    "arrays": _ROOT | _READ | _NAMES,
    "csv": _ROOT | _READ | _TEST | _LABEL,
    "parquet": _ROOT | _READ | _TEST | _LABEL | _IMAGE,
    "folder": _ROOT | _READ,
    "synthetic": {
        "data.train_size": _result("training images", int),
        "data.test_size": _result("test images", int),
        "data.seed": _result("of the images", int),
    },
}

#: Keys of one split alone, by its name.
OF_SPLIT: Mapping[str, Mapping[str, Key]] = {
    "kfold": {
        "data.split.folds": _result("how many folds", int),
        "data.split.fold": _result("which of them is held out, from 0", int, repeats=True),
        "data.split.role": _result(
            "what it is for: validation, or test where the set has no test part", str
        ),
    },
}
