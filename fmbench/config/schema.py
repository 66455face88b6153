"""Every key of a config: its type, its default, its bounds, and what it means for a run.

The one place that says so, with `fmbench.config.keys` for the keys of the open groups. What is
hashed into a run's key, what a record keeps, what may change when a run is resumed, what is
checked, `--help` and docs/configuration.md are derived from it.

Imports nothing but the standard library: reports read it too.
"""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from typing import Any

from fmbench.config.augmentation import Parts
from fmbench.config.keys import IN_GROUPS, OF_DATA, OF_SPLIT, Key, Role
from fmbench.config.whitelist import NEUTRAL_OPTIONS, option

#: At a millisecond each they take eleven days.
MOST_EPOCHS = 10**9

#: More than any machine has cores; PyTorch takes no number of any size.
MOST_THREADS = 1024

PRECISIONS = ("auto", "fp32", "bf16")
MEMORY_FORMATS = ("auto", "contiguous", "channels_last")

#: What a run's numbers can be sent to while it runs; each is an option of `logger`.
LOGGERS = ("none", "tensorboard", "mlflow")

#: The corruptions of `fmbench.data.corruptions`, each of five severities.
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "gaussian_blur", "glass_blur"),
    *("motion_blur", "shear", "scale", "rotate", "translate", "brightness", "contrast"),
    *("pixelate", "stripe"),
)

#: When a run is evaluated on the test set.
TESTS = ("end", "never")

#: What can stop trials of a search before their last epoch.
WILCOXON = "wilcoxon"
PRUNERS = ("none", "median", "halving", "hyperband", WILCOXON)

#: What the final runs of a tuned comparison train on.
FINAL_ON = ("train_and_validation", "train")

#: What `test_every` is where nobody sets it.
UNSET = "unset"

_NAME = "fmbench key"


