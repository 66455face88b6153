"""What a run says about itself, its identity, and the names of the files of a run folder."""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta
from msgspec.json import Decoder

from fmbench._version import __version__
from fmbench.config import schema
from fmbench.config.tuning import Tuning
from fmbench.config.whitelist import NEUTRAL_OPTIONS, TARGETS, option
from fmbench.records.validation import (
    MOST_OF_TEXT,
    Amount,
    Count,
    Number,
    Seed,
    Share,
    Text,
    UnreadableError,
    check_depth,
    decode,
    may_be_deep,
    one_of,
)

#: Of records. Schema 1 had other keys: they hashed where the code of fmbench was.
SCHEMA, OLDEST = 2, 1
RESULT_NAME = "result.json"
HISTORY_NAME = "history.jsonl"
PREDICTIONS_NAME, LABELS_NAME = "predictions.npy", "labels.npy"
MISTAKES_NAME = "mistakes.npy"
HELD_OUT_NAME = "held_out.npy"
PROBABILITIES_NAME = "probabilities.npy"
HELD_OUT_PROBABILITIES_NAME = "held_out_probabilities.npy"
MODEL_NAME = "model.safetensors"
TENSORBOARD_NAME, MLFLOW_NAME = "tensorboard", "mlflow.json"
CHECKPOINT_NAME, OLDER_CHECKPOINT_NAME = "checkpoint.pt", "checkpoint.older.pt"

#: A record is a few kilobytes, a line of a history two hundred bytes: what is larger is neither.
MOST_BYTES = {RESULT_NAME: 2**20, HISTORY_NAME: 2**24}

#: What became of a run. A record says `running` from its first second, so that a run which is
#: killed outright still stands in the table.
RUNNING, COMPLETED = "running", "completed"
DIVERGED, FAILED, INTERRUPTED, PRUNED = "diverged", "failed", "interrupted", "pruned"
INFEASIBLE = "infeasible"  # larger than its search allows, and so not trained

#: Of runs that are at their end: started again they would do the same once more, or, where a
#: pruner stopped them, what is not needed.
FINAL = (COMPLETED, DIVERGED, INFEASIBLE, PRUNED)

STATUSES = (COMPLETED, DIVERGED, FAILED, INFEASIBLE, INTERRUPTED, PRUNED, RUNNING)

#: The options that the method of a run is not said to have: those of the plain command.
USUAL = {
    "scheduler": "onecycle", "loss": "cross_entropy", "averaging": "none", "augmentation": "none",
}  # fmt: skip

#: Of a list of texts, such as the overrides of a run: how many, and their characters together.
Texts = Annotated[list[str], Meta(max_length=1_000)]
MOST_CHARACTERS = 100_000

#: Channels, height and width of an image.
Shape = Annotated[list[Annotated[int, Meta(ge=1, le=65_536)]], Meta(min_length=3, max_length=3)]

#: An override of a key of a run: its sign, its first key, the others.
_OVERRIDE = re.compile(r"(?:\+\+?|~)?(\w+)((?:\.[\w/-]+)*)(?:=.*)?", re.DOTALL)

#: Escapes of JSON: of a backslash and of a whole character, and half of a character, which is how
#: Python has a byte of a file's name that is not UTF-8, and no reader of JSON takes.
_ESCAPES = re.compile(r"(\\\\|\\ud[89ab]..\\ud[c-f]..)|\\u(d[89a-f]..)")


class Data(TypedDict):
    """The data set; no hash as long as its images were not read."""

    name: Text
    sha256: Text | None
    shape: NotRequired[Shape]  # channels, height, width
    classes: NotRequired[Texts]  # the name of each label
    duplicates: NotRequired[Count]  # test images that are in the training part too, byte for byte
    tested: NotRequired[Text]  # hash of which images test, where not all of the part do
    set_aside: NotRequired[bool]  # whether the test images were drawn, for want of a test part
    rarest: NotRequired[Count]  # images of the class that has the fewest, in all parts
    commonest: NotRequired[Count]  # and of the one that has the most


class Split(TypedDict):
    """Images of each part, and a hash of their indices; none as long as they were not read.

    `folds` hashes which image is in which fold: the runs of a row share it, and differ in `fold`.
    """

    name: Text
    train: Count
    validation: Count
    test: Count
    hash: Text | None
    folds: NotRequired[Text]
    fold: NotRequired[Count]


class Seconds(TypedDict):
    """Training and evaluation of the epochs that ended; all since the images were in memory."""

    train: Amount
    evaluate: Amount
    total: Amount
    compile: NotRequired[Amount]  # of `compile=true`, on no other clock but `total`


class Fingerprint(TypedDict, total=False):
    """What may change the bits or the speed of a run; empty until its device is chosen."""

    fmbench: Text | None
    python: Text | None
    torch: Text | None
    torchvision: Text | None
    timm: Text | None  # where a part of the run is of it, such as the model
    schedulefree: Text | None  # likewise
    pytorch_optimizer: Text | None  # likewise
    numpy: Text | None
    system: Text | None
    device: Text | None
    processor: Text | None
    gpu: Text | None
    threads: Count | None
    precision: Text | None
    memory_format: Text | None
    deterministic: bool | None
    cuda_graphs: bool | None


