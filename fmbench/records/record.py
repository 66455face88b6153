"""What a run says about itself, and the names of the files of a run folder."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import UnionType
from typing import Any, get_args, get_origin

from fmbench._version import __version__
from fmbench.config import schema
from fmbench.config.schema import renamed
from fmbench.records.identity import keys, keys_of

#: Of records. Schema 1 had other keys: they hashed where the code of fmbench was.
SCHEMA, OLDEST = 2, 1
RESULT_NAME = "result.json"
HISTORY_NAME = "history.jsonl"
PREDICTIONS_NAME, LABELS_NAME = "predictions.npy", "labels.npy"
MISTAKES_NAME = "mistakes.npy"
MODEL_NAME = "model.safetensors"
TENSORBOARD_NAME, MLFLOW_NAME = "tensorboard", "mlflow.json"
CHECKPOINT_NAME, OLDER_CHECKPOINT_NAME = "checkpoint.pt", "checkpoint.older.pt"

#: A record is a few kilobytes, a line of a history two hundred bytes: what is larger is neither.
MOST_BYTES = {RESULT_NAME: 2**20, HISTORY_NAME: 2**24}

#: What became of a run. A record says `running` from its first second, so that a run which is
#: killed outright still stands in the table.
RUNNING, COMPLETED = "running", "completed"
DIVERGED, FAILED, INTERRUPTED, PRUNED = "diverged", "failed", "interrupted", "pruned"

#: Of runs that are at their end: started again they would do the same once more, or, where a
#: search has given them up, what nobody needs.
FINAL = (COMPLETED, DIVERGED, PRUNED)

#: An override of a key of a run: its sign, its first key, the others.
_OVERRIDE = re.compile(r"(?:\+\+?|~)?(\w+)((?:\.[\w/-]+)*)(?:=.*)?", re.DOTALL)


@dataclass
class Record:
    """`result.json`, schema 2. Accuracies are 0 to 1, times in seconds, sizes in bytes.

    What was not reached when a run ended early is None.
    """

    key: str  # hash of all that decides the result
    configuration: str  # the same without the seed: runs that differ in it alone share a table row
    config: dict[str, Any]
    choices: dict[str, str]  # the option taken from each group
    overrides: list[str]  # those that make this run again, anywhere
    model: str
    augmentation: str
    optimizer: str
    scheduler: str
    data: dict[str, Any]  # name, sha256 of the images and labels
    split: dict[str, Any]  # name, image counts train/validation/test, hash of the indices
    batch_size: int
    learning_rate: float | None
    epochs: int
    seed: int
    started: str  # UTC, ISO 8601
    experiment: str | None = None  # the published row that the run was started from
    reference: dict[str, Any] | None = None  # its published figures
    deviations: list[str] = field(default_factory=list)  # what this run does otherwise
    config_dirs: list[str] = field(default_factory=list)  # the user's folders of options
    trust: str | None = None  # packages that FMBENCH_TRUST named, where the run needs them
    status: str = RUNNING
    error: str | None = None
    # Hash of the user's own code that the model, the optimizer and the schedule are made of; None
    # where there is none, and in records that are older than the field.
    source: str | None = None
    # Names of such code whose source was not found: `source` is then of this run alone.
    unsourced: list[str] = field(default_factory=list)
    parameters: int | None = None
    flops: int | None = None  # forward pass, per image; a multiply-add counts as two
    train_loss: float | None = None
    train_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None  # after the last epoch
    best_test_accuracy: float | None = None  # optimistic: chosen on the test set
    best_test_epoch: int | None = None  # counted from 0
    # Training and evaluation of the epochs that ended; total from the moment the images are in
    # memory to the end.
    seconds: dict[str, float] = field(
        default_factory=lambda: {"train": 0.0, "evaluate": 0.0, "total": 0.0}
    )
    images_per_second: float | None = None  # training images over the training clock
    peak_memory: int | None = None
    runs_at_once: int | None = None  # of its sweep on this machine; None where that is not known
    device: str | None = None
    fingerprint: dict[str, Any] = field(default_factory=dict)
    # Whether the last batch of an epoch, one image, is joined to the one before it, because the
    # model cannot be trained on one image (batch norm).
    joins_last_batch: bool = False
    # One for each time that the run was interrupted and went on: when, where, and what of the
    # fingerprint, or the git commit, was another then.
    restarts: list[dict[str, Any]] = field(default_factory=list)
    # Of a look at the test set that came later, elsewhere or by other code than the training: when,
    # on which device, how long it took, and what of the fingerprint was another then.
    evaluated: dict[str, Any] | None = None
    git: dict[str, Any] | None = None  # commit and dirty flag, when run from a checkout
    schema: int = SCHEMA
    fmbench_version: str = __version__

    def to_json(self) -> str:
        """The text of `result.json`."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """A record as `to_json` gave it; one of schema 1 has the keys of this schema then.

        Raises:
            ValueError: it is none, or one of another schema, or a field is of another type.
        """
        try:
            values = json.loads(text)
            json.dumps(values, allow_nan=False)  # as it will be written again
        except RecursionError:
            raise ValueError("holds a value that is too deep") from None
        schema = values.get("schema") if isinstance(values, dict) else None
        if type(schema) is not int or not OLDEST <= schema <= SCHEMA:
            raise ValueError(f"no record of schema {OLDEST} to {SCHEMA}")
        if schema < SCHEMA:
            key, configuration = keys_of(values)
            values |= {"schema": SCHEMA, "key": key, "configuration": configuration}
        if isinstance(values.get("config"), dict):
            values["config"] = renamed(values["config"])
        types = {field.name: field.type for field in dataclasses.fields(cls)}
        kept = {name: value for name, value in values.items() if name in types}
        for name, value in kept.items():
            if not _is(value, types[name]):
                raise ValueError(f"{name} is of a wrong type")
        for name, keys_ in _PARTS.items():
            if missing := keys_ - set(kept.get(name, keys_)):
                raise ValueError(f"{name} lacks {', '.join(sorted(missing))}")
        counts = kept.get("split", {"train": 0, "validation": 0, "test": 0})
        if not all(_is(counts[name], int) for name in ("train", "validation", "test")):
            raise ValueError("split has a count that is none")
        try:
            return cls(**kept)
        except TypeError as error:
            raise ValueError("lacks some of a record's fields") from error

    def set_keys(self) -> None:
        """Work out the keys anew, by the images, the split and the code that are noted."""
        self.key, self.configuration = keys(
            self.config, self.data["sha256"], self.split["hash"], self.source
        )

    @property
    def objective(self) -> float | None:
        """What a search maximises: validation accuracy, or test accuracy where there is none."""
        if self.split["validation"]:
            return self.validation_accuracy
        return self.test_accuracy


#: What is in some of its fields, whatever became of the run.
_PARTS = {
    "data": {"name", "sha256"},
    "split": {"name", "train", "validation", "test", "hash"},
    "seconds": {"train", "evaluate", "total"},
}


def _is(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of a field's type; numbers are such as others can count with."""
    if isinstance(kind, UnionType):
        return any(_is(value, one) for one in get_args(kind))
    if kind is Any:
        return True
    of = get_origin(kind)
    if of is dict:
        return type(value) is dict and all(_is(x, get_args(kind)[1]) for x in value.values())
    if of is list:
        return type(value) is list and all(_is(x, get_args(kind)[0]) for x in value)
    if kind in (int, float):
        # A learning rate may be 1e30; what has more than 64 bits is no count.
        most = 2**64 if type(value) is int else 1e300
        return type(value) in {int, kind} and abs(value) < most
    return type(value) is kind


