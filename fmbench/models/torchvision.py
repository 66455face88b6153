"""Any classification model of torchvision, by name, with random weights."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from fmbench.core.errors import ConfigError
from fmbench.models.checks import require_dropout, require_positive
from fmbench.models.upsample import require_known, require_runs, resizing


class Torchvision(nn.Module):
    """A torchvision classification model for images (N, channels, H, W).

    The papers are those that torchvision names for each model. Differences: the last layer has
    `classes` outputs, the first convolution takes `channels`, the auxiliary heads of googlenet and
    inception_v3 are left out, and vision transformers are built for the size they are fed.

    Weights start as torchvision draws them. The first convolution keeps the filters drawn for its
    first `channels` colours (repeated beyond three), times sqrt(3 / channels): one channel then
    responds, in distribution, as the colour model does to a grey image in all three.

    Args:
        name: One of `torchvision.models.list_models(module=torchvision.models)`.
        upsample: Side in pixels to which images are resized first, bilinearly; None leaves them.
        dropout: Probability for all the model's dropout layers; None keeps torchvision's.

    Raises:
        ConfigError: If there is no such model, it cannot take images of that size, it has no
            dropout layer to set, or a number is out of range.
    """

    def __init__(
        self,
        *,
        name: str = "mobilenet_v3_small",
        upsample: int | None = None,
        dropout: float | None = None,
        channels: int = 1,
        classes: int = 10,
        image_size: tuple[int, int] = (28, 28),
    ) -> None:
        super().__init__()
        require_positive(channels=channels, classes=classes)
        if dropout is not None:
            require_dropout(dropout)
        names = models.list_models(module=models)
        which = f"torchvision's {len(names)} classification models"
        require_known(name, names, str(name).lower(), which)
        self.upsample = resizing(upsample)
        size = (upsample, upsample) if upsample else image_size
        # Before the real weights exist: refusing a large model takes no memory and no time.
        require_runs(name, partial(_build, name, classes=2), size, channels=3)
        self.net = _build(name, size, classes)
        _adapt_first_convolution(self.net, channels)
        if dropout is not None:
            _set_dropout(self.net, name, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        logits: Tensor = self.net(self.upsample(images))
        return logits


def _build(name: str, size: tuple[int, int], classes: int) -> nn.Module:
    """Build the model for colour images of a size, on the default device."""
    options: dict[str, Any] = {"weights": None, "num_classes": classes}
    if name in {"googlenet", "inception_v3"}:
        # Left unsaid, init_weights is True with a warning.
        options |= {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        options["image_size"] = size[0]  # an image that is not square it refuses
    elif name.startswith("maxvit_"):
        options["input_size"] = size
    with _WidthsOnCpu() if name.startswith("regnet_") else nullcontext():
        net: nn.Module = models.get_model(name, **options)
    return net


class _WidthsOnCpu(TorchFunctionMode):
    """Keep RegNet's arithmetic off the default device.

    It works out its widths with tensors and reads them back, which the meta device cannot do.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in {torch.arange, torch.tensor}:
            options["device"] = "cpu"
        return func(*args, **options)


def _adapt_first_convolution(net: nn.Module, channels: int) -> None:
    convolution = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    colours = convolution.in_channels
    if channels == colours:
        return
    drawn: Tensor = convolution.weight.detach()
    chosen = torch.arange(channels, device=drawn.device) % colours
    convolution.weight = nn.Parameter(drawn[:, chosen] * (colours / channels) ** 0.5)
    convolution.in_channels = channels


def _set_dropout(net: nn.Module, name: str, dropout: float) -> None:
    layers = [module for module in net.modules() if isinstance(module, nn.Dropout)]
    if not layers:
        raise ConfigError(
            f"model.dropout={dropout} has no effect: {name} has no dropout layer; allowed: null"
        )
    for layer in layers:
        layer.p = dropout