class Reference(TypedDict, total=False):
    """Published figures of an experiment; see `fmbench.config.published`."""

    accuracy: Share | None
    parameters: Count | None
    seconds: Amount | None
    approximate: bool | None
    device: Text | None
    protocol: Text | None
    source: Text | None


class Scores(TypedDict, total=False):
    """Scores of the predictions on one part of the split; see `fmbench.records.scores.scores`."""

    nll: Amount
    brier: Amount
    ece: Share
    adaptive_ece: Share
    aurc: Share
    accuracy_at_90: Share
    macro_f1: Share
    balanced_accuracy: Share
    worst_class_accuracy: Share
    worst_class: Count


class PartScores(TypedDict, total=False):
    """The scores after the last epoch, of the parts that were evaluated."""

    test: Scores
    validation: Scores


class Corrupted(TypedDict):
    """Accuracies on the corrupted test images at severities 1 to 5, by corruption."""

    version: Count  # of `fmbench.data.corruptions`
    accuracies: dict[Text, Annotated[list[Share], Meta(min_length=5, max_length=5)]]


class Git(TypedDict):
    """The checkout that fmbench ran from."""

    commit: Text
    dirty: bool


@dataclass(kw_only=True)
class Record:
    """`result.json`, schema 2. Accuracies are 0 to 1, times in seconds, sizes in bytes.

    What was not reached when a run ended early is None. The bounds hold for what `from_json` reads.
    """

    key: Text  # hash of all that decides the result
    configuration: Text  # the same without the seed: runs that differ in it alone share a table row
    config: dict[str, Any]
    choices: dict[str, Text]  # the option taken from each group
    overrides: Texts  # those that make this run again, anywhere
    model: Text
    augmentation: Text
    optimizer: Text
    scheduler: Text
    data: Data
    split: Split
    batch_size: Count
    learning_rate: Amount | None
    epochs: Count
    seed: Seed
    started: Text  # UTC, ISO 8601
    loss: Text = "cross_entropy"
    averaging: Text = "none"
    experiment: Text | None = None  # the published row that the run was started from
    reference: Reference | None = None  # its published figures
    tuning: Tuning | None = None  # the search that chose its settings
    deviations: Texts = field(default_factory=list)  # what this run does otherwise
    config_dirs: Texts = field(default_factory=list)  # the user's folders of options
    trust: Text | None = None  # packages that FMBENCH_TRUST named, where the run needs them
    status: Annotated[str, one_of(*STATUSES)]
    error: str | None = None
    # Hash of the user's own code that the run is made of: the model, the optimizer, the schedule,
    # the loss, transforms of images; None where there is none, and in records older than the field.
    source: Text | None = None
    # Names of such code whose source was not found: `source` is then of this run alone.
    unsourced: Texts = field(default_factory=list)
    parameters: Count | None = None
    flops: Count | None = None  # forward pass, per image; a multiply-add counts as two
    train_loss: Number | None = None
    train_accuracy: Share | None = None
    validation_loss: Number | None = None
    validation_accuracy: Share | None = None
    balanced_accuracy: Share | None = None  # on the validation part: the mean recall of the classes
    test_loss: Number | None = None
    test_accuracy: Share | None = None  # after the last epoch
    best_test_accuracy: Share | None = None  # optimistic: chosen on the test set
    best_test_epoch: Count | None = None  # counted from 0
    corrupted: Corrupted | None = None  # with evaluation.corruptions alone
    scores: PartScores = field(default_factory=PartScores)  # empty in older records
    stopped_epoch: Count | None = None  # epochs trained, where early stopping ended the run
    stopped_why: Text | None = None
    # Epochs, counted from 0, before which a plateau dropped the learning rate: `scheduler.drops`
    # replays it by them, with `early_stop.after` for the epochs trained.
    rate_drops: Annotated[list[Count], Meta(max_length=100_000)] = field(default_factory=list)
    seconds: Seconds = field(default_factory=lambda: Seconds(train=0.0, evaluate=0.0, total=0.0))
    images_per_second: Amount | None = None  # training images over the training clock
    peak_memory: Count | None = None
    runs_at_once: Count | None = None  # of its sweep on this machine; None where it is not known
    device: Text | None = None
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    # Whether the last batch of an epoch, one image, is joined to the one before it, because the
    # model cannot be trained on one image (batch norm).
    joins_last_batch: bool = False
    # One for each time that the run was interrupted and resumed: when, where, and what of the
    # fingerprint, or the git commit, was another then.
    restarts: list[dict[str, Any]] = field(default_factory=list)
    # Of an evaluation on the test set that came later, elsewhere or by other code than the
    # training: when, on which device, how long it took, what of the fingerprint was another then.
    evaluated: dict[str, Any] | None = None
    git: Git | None = None  # when run from a checkout
    schema: int = SCHEMA
    fmbench_version: Text = __version__
    # Only of records older than `config_dirs`, and never written: whether there were such folders.
    config_dir: bool | None = None

    @property
    def method(self) -> str:
        """What trains the model, in a few words: the optimizer, and what is not usual beside it."""
        chosen = {group: getattr(self, group) for group in USUAL}
        others = [f"{group} {name}" for group, name in chosen.items() if name != USUAL[group]]
        return ", ".join([f"optimizer {self.optimizer}", *others])

    def to_json(self) -> str:
        """The text of `result.json`; long texts are cut, bytes that are not UTF-8 spelled out."""
        values = asdict(self)
        del values["config_dir"]
        for part in (values, values["reference"] or {}):
            for name in ("trust", "device", "source"):
                if part.get(name):
                    part[name] = part[name][:MOST_OF_TEXT]
        text = json.dumps(values, indent=1, allow_nan=False) + "\n"
        return _ESCAPES.sub(lambda found: found[1] or rf"\\u{found[2]}", text)

    @classmethod
    def from_json(cls, text: bytes | str) -> "Record":
        """A record as `to_json` gave it; one of schema 1 has the keys of this schema then.

        Raises:
            UnreadableError: it is none, or of another schema, or a value is out of its bounds.
        """
        record = decode(_DECODER, text, oldest=OLDEST, newest=SCHEMA)
        for name in ("config", "restarts", "evaluated") if may_be_deep(text) else ():
            check_depth(name, getattr(record, name))
        for name in ("overrides", "deviations", "config_dirs"):
            if sum(map(len, getattr(record, name))) > MOST_CHARACTERS:
                raise UnreadableError(f"{name}: more than {MOST_CHARACTERS:,} characters")
        required = ["parameters", "train_loss"] if record.status == COMPLETED else []
        # Of the trials of a search only the best is evaluated on the test set, once; and a run may
        # be told not to.
        record.config = schema.as_recorded(record.config)
        evaluated = record.config["evaluation"].get("test") != "never"
        if required and evaluated and record.validation_accuracy is None:
            required.append("test_accuracy")
        if lacking := [name for name in required if getattr(record, name) is None]:
            raise UnreadableError(f"completed, and lacks {', '.join(lacking)}")
        if record.schema < SCHEMA:
            # Where it does not hold what the keys are made of, it keeps its own.
            with contextlib.suppress(
                AttributeError, KeyError, RecursionError, TypeError, ValueError
            ):
                record.set_keys()
            record.schema = SCHEMA
        return record

    def set_keys(self) -> None:
        """Work out the keys anew, by the images, the split and the code that are noted.

        As long as the images were not read, the names of data and split stand for them.
        """
        data = self.config["data"]
        self.key, self.configuration = keys(
            self.config,
            self.data["sha256"] or data["name"],
            self.split["hash"] or json.dumps(data["split"]),
            self.source,
            self.split.get("folds"),
        )

    @property
    def objective(self) -> float | None:
        """What a search maximises: validation accuracy, or test accuracy where there is none."""
        if self.split["validation"]:
            return self.validation_accuracy
        return self.test_accuracy