def recorded_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config as a record keeps it: without the places of the data files.

    And without the published figures, which decide nothing and have a field of their own, the limit
    of a sweep, and who else is told of the run.
    """
    kept = {key: value for key, value in config.items() if key not in schema.UNRECORDED}
    return kept | {
        "data": {
            key: value
            for key, value in config["data"].items()
            if f"data.{key}" not in schema.UNRECORDED
        }
    }


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested config, an empty part being one, with the dotted key it stands at."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def recorded_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides as a record keeps them: those of a run's own keys, and its experiment.

    Left out are the places of data files, what makes a sweep, who else is told. A record that holds
    other words was not written by fmbench: typed again, they may set Hydra's folders, say.

    Args:
        overrides: as typed, or as the sweep made them, or of a record.
    """
    today = chain.from_iterable(map(schema.renamed_override, overrides))
    return [text for text in today if _is_of_a_run(text)]


def _is_of_a_run(text: str) -> bool:
    found = _OVERRIDE.fullmatch(text)
    if found is None or not ("=" in text or text.startswith("~")):
        return False
    first, rest = found.groups()
    key = f"{first}{rest}"
    place = ".".join(key.split(".")[:2]) in schema.UNRECORDED
    return (first in schema.RECORDED and not place) or key == "experiment"
