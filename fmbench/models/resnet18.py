"""ResNet-18 in the form used for images of about 32 x 32."""

from collections.abc import Sequence

from torch import Tensor, nn

from fmbench.errors import ConfigError
from fmbench.models.checks import require_positive
from fmbench.models.init import init_he_fan_out


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016, figure 2 and section 3.3).

    The shortcut is the identity, or a strided 1 x 1 convolution with batch norm (the paper's
    option B) where the block changes the shape. Maps (N, in_channels, H, W) to
    (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the shortcut, then apply ReLU."""
        out: Tensor = self.relu(self.residual(x) + self.shortcut(x))
        return out


class ResNet18(nn.Module):
    """A residual net of basic blocks with a small stem: 11,172,810 parameters.

    He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition"
    (arXiv:1512.03385), table 1, column of 18 layers. Differences from the paper, usual for small
    images: a 3 x 3 stem of stride 1 for the 7 x 7 of stride 2, and no max-pooling, so that the
    stages see 28, 14, 7 and 4 pixels a side. The paper's own nets for CIFAR (section 4.2) are
    thinner, of three stages.

    Weights start as `fmbench.models.init.init_he_fan_out` draws them: He normal as the paper says
    (section 3.4), in the fan-out form of Facebook's Torch code (fb.resnet.torch).

    Args:
        depths: Blocks in each stage; every stage after the first halves the image and doubles the
            width.
        width: Channels of the stem and of the first stage.
        channels: Channels of an image.
        classes: Number of classes.

    Raises:
        ConfigError: If `depths` is empty, or a number is not whole and positive.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        channels: int = 1,
        classes: int = 10,
    ) -> None:
        super().__init__()
        require_positive(width=width, channels=channels, classes=classes)
        _require_depths(depths)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential()
        in_channels = width
        for stage, depth in enumerate(depths):
            out_channels = width * 2**stage
            blocks = nn.Sequential()
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(in_channels, out_channels, stride))
                in_channels = out_channels
            self.stages.append(blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(in_channels, classes)
        init_he_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, 28, 28) to logits (N, classes)."""
        features = self.stages(self.stem(images))
        logits: Tensor = self.classifier(self.pool(features).flatten(1))
        return logits


def _require_depths(depths: object) -> None:
    """Refuse depths that are not one or more positive whole numbers."""
    # A config's own list type is a Sequence too, and a number or a string is what people mistype.
    if isinstance(depths, str) or not isinstance(depths, Sequence) or len(depths) == 0:
        raise ConfigError(
            f"model.depths={depths} is not allowed: one or more stages, as in [2,2,2,2]"
        )
    for stage, depth in enumerate(depths):
        require_positive(**{f"depths[{stage}]": depth})
