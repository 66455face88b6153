"""What is known of a config's key, and the keys of the open groups: of data sets and splits too.

Those of the top of a config are in `fmbench.config.schema`, which has all of them together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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

    Attributes:
        resumes: whether it may differ when an interrupted run resumes.
        repeats: whether the runs of one row differ in it.
        in_trials: the value that a search gives it in its trials; an ellipsis where it gives none.
        neutral: of a key that was added after records were written: the value at which a run
            computes what it computed before there was the key. At this value it is left out of a
            run's key, so that older records stay in their rows. It never changes, whatever the
            default becomes. An ellipsis where the key is as old as the records.
        below: the least value that is too large.
        types: what an open group must hold there; Hydra checks the other keys by the types below.
        example: what `--help` shows in place of the default.
    """

    help: str
    role: Role
    resumes: bool = False
    repeats: bool = False
    in_trials: Any = ...
    neutral: Any = ...
    least: float | None = None
    most: float | None = None
    below: float | None = None
    allowed: tuple[str, ...] = ()
    types: tuple[type, ...] = ()
    example: str = ""

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


#: What an optimizer's option says of searches; see `fmbench.config.spaces`.
SPACE = "optimizer.search"

#: Keys of the open groups that every option has.
IN_GROUPS = {
    "model._target_": Key("the class", "result", types=(str,)),
    "optimizer._target_": Key("the class", "result", types=(str,)),
    "optimizer.lr": Key(
        "learning rate (the peak, where the schedule has one)",
        "result",
        types=(int, float),
        example="0.05",
    ),
    "optimizer.decay_norms": Key(
        "whether weight decay is of norm weights and biases too",
        "result",
        neutral=True,
        types=(bool,),
        example="false",
    ),
    "optimizer.bias_lr_factor": Key(
        "what the learning rate of biases is multiplied by",
        "result",
        neutral=1.0,
        types=(int, float),
        example="2",
    ),
    SPACE: Key(
        "the values that a search tries, by key of the optimizer",
        "sweep",
        neutral=None,
        types=(dict, NoneType),
    ),
    "scheduler._target_": Key("the function", "result", types=(str,)),
    "loss._target_": Key("the class", "result", types=(str,)),
    "averaging._target_": Key("the class", "result", types=(str,)),
    "data.name": Key("of the data set", "result", types=(str,)),
    "data.mean": Key(
        "subtracted from each pixel, 0 to 1; null: that of the training part, by channel",
        "result",
        types=(int, float, list, NoneType),
    ),
    "data.std": Key(
        "divides each pixel then; null: the same", "result", types=(int, float, list, NoneType)
    ),
    "data.limit": Key(
        "train on N images, in proportion of the classes",
        "result",
        neutral=None,
        types=(int, NoneType),
        example="N",
    ),
    "data.limit_test": Key(
        "test on N images", "result", neutral=None, types=(int, NoneType), example="N"
    ),
    "data.split.name": Key("of the split", "result", types=(str,)),
    "data.split.validation": Key(
        "hold N training images out, stratified by class",
        "result",
        types=(int, NoneType),
        example="N",
    ),
    "data.split.seed": Key("of the split", "result", types=(int,)),
}

_WHERE = (
    "your file or folder; of a public set where its files are, or go (default: FMBENCH_DATA, else "
    "data)"
)

_PLACE = Key(
    _WHERE,
    "around",
    resumes=True,
    types=(str, NoneType),
    example="DIR",
)

_FILES = {
    # Where they lie says nothing about the run, and may name a person's folders.
    "data.root": _PLACE,
    "data.download": Key("whether they may be downloaded", "around", types=(bool,)),
}
_MIRRORS = {"data.mirrors": Key("where they are downloaded from", "around", types=(list,))}
_SUBSET = {"data.subset": Key("which part of the set", "result", types=(str, NoneType))}

_ROOT = {
    "data.root": _PLACE,
    "data.cache": Key(
        "auto: keep a prepared copy in FMBENCH_CACHE; null: none",
        "around",
        resumes=True,
        types=(str, NoneType),
    ),
    "data.cache_gb": Key(
        "gigabytes of all prepared copies", "around", resumes=True, types=(int, float)
    ),
}
# What they do is in the hash of the images.
_READ = {
    "data.size": Key(
        "pixels a side, to which images are resized; null: as they are",
        "kept",
        types=(int, NoneType),
    ),
    "data.fit": Key(
        "what becomes of images that are not square: crop, pad, stretch", "kept", types=(str,)
    ),
    "data.channels": Key("1: grey, 3: colour; null: as they are", "kept", types=(int, NoneType)),
    "data.classes": Key(
        "the names of the classes, in the order of the labels", "kept", types=(list, NoneType)
    ),
    "data.test_fraction": Key(
        "share of the images that test, where there is no test part", "kept", types=(int, float)
    ),
    "data.seed": Key("of the draw of that part", "kept", types=(int,)),
}
_TEST = {
    "data.test": Key("the file of the test part", "around", resumes=True, types=(str, NoneType))
}
_LABEL = {
    "data.label": Key(
        "the column of the labels; null: one that is called so", "kept", types=(str, NoneType)
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
    "arrays": _ROOT
    | _READ
    | {
        "data.keys": Key(
            "the names of the arrays: {train_images: NAME, train_labels: NAME, ...}",
            "kept",
            types=(dict, NoneType),
        )
    },
    "csv": _ROOT | _READ | _TEST | _LABEL,
    "parquet": _ROOT
    | _READ
    | _TEST
    | _LABEL
    | {
        "data.image": Key(
            "the column of the pictures; null: one that is called so", "kept", types=(str, NoneType)
        )
    },
    "folder": _ROOT | _READ,
    "synthetic": {
        "data.train_size": Key("training images", "result", types=(int,)),
        "data.test_size": Key("test images", "result", types=(int,)),
        "data.seed": Key("of the images", "result", types=(int,)),
    },
}

#: Keys of one split alone, by its name.
OF_SPLIT: Mapping[str, Mapping[str, Key]] = {
    "kfold": {
        "data.split.folds": Key("how many folds", "result", types=(int,)),
        "data.split.fold": Key(
            "which of them is held out, from 0", "result", repeats=True, types=(int,)
        ),
        "data.split.role": Key(
            "what it is for: validation, or test where the set has no test part",
            "result",
            types=(str,),
        ),
    },
}
