"""A mistake in a model's arguments is one line that says what is allowed."""

import pytest

from fmbench.core.errors import ConfigError
from fmbench.models.alexnet import AlexNet
from fmbench.models.alexnet_light import AlexNetLight
from fmbench.models.densenet import DenseNet
from fmbench.models.dualpathnet import DualPathNet
from fmbench.models.inception_light import InceptionLight
from fmbench.models.lenet import LeNet
from fmbench.models.lenet5 import LeNet5
from fmbench.models.preact_resnet20 import PreActResNet20
from fmbench.models.resnet18 import ResNet18
from fmbench.models.resnet_light import ResNetLight
from fmbench.models.shakeshake import ShakeShake
from fmbench.models.torchvision import Torchvision
from fmbench.models.vgg_light import VGGLight
from fmbench.models.wideresnet import WideResNet

WHOLE = " is not allowed: a whole number, 1 or more"
PROBABILITY = " is not allowed: a probability, 0 or more and below 1"
STAGES = "does not make three equal stages: "


@pytest.mark.parametrize(("build", "settings", "message"), [
    (LeNet, {"channels": 0}, "model.channels=0" + WHOLE),
    (LeNet5, {"classes": True}, "model.classes=True" + WHOLE),
    (AlexNet, {"width": 100}, "a multiple of 3, so that the other layers' widths are whole"),
    (AlexNet, {"width": 100}, "as 99 or 102"),
    (AlexNet, {"width": 1}, "as 3 or 6"),
    (AlexNet, {"width": 96.0}, "model.width=96.0" + WHOLE),
    (AlexNet, {"dropout": 1}, "model.dropout=1" + PROBABILITY),
    (AlexNet, {"channels": -1}, "model.channels=-1" + WHOLE),
    (AlexNetLight, {"width": 97}, "model.width=97 is not allowed: a multiple of 3"),
    (AlexNetLight, {"dropout": "half"}, "model.dropout=half" + PROBABILITY),
    (AlexNetLight, {"classes": 0}, "model.classes=0" + WHOLE),
    (VGGLight, {"width": 0}, "model.width=0" + WHOLE),
    (VGGLight, {"dropout": -0.1}, "model.dropout=-0.1" + PROBABILITY),
    (InceptionLight, {"width": 30}, "a multiple of 4"),
    (InceptionLight, {"width": 30}, "as 28 or 32"),
    (InceptionLight, {"dropout": True}, "model.dropout=True" + PROBABILITY),
    (ResNet18, {"width": 1.5}, "model.width=1.5" + WHOLE),
    (ResNet18, {"depths": []}, "one or more stages, as in [2,2,2,2]"),
    (ResNet18, {"depths": 18}, "model.depths=18 is not allowed: one or more stages"),
    (ResNet18, {"depths": [2, 0]}, "model.depths[1]=0" + WHOLE),
    (ResNetLight, {"depths": "2222"}, "model.depths=2222 is not allowed: one or more stages"),
    (ResNetLight, {"width": None}, "model.width=None" + WHOLE),
    (DenseNet, {"depth": 41}, "(depth - 4) % 6 == 0 and depth >= 10 must hold, as for 40 or 46"),
    (DenseNet, {"depth": 41}, "model.depth=41 does not make three equal dense blocks: "),
    (DenseNet, {"depth": 4}, "as for 10 or 16"),
    (DenseNet, {"depth": "deep"}, "model.depth=deep" + WHOLE),
    (DenseNet, {"growth": 0}, "model.growth=0" + WHOLE),
    (DenseNet, {"dropout": 1.0}, "model.dropout=1.0" + PROBABILITY),
    (DenseNet, {"compression": 0}, "model.compression=0 is not allowed: at most 1"),
    (DenseNet, {"compression": 1.1}, "model.compression=1.1 is not allowed"),
    (DenseNet, {"compression": 0.001}, "enough to keep one of"),
    (WideResNet, {"depth": 20}, STAGES + "(depth - 4) % 6 == 0 and depth >= 10 must hold"),
    (WideResNet, {"depth": 20}, "as for 16 or 22"),
    (WideResNet, {"widen_factor": 2.5}, "model.widen_factor=2.5" + WHOLE),
    (WideResNet, {"dropout": 1.5}, "model.dropout=1.5" + PROBABILITY),
    (PreActResNet20, {"depth": 22}, STAGES + "(depth - 2) % 6 == 0 and depth >= 8 must hold"),
    (PreActResNet20, {"depth": 2}, "as for 8 or 14"),
    (PreActResNet20, {"width": 0}, "model.width=0" + WHOLE),
    (DualPathNet, {"depth": 26}, STAGES + "(depth - 4) % 6 == 0"),
    (DualPathNet, {"growth": 0}, "model.growth=0" + WHOLE),
    (DualPathNet, {"widen_factor": -1}, "model.widen_factor=-1" + WHOLE),
    (ShakeShake, {"depth": 28}, STAGES + "(depth - 2) % 6 == 0 and depth >= 8 must hold"),
    (ShakeShake, {"depth": None}, "model.depth=None" + WHOLE),
    (ShakeShake, {"base_channels": 0}, "model.base_channels=0" + WHOLE),
    (ShakeShake, {"forward": "shape"}, "model.forward=shape is not allowed: shake or even"),
    (ShakeShake, {"backward": False}, "model.backward=False is not allowed: shake or even or"),
    (ShakeShake, {"evaluation": 0.5}, "model.evaluation=0.5 is not allowed: shake or even"),
    (ShakeShake, {"per": "pixel"}, "model.per=pixel is not allowed: image or batch"),
    (ShakeShake, {"forward": "keep"}, "model.forward=keep is not allowed: shake or even"),
    (ShakeShake, {"forward": "keep"}, "only backward has coefficients to keep"),
    (ShakeShake, {"evaluation": "keep"}, "model.evaluation=keep is not allowed: shake or"),
    (Torchvision, {"name": "ResNet19"}, "the closest are resnet18, "),
    (Torchvision, {"name": "fasterrcnn_resnet50_fpn"}, "classification models"),
    (Torchvision, {"name": "maxvit_t", "upsample": 299}, "model.upsample=224"),
    (Torchvision, {"upsample": 0}, "model.upsample=0" + WHOLE),
    (Torchvision, {"upsample": 1025}, "model.upsample=1025 is not allowed: at most 1024"),
    (Torchvision, {"dropout": -1}, "a probability"),
    (Torchvision, {"name": "resnet18", "dropout": 0.1}, "has no dropout layer"),
])  # fmt: skip
def test_a_mistake_is_one_line_that_says_what_is_allowed(build, settings, message):
    with pytest.raises(ConfigError) as mistake:
        build(**settings)
    assert message in str(mistake.value)
    assert "\n" not in str(mistake.value)
