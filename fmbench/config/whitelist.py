"""The classes and functions that a config may have built, and nothing else.

Imports nothing but the standard library: reports read it too.
"""

import os
from collections.abc import Mapping
from typing import Any

#: Names one's own packages, comma-separated, whose classes a config may instantiate.
TRUST_VARIABLE = "FMBENCH_TRUST"

_MODELS = {
    "alexnet": "AlexNet",
    "alexnet_light": "AlexNetLight",
    "densenet": "DenseNet",
    "dualpathnet": "DualPathNet",
    "inception_light": "InceptionLight",
    "lenet": "LeNet",
    "lenet5": "LeNet5",
    "preact_resnet20": "PreActResNet20",
    "resnet18": "ResNet18",
    "resnet_light": "ResNetLight",
    "shakeshake": "ShakeShake",
    "timm": "Timm",
    "torchvision": "Torchvision",
    "vgg_light": "VGGLight",
    "wideresnet": "WideResNet",
}

_OPTIMIZERS = (
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon"),
    *("NAdam", "RAdam", "RMSprop", "Rprop", "SGD", "SparseAdam"),
)

_OWN_OPTIMIZERS = (
    *("by_name.extra_optimizer", "by_name.torch_optimizer", "lion.Lion", "muon.Muon"),
    *("schedule_free.schedule_free_adamw", "schedule_free.schedule_free_sgd"),
)

#: What each group of a run may have built without being trusted, by import path, and the name that
#: a run's key has for it. The name never changes; where a module is moved, the old path stays
#: beside the new one. By path, since a pattern would let in what else can be reached in a module.
#: None of these opens a file or a connection.
TARGETS: Mapping[str, Mapping[str, str]] = {
    "model": {f"fmbench.models.{module}.{name}": f"fmbench:{name}"
              for module, name in _MODELS.items()},
    "optimizer": {f"torch.optim.{name}": f"torch.optim:{name}" for name in _OPTIMIZERS}
    | {f"fmbench.optim.{path}": f"fmbench:{path.rpartition('.')[2]}" for path in _OWN_OPTIMIZERS},
    "scheduler": {f"fmbench.{module}.{name}": f"fmbench:{name}"
                  for name in ("constant", "cosine", "multistep", "onecycle", "step")
                  for module in ("optim.schedules", "schedule")}
                 | {f"fmbench.optim.schedules.{name}": f"fmbench:{name}"
                    for name in ("cosine_warmup", "exponential", "linear", "plateau",
                                 "polynomial", "wsd")},
    "loss": {f"fmbench.training.losses.{name}": f"fmbench:{name}"
             for name in ("CrossEntropy", "Focal", "SquaredError")},
    "averaging": {f"fmbench.training.averaging.{name}": f"fmbench:{name}"
                  for name in ("ema", "no_average", "swa")},
}  # fmt: skip

#: Of groups that were added after records were written: the option, by the name of its target, that
#: computes what was computed before. It is left out of a run's key and record.
NEUTRAL_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "loss": {"_target_": "fmbench:CrossEntropy", "class_weights": None},
    "averaging": {"_target_": "fmbench:no_average"},
}


def buildable(group: str) -> list[str]:
    """What a group of a run may be built from, as patterns of import paths.

    Hydra asks for the class of a result too. So a function of a trusted package that returns a
    model of another one's class needs that other package trusted as well.
    """
    return [*TARGETS.get(group, ()), *trusted_patterns()]


def trusted_patterns() -> list[str]:
    """All that is in the trusted packages."""
    return [f"{name}.*" for name in trusted()]


def trusted() -> list[str]:
    """The packages that `FMBENCH_TRUST` names; a config that sets variables is refused before."""
    named = os.environ.get(TRUST_VARIABLE, "")
    return [name.strip() for name in named.split(",") if name.strip()]


def option(config: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The option that a config has of a group: what is built, by its name, and its arguments."""
    found = config[group] if group not in NEUTRAL_OPTIONS else config.get(group, {})
    if not found and group in NEUTRAL_OPTIONS:
        return dict(NEUTRAL_OPTIONS[group])
    target = found.get("_target_", "")
    made = {**found, "_target_": TARGETS[group].get(target, target)}
    neutral = NEUTRAL_OPTIONS.get(group, {})
    if made["_target_"] == neutral.get("_target_"):
        made = {**neutral, **made}  # an argument that is not given is at its default
    if made["_target_"] == "fmbench:CrossEntropy":
        made.pop("label_smoothing", None)  # stands at the top, as in records older than the group
    return made


def trust_needed(config: Mapping[str, Any]) -> str | None:
    """What `FMBENCH_TRUST` names, where a run needs it; None where it does not."""
    listed = all(option(config, group)["_target_"] in TARGETS[group].values() for group in TARGETS)
    listed = listed and "_target_" not in config["data"]
    listed = listed and not config["augmentation"].get("own")
    return None if listed else ",".join(trusted()) or None