def _key(
    role: Role, default: Any, text: str, *, allowed: tuple[str, ...] = (), **meaning: Any
) -> Any:
    """A field of a config with its meaning."""
    text = "; ".join([", ".join(allowed), text]) if allowed else text
    metadata = {_NAME: Key(text, role, allowed=allowed, **meaning)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


_result, _hardware = partial(_key, "result"), partial(_key, "hardware")
_kept, _sweep, _around = partial(_key, "kept"), partial(_key, "sweep"), partial(_key, "around")


@dataclass
class Search:
    """The keys of `sweep`: of a search, the sweep that looks for the best run."""

    trials: int = _sweep(
        20, "trials in all; a resumed search runs those that are missing", resumes=True, least=1
    )
    jobs: Any = _sweep(
        1, "runs at once, a process each; auto: as many as the machine bears", resumes=True, least=1
    )
    jobs_per_gpu: int = _sweep(1, "of sweep.jobs=auto, on each GPU", resumes=True, least=1)
    detach: bool = _sweep(
        False, "hand the runs over to Slurm or Ray and return; they need nothing of this process",
        resumes=True,
    )  # fmt: skip
    seeds: int = _sweep(
        1, "runs of each trial, from the seed on; its value is their mean", least=1, most=1000
    )
    zip: Any = _sweep(
        None, "keys of a grid whose values are paired, as [model,batch_size]; or several such lists"
    )
    pruner: str = _sweep("none", "stops trials that promise little", resumes=True, allowed=PRUNERS)
    objective: Any = _sweep(
        "validation_accuracy",
        "or balanced_accuracy, validation_loss, parameters, flops, train_seconds; or a list",
    )
    at_most: Any = _sweep(
        None, "{parameters: N, flops: N}: trials whose model is larger are not trained"
    )
    storage: str | None = _sweep(
        None, "URL of a database, or journal:FILE, that several searches share; null: in its folder"
    )
    study: str | None = _sweep(None, "the name of a shared search")
    plan: bool = _sweep(
        False, "print what would run and about how long, and end; --plan is the same"
    )
    final_seeds: int = _sweep(
        5, "of a tuned comparison: runs of each contestant's best setting", least=1, most=1000
    )
    final_on: str = _sweep(
        "train_and_validation", "what these train on, of all contestants", allowed=FINAL_ON
    )
    searches: int = _sweep(
        1, "of a tuned comparison: how often each contestant is searched, with its final runs",
        least=1, most=100,
    )  # fmt: skip


@dataclass
class Evaluation:
    """The keys of `evaluation`: when a run is evaluated on the test set."""

    every: int | None = _kept(
        None, "epochs between evaluations on the test set; null: none before the end",
        in_trials=None, least=1,
    )  # fmt: skip
    test: str = _kept(
        "end", "end: on the test set, after the last epoch", in_trials="never", allowed=TESTS
    )
    corruptions: Any = _kept(
        None, "all, or a list of corruptions of the test images, each evaluated at 5 severities",
        in_trials=None,
    )  # fmt: skip
    flips: bool = _result(
        False, "evaluate the mean of the logits of each image and of its mirror", neutral=False
    )


@dataclass
class EarlyStop:
    """The keys of `early_stop`: when a run ends before its last epoch."""

    patience: int | None = _result(
        None, "epochs without a better validation value after which a run ends; null: never",
        neutral=None, least=1,
    )  # fmt: skip
    metric: str = _result(
        "accuracy", "what is watched, on the validation images", neutral="accuracy",
        allowed=("accuracy", "loss"),
    )  # fmt: skip
    after: int | None = _result(
        None, "epochs after which a run ends whatever its schedule is for: replays an early stop",
        neutral=None, least=1,
    )  # fmt: skip


@dataclass
class Logger:
    """The keys of `logger`: what gets a run's numbers while it runs. It decides nothing."""

    name: str = _around("none", "what gets a run's numbers while it runs", allowed=LOGGERS)
    experiment: str = _around("fmbench", "the experiment of MLflow")


#: Keys that every option of `optimizer` has, one of the user's too, with their defaults: how the
#: parameters are grouped. The class does not get them.
GROUPED: Mapping[str, Any] = {"decay_norms": True, "bias_lr_factor": 1.0}


@dataclass
class Config:
    """The keys of a run and their types.

    The groups are open, each option brings its own keys; `augmentation` alone is the same for all.
    """

    model: dict[str, Any] = _result(dict, "what is trained")
    optimizer: dict[str, Any] = _result(lambda: dict(GROUPED), "what trains it")
    scheduler: dict[str, Any] = _result(dict, "the learning rate by step")
    loss: dict[str, Any] = _result(dict, "what training minimises")
    data: dict[str, Any] = _result(dict, "the images, and how they are split")
    augmentation: Parts = _result(Parts, "what is done to the training images")
    batch_size: int = _result(64, "images a step", least=1)
    epochs: int = _result(
        12, "passes over the training part of the split", least=1, most=MOST_EPOCHS
    )
    clip_norm: float | None = _result(
        None, "the norm that the gradient of all parameters together is clipped to", neutral=None,
        least=1e-9,
    )  # fmt: skip
    seed: int = _result(
        0, "of weights, batches, augmentation and dropout", repeats=True, least=0, most=2**63 - 1
    )
    label_smoothing: float = _result(
        0.0, "share of the target spread over all classes; also loss.label_smoothing",
        least=0, below=1,
    )  # fmt: skip
    averaging: dict[str, Any] = _result(dict, "the average of the weights that is evaluated")
    early_stop: EarlyStop = _result(EarlyStop, "when a run ends before its last epoch")
    grad_accumulation: int = _result(
        1, "parts of a batch, one after the other: less memory, the same step", neutral=1, least=1
    )
    compile: bool = _result(False, "compile the model (torch.compile)", neutral=False)
    evaluation: Evaluation = _kept(Evaluation, "when the test set is used")
    test_every: Any = _around(UNSET, "the former name of evaluation.every and evaluation.test")
    label: str | None = _kept(
        None, "a name that sets rows of one configuration apart in the report (sweep=aa)",
        resumes=True,
    )  # fmt: skip
    keep_model: bool = _kept(
        False, "leave the trained weights in the run folder, as model.safetensors", resumes=True
    )
    keep_probabilities: bool = _kept(
        True, "leave the probabilities of the test and validation images in the run folder",
        resumes=True, in_trials=False,
    )  # fmt: skip
    checkpoint_every: int | None = _kept(
        None, "epochs between checkpoints; null: as time allows; 0: only when stopped",
        resumes=True, least=0,
    )  # fmt: skip
    keep_checkpoint: bool = _kept(
        False, "keep the last checkpoint of a run that has completed", resumes=True,
        in_trials=True,  # the best are evaluated on the test set with theirs
    )  # fmt: skip
    device: str = _hardware("auto", "auto, cpu, cuda, cuda:N", resumes=True)
    precision: str = _hardware(
        "auto", "auto: bf16 where the hardware has it and the model is large", allowed=PRECISIONS
    )
    threads: int | None = _hardware(
        None, "CPU threads; null: one, or all cores it may use, as is faster",
        resumes=True, least=1, most=MOST_THREADS,
    )  # fmt: skip
    memory_format: str = _hardware(
        "auto", "auto: channels_last where the model runs in it",
        neutral="auto", allowed=MEMORY_FORMATS,
    )  # fmt: skip
    deterministic: bool = _hardware(False, "only operations that promise the same bits")
    cuda_graphs: bool = _hardware(False, "record a training step once and replay it (GPU)")
    max_runs: int = _sweep(
        10_000, "a sweep of more runs is refused before it starts", resumes=True, least=1
    )
    sweep: Search = _sweep(Search, "the search around the runs")
    logger: Logger = _around(Logger, "what gets a run's numbers while it runs")
    # Not typed: an experiment brings it, and a record has a field for it.
    reference: dict[str, Any] | None = _around(None, "the published figures of an experiment")
    # Not typed either: the best of a search brings it, and the runs of a tuned comparison.
    tuning: dict[str, Any] | None = _around(None, "how the settings were searched for")


def _of(schema: Any, prefix: str = "") -> dict[str, Key]:
    return {f"{prefix}{one.name}": one.metadata[_NAME] for one in fields(schema)}


#: The keys at the top of a config.
TOP = _of(Config)

#: The parts whose keys are typed, by how the names of these begin.
_PARTS = {"evaluation.": Evaluation, "early_stop.": EarlyStop, "sweep.": Search, "logger.": Logger}

#: All keys that are known by name, with dots.
KEYS: Mapping[str, Key] = {
    **TOP,
    **{name: key for start, part in _PARTS.items() for name, key in _of(part, start).items()},
    **IN_GROUPS,
    **{name: key for keys in (*OF_DATA.values(), *OF_SPLIT.values()) for name, key in keys.items()},
}

#: Keys at the top that decide what is computed, beside the groups and what repeats a row.
DECIDING = tuple(
    one.name
    for one in fields(Config)
    if TOP[one.name].role == "result" and not TOP[one.name].repeats and one.default is not MISSING
)

#: What a record leaves out.
UNRECORDED = tuple(name for name, key in KEYS.items() if key.role in ("sweep", "around"))

#: The keys at the top that a record keeps.
RECORDED = tuple(name for name, key in TOP.items() if key.role not in ("sweep", "around"))

#: The keys at the top that have one value for a whole sweep.
OF_SWEEPS = tuple(name for name, key in TOP.items() if key.role == "sweep")

#: What a search sets in its trials for its own sake.
IN_TRIALS = {name: key.in_trials for name, key in KEYS.items() if key.in_trials is not ...}

#: Keys that may differ when an interrupted run or search resumes.
MAY_CHANGE = tuple(name for name, key in TOP.items() if key.resumes)

#: Keys that older records lack, and what their runs did.
NEUTRAL = {name: key.neutral for name, key in TOP.items() if key.neutral is not ...}

#: The same of the groups and of parts of the config.
NEUTRAL_IN_GROUPS = {
    name: key.neutral for name, key in KEYS.items() if "." in name and key.neutral is not ...
}

#: Keys of parts of the config that decide what is computed.
DECIDING_IN_PARTS = tuple(
    name
    for name, key in KEYS.items()
    if name.startswith(("early_stop.", "evaluation.")) and key.role == "result"
)

#: Of the keys that decide what is computed, by their names with dots.
NEUTRAL_DECIDING = {
    name: KEYS[name].neutral
    for name in (*DECIDING, *DECIDING_IN_PARTS)
    if KEYS[name].neutral is not ...
}

#: What the images decide, which a config said before it was taken from them.
OF_IMAGES = {"channels": 1, "classes": 10}
OF_MODELS = tuple(f"model.{name}" for name in OF_IMAGES)

#: Of the hardware.
HARDWARE = tuple(name for name, key in TOP.items() if key.role == "hardware")


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys at the top that decide what a config computes, with their values.

    A key at its neutral value is left out: runs that are older than the key computed the same.
    """
    found = {
        name: config[name]
        for name in DECIDING
        if name not in NEUTRAL or config.get(name, NEUTRAL[name]) != NEUTRAL[name]
    }
    for name in DECIDING_IN_PARTS:
        part, _, key = name.partition(".")
        value = (config.get(part) or {}).get(key, neutral := NEUTRAL_IN_GROUPS[name])
        if value != neutral:
            found[name] = value
    if "early_stop.patience" not in found:
        found.pop("early_stop.metric", None)
    return found


def renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of an earlier fmbench as one of today.

    `evaluation` stands in the place of `test_every`, and schedules have their present path. Of both
    keys `evaluation` wins where it is not at its defaults: a search sets it over what a user's
    experiment says.
    """
    found, usual = dict(config), {"every": None, "test": "end"}
    former = found.pop("test_every", UNSET)
    if not isinstance(found.get("evaluation"), Mapping):
        found["evaluation"] = usual
    if former != UNSET and found["evaluation"].items() >= usual.items():
        test = "never" if former is None else "end"
        found["evaluation"] = {**found["evaluation"], "every": former or None, "test": test}
    schedule = config.get("scheduler")
    if isinstance(schedule, Mapping) and isinstance(target := schedule.get("_target_"), str):
        target = re.sub(r"^fmbench\.schedule\.", "fmbench.optim.schedules.", target)
        found["scheduler"] = {**schedule, "_target_": target}
    return found


def as_recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as a record keeps it.

    Without what models take from the images by now, and without keys of optimizers and options of
    later groups that compute what was computed before; and without `evaluation.corruptions` where
    there are none.
    """
    found = renamed(config)
    found["evaluation"] = _without(found["evaluation"], {"corruptions": None})
    if isinstance(optimizer := config.get("optimizer"), Mapping):
        found["optimizer"] = _without(optimizer, GROUPED)
    model = config.get("model")
    if isinstance(model, Mapping) and str(model.get("_target_")).startswith("fmbench.models."):
        found["model"] = _without(model, OF_IMAGES)
    for group, neutral in NEUTRAL_OPTIONS.items():
        if not isinstance(chosen := found.get(group), Mapping):
            continue
        counts = option(found, group)
        found[group] = {key: value for key, value in chosen.items() if key in counts}
        if counts == neutral:
            del found[group]
    return found


def _without(part: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a config without the keys that have these values."""
    return {key: one for key, one in part.items() if key not in values or one != values[key]}


def renamed_override(override: str) -> list[str]:
    """The overrides of today for one of an earlier fmbench; others as they are."""
    key, _, value = override.lstrip("+").partition("=")
    if key in OF_MODELS:
        return [f"++{key}={value}"]
    if key.startswith("~") and key[1:] in OF_MODELS:
        return []  # a model that does not take it is not given it
    if key != "test_every" or not (value == "null" or value.isdecimal()):
        return [override]
    if value == "null":
        return ["evaluation.every=null", "evaluation.test=never"]
    return [f"evaluation.every={int(value) or 'null'}"]


def defaults() -> dict[str, Any]:
    """The defaults of the keys that people set, by their names with dots."""
    return {
        f"{start}{one.name}": one.default
        for start, part in {"": Config, **_PARTS}.items()
        for one in fields(part)
        if one.default is not MISSING and one.metadata[_NAME].role != "around"
    }


def help_text() -> str:
    """The keys as `--help` lists them: a line each with its default, or more."""
    shown = {name: key.example for name, key in KEYS.items() if key.example}
    shown |= {name: as_yaml(value) for name, value in defaults().items()}
    lines = []
    for name, value in shown.items():
        start = f"{name}={value} ".ljust(20)
        lines += textwrap.wrap(
            f"{start} {KEYS[name].help}", 94, subsequent_indent=" " * 21, break_on_hyphens=False
        )
    return "\n".join(f"    {line}" for line in lines)


def as_yaml(value: Any) -> str:
    """A default as it is typed."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
