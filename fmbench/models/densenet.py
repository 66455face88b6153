"""DenseNet-BC in the form used for images of about 32 x 32."""

import torch
from torch import Tensor, nn

from fmbench.core.errors import ConfigError
from fmbench.models.blocks import PreActClassifier, init_he_fan_out, preact_head
from fmbench.models.checks import (
    PARTS,
    divide_depth,
    is_number,
    require_dropout,
    require_positive,
)

BOTTLENECK = 4  # channels inside a layer, in growth rates


class DenseLayer(nn.Module):
    """BN-ReLU-1x1-BN-ReLU-3x3, whose output is appended to its input (section 3, "Bottleneck").

    Maps (N, in_channels, H, W) to (N, in_channels + growth, H, W).
    """

    def __init__(self, in_channels: int, growth: int, dropout: float) -> None:
        inner = BOTTLENECK * growth
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, inner, 1, bias=False),
            nn.Dropout(dropout),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, growth, 3, padding=1, bias=False),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Append the new maps to all the earlier ones."""
        return torch.cat((x, self.layers(x)), dim=1)


class Transition(nn.Sequential):
    """BN-ReLU-1x1 and 2 x 2 average pooling between dense blocks (section 3, "Pooling layers").

    Maps (N, in_channels, H, W) to (N, out_channels, H // 2, W // 2).
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.Dropout(dropout),
            nn.AvgPool2d(2),
        )


class DenseNet(PreActClassifier):
    """DenseNet-BC of three dense blocks; the defaults, DenseNet-BC-100-12, have 768,730 parameters.

    Huang, Liu, van der Maaten and Weinberger 2017, "Densely connected convolutional networks"
    (arXiv:1608.06993), section 3, the models for CIFAR with bottleneck and compression, as in
    "PyTorch Image Classification on CUSTOM Fashion MNIST". Differences from the paper: images of 28
    x 28 with one channel, so that the blocks see 28, 14 and 7 pixels a side. A stem of twice the
    growth rate, dropout after every convolution but the stem, and no biases in convolutions are the
    paper's.

    Weights start as `init_he_fan_out` draws them, as in the authors' Torch code
    (section 4.2 names He et al. 2015).

    Args:
        depth: Layers with weights: the stem, two a dense layer, two transitions, the classifier.
        growth: Maps that each dense layer adds, the growth rate k.
        compression: Share of the maps that a transition keeps, theta.
        dropout: Probability of dropping a value after a convolution; the paper has 0.2 without
            augmentation, 0 with it.

    Raises:
        ConfigError: If `depth` does not divide into three blocks, or an argument is out of range.
    """

    def __init__(
        self,
        *,
        depth: int = 100,
        growth: int = 12,
        compression: float = 0.5,
        dropout: float = 0.0,
        channels: int = 1,
        classes: int = 10,
    ) -> None:
        super().__init__()
        require_positive(growth=growth, channels=channels, classes=classes)
        require_dropout(dropout)
        # The stem, the transitions and the classifier take 4; a dense layer counts twice.
        layers = divide_depth(depth, outside=4, parts="dense blocks")
        width = 2 * growth
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.blocks = nn.Sequential()
        for block in range(PARTS):
            for _ in range(layers):
                self.blocks.append(DenseLayer(width, growth, dropout))
                width += growth
            if block < PARTS - 1:
                kept = _compressed(width, compression)
                self.blocks.append(Transition(width, kept, dropout))
                width = kept
        self.head = preact_head(width)
        self.classifier = nn.Linear(width, classes)
        init_he_fan_out(self)


def _compressed(width: int, compression: float) -> int:
    """Return how many of a transition's maps stay, or refuse a compression that leaves none."""
    if not is_number(compression) or not 0 < compression <= 1 or width * compression < 1:
        raise ConfigError(
            f"model.compression={compression} is not allowed: at most 1, which keeps every map, "
            f"and enough to keep one of {width}"
        )
    return int(width * compression)
