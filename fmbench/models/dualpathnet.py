"""Dual path networks: a residual network and a densely connected one side by side."""

import torch
from torch import Tensor, nn

from fmbench.models.blocks import PreActBlock, init_he_fan_out, preact_head
from fmbench.models.checks import PARTS, divide_depth, require_positive

STEM = 16  # channels, whatever the widening


class Transition(nn.Module):
    """Start both paths of a stage: a pre-activation block, and a plain 3 x 3 beside it.

    The 3 x 3 sees the raw input. Maps (N, in_channels, H, W) to
    (N, width + 2 growth, ceil(H / stride), ceil(W / stride)), the residual path first.
    """

    def __init__(self, in_channels: int, width: int, growth: int, stride: int) -> None:
        super().__init__()
        self.residual = PreActBlock(in_channels, width, stride)
        self.dense = nn.Conv2d(in_channels, 2 * growth, 3, stride=stride, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the starts of both paths."""
        return torch.cat((self.residual(x), self.dense(x)), dim=1)


class DualPathBlock(nn.Module):
    """BN-ReLU-3x3-BN-ReLU-3x3 that serves both paths (Chen et al. 2017, section 4.2, figure 2e).

    The first `width` channels of its output are added to those of its input, the residual path;
    the last `growth` are appended to the dense path. Maps (N, in_channels, H, W) to
    (N, in_channels + growth, H, W).
    """

    def __init__(self, in_channels: int, width: int, growth: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, width + growth, 3, padding=1, bias=False),
            nn.BatchNorm2d(width + growth),
            nn.ReLU(inplace=True),
            nn.Conv2d(width + growth, width + growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add to the residual path, append to the dense path."""
        out: Tensor = self.layers(x)
        added = x[:, : self.width] + out[:, : self.width]
        return torch.cat((added, x[:, self.width :], out[:, self.width :]), dim=1)


class DualPathNet(nn.Module):
    """A dual path network of three stages; the defaults have 47,751,450 parameters.

    Chen, Li, Xiao, Jin, Yan and Feng 2017, "Dual path networks" (arXiv:1707.01629), section 4, on
    the skeleton of WRN-28-10, as built in "PyTorch Image Classification on CUSTOM Fashion MNIST"
    (there DualPathNet-28-10). Differences from the paper: images of 28 x 28 with one channel, so
    that the stages see 28, 14 and 7 pixels a side; three stages of basic 3 x 3 blocks of one width
    for four of grouped bottlenecks; a 3 x 3 stem of stride 1 without norm and without pooling.
    The stages end with 240, 480 and 960 channels.

    Weights start as `init_he_fan_out` draws them, but for the classifier's: He
    normal by fan-in, both as in the published code.

    Args:
        depth: As in a wide residual network: the stem, two a block, the three 1 x 1 shortcuts. The
            first block of each stage is its transition.
        widen_factor: Width of the residual path in multiples of 16, 32 and 64.
        growth: Channels that each block of the first stage appends to the dense path; twice and
            four times as many in the next. A stage starts with twice its growth.

    Raises:
        ConfigError: If `depth` does not divide into three stages, or an argument is out of range.
    """

    def __init__(
        self,
        *,
        depth: int = 28,
        widen_factor: int = 10,
        growth: int = 16,
        channels: int = 1,
        classes: int = 10,
    ) -> None:
        super().__init__()
        require_positive(widen_factor=widen_factor, growth=growth)
        require_positive(channels=channels, classes=classes)
        blocks = divide_depth(depth, outside=4)
        self.stem = nn.Conv2d(channels, STEM, 3, padding=1, bias=False)
        self.stages = nn.Sequential()
        in_channels = STEM
        for stage in range(PARTS):
            width, grown = STEM * widen_factor * 2**stage, growth * 2**stage
            layers = nn.Sequential(
                Transition(in_channels, width, grown, stride=1 if stage == 0 else 2)
            )
            in_channels = width + 2 * grown
            for _ in range(blocks - 1):
                layers.append(DualPathBlock(in_channels, width, grown))
                in_channels += grown
            self.stages.append(layers)
        self.head = preact_head(in_channels)
        self.classifier = nn.Linear(in_channels, classes)
        init_he_fan_out(self)
        nn.init.kaiming_normal_(self.classifier.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        logits: Tensor = self.classifier(self.head(self.stages(self.stem(images))))
        return logits
