"""ResNet-18 in the form used for images of about 32 x 32."""

from collections.abc import Sequence

from torch import Tensor, nn

from fmbench.models.blocks import basic_stages, conv_bn_relu, init_he_fan_out
from fmbench.models.checks import require_depths, require_positive


class ResNet18(nn.Module):
    """A residual network of basic blocks with a small stem: 11,172,810 parameters.

    He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition" (arXiv:1512.03385),
    table 1, column of 18 layers; compared at three batch sizes in "Fashion-MNIST with PyTorch".
    Differences from the paper, usual for small images: a 3 x 3 stem of stride 1 for the 7 x 7 of
    stride 2, and no max-pooling, so that the stages see 28, 14, 7 and 4 pixels a side. The paper's
    own models for CIFAR (section 4.2) are thinner, of three stages.

    Weights start as `init_he_fan_out` draws them: He normal as the paper says
    (section 3.4), in the fan-out form of Facebook's Torch code (fb.resnet.torch). The published
    code's choice is not known.

    Args:
        depths: Blocks in each stage; every stage after the first halves the image and doubles the
            width.
        width: Channels of the stem and of the first stage.

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
        require_depths(depths)
        self.stem = nn.Sequential(*conv_bn_relu(channels, width, 3, padding=1, bias=False))
        self.stages = basic_stages(depths, width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width * 2 ** (len(depths) - 1), classes)
        init_he_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        features = self.stages(self.stem(images))
        logits: Tensor = self.classifier(self.pool(features).flatten(1))
        return logits
