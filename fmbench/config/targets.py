"""The classes and functions that a run is built from, and the names that its key has for them.

Imports nothing but the standard library: reports read it too.
"""

from collections.abc import Mapping

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
    "torchvision": "Torchvision",
    "vgg_light": "VGGLight",
    "wideresnet": "WideResNet",
}

_OPTIMIZERS = (
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon"),
    *("NAdam", "RAdam", "RMSprop", "Rprop", "SGD", "SparseAdam"),
)

#: What each group of a run may have built without being trusted, by import path, and the name that
#: a run's key has for it. The name never changes; where a module is moved, the old path stays
#: beside the new one. By path, since a pattern would let in what else can be reached in a module.
#: None of these opens a file or a connection.
TARGETS: Mapping[str, Mapping[str, str]] = {
    "model": {f"fmbench.models.{module}.{name}": f"fmbench:{name}"
              for module, name in _MODELS.items()},
    "optimizer": {f"torch.optim.{name}": f"torch.optim:{name}" for name in _OPTIMIZERS},
    "scheduler": {f"fmbench.{module}.{name}": f"fmbench:{name}"
                  for name in ("constant", "cosine", "multistep", "onecycle", "step")
                  for module in ("optim.schedules", "schedule")},
}  # fmt: skip
