"""What the tests of the models share: a small form of each, and images."""

from functools import partial
from importlib.util import find_spec

import pytest
import torch
from torch import nn

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
from fmbench.models.timm import Timm
from fmbench.models.torchvision import Torchvision
from fmbench.models.vgg_light import VGGLight
from fmbench.models.wideresnet import WideResNet

# What a laptop runs in milliseconds, with the structure of the full model.
SMALL = {
    "alexnet": partial(AlexNet, width=12),
    "alexnet_light": partial(AlexNetLight, width=12),
    "densenet": partial(DenseNet, depth=16, growth=6),
    "dualpathnet": partial(DualPathNet, depth=16, widen_factor=1, growth=4),
    "inception_light": partial(InceptionLight, width=4),
    "lenet": LeNet,
    "lenet5": LeNet5,
    "preact_resnet20": partial(PreActResNet20, depth=14, width=8),
    "resnet18": partial(ResNet18, depths=(1, 2, 1), width=8),
    "resnet_light": partial(ResNetLight, depths=(1, 2, 1), width=8),
    "shakeshake": partial(ShakeShake, depth=8, base_channels=8),
    "timm": partial(Timm, name="test_efficientnet"),
    "torchvision": partial(Torchvision, name="shufflenet_v2_x0_5", upsample=32),
    "vgg_light": partial(VGGLight, width=8),
    "wideresnet": partial(WideResNet, depth=10, widen_factor=1),
}
OWN = {name: build for name, build in SMALL.items() if name not in ("timm", "torchvision")}

NO_TIMM = "timm is not installed (the extra timm)"
_OF_TIMM = [pytest.mark.timm, pytest.mark.skipif(find_spec("timm") is None, reason=NO_TIMM)]


def of_each(values):
    """The parameters of a test, by the option of each; those of timm need the package."""
    return [
        pytest.param(value, id=name, marks=_OF_TIMM if name == "timm" else ())
        for name, value in values.items()
    ]


every_model = pytest.mark.parametrize("build", of_each(SMALL))
own_model = pytest.mark.parametrize("build", OWN.values(), ids=OWN.keys())


def images(n: int = 4, channels: int = 1, side: int = 28) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def on_meta(build, **settings) -> nn.Module:
    with torch.device("meta"):
        return build(**settings)


def randomise(model: nn.Module) -> nn.Module:
    """Draw norms and biases too: as they start, many mistakes would not show."""
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.copy_(torch.rand_like(tensor) - 0.3)
    return model


def assert_same_function(model: nn.Module, reference: nn.Module) -> None:
    """Give both models the same random weights, which they hold in the same order, and compare."""
    randomise(model)
    for mine, theirs in zip(
        model.state_dict().values(), reference.state_dict().values(), strict=True
    ):
        theirs.copy_(mine)
    with torch.no_grad():
        torch.testing.assert_close(model.train()(images()), reference.train()(images()))


def sides(model: nn.Module, *kinds: type[nn.Module]) -> list[int]:
    """The sides of the maps that layers of these kinds give, in the order they give them."""
    seen = []
    for module in model.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _, __, out: seen.append(out.shape[-1]))
    model.eval()(images(1).to(next(model.parameters()).device))
    return seen