_DECODER = Decoder(Record)


def keys(
    config: Mapping[str, Any],
    data_sha256: str,
    split_hash: str,
    source: str | None = None,
    folds: str | None = None,
) -> tuple[str, str]:
    """The key of a run and of its configuration: hashes of what is computed.

    Two runs with one key and one fingerprint give the same bits; runs with one configuration key
    differ in their seed alone, or in the fold that is held out: `folds` hashes them all. A class or
    function is known by its name in `TARGETS`, which stays when a module is moved; one of the
    user's by its import path and `source`, a hash of its code. A key that was added later counts as
    absent at its neutral value, so that it splits no rows.
    """
    deciding = schema.deciding(config)
    built = {group: option(config, group) for group in TARGETS}
    deciding |= {name: one for name, one in built.items() if one != NEUTRAL_OPTIONS.get(name)}
    if config["model"].get("_target_") in TARGETS["model"]:
        # The images decide them, whose hash is in the key. Older configs had these.
        deciding["model"] |= schema.OF_IMAGES
    # A part that is left out is null, as one that a later fmbench adds is to an older config.
    parts = config["augmentation"]
    deciding["augmentation"] = {
        name: part for name, part in parts.items() if part not in (None, [])
    }
    data = config["data"]
    deciding["data"] = {"sha256": data_sha256, "mean": data["mean"], "std": data["std"]}
    deciding["split"] = split_hash
    if source is not None:
        deciding["source"] = source
    configuration = _digest(deciding if folds is None else {**deciding, "split": folds})
    return _digest({**deciding, "seed": config["seed"]}), configuration


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _canonical(value: Any) -> Any:
    """The same for what means the same: 1 and 1.0, a list and a tuple, keys in any order."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def recorded_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config as a record keeps it: without the places of the data files.

    And without the published figures, which decide nothing and have a field of their own, the limit
    of a sweep, and the trackers of the run.
    """
    config = schema.as_recorded(config)
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

    Left out are the places of data files, what makes a sweep, trackers. A record that holds
    other words was not written by fmbench: typed again, they may set Hydra's folders, say.
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
