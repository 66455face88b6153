"""ResNet-18 with a small stem and a hidden linear layer in place of the average pooling."""

from collections.abc import Sequence

from torch import Tensor, nn

from fmbench.models.blocks import basic_stages, conv_bn_relu, flat_size
from fmbench.models.checks import require_depths, require_positive


class ResNetLight(nn.Module):
    """A residual network of basic blocks and two linear layers: 15,897,546 parameters.

    He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition"
    (arXiv:1512.03385), table 1, column of 18 layers, as built in "CNN Implementation for
    Fashion-MNIST". Differences from the paper: images of 28 x 28 with one channel for 224 x 224 in
    colour; the stem is 3 x 3 of stride 1 with padding 3 for 7 x 7 of stride 2, and 2 x 2
    max-pooling for 3 x 3, so that the stages see 17, 9, 5 and 3 pixels a side; no average pooling,
    but a hidden linear layer of 1024 with ReLU over all 4608 features.

    Weights start as PyTorch draws them by default, uniform(+-1 / sqrt(inputs)), weights and biases
    alike, batch norms as the identity; the paper has He normal, and the published code's choice is
    not known.

    Args:
        depths: Blocks in each stage; every stage after the first halves the image and doubles the
            width.
        width: Channels of the stem and of the first stage; the hidden linear layer has 16 times as
            many outputs.

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
        image_size: tuple[int, int] = (28, 28),
    ) -> None:
        super().__init__()
        require_positive(width=width, channels=channels, classes=classes)
        require_depths(depths)
        self.stem = nn.Sequential(
            *conv_bn_relu(channels, width, 3, padding=3, bias=False), nn.MaxPool2d(2, padding=1)
        )
        self.stages = basic_stages(depths, width)
        flat = flat_size(nn.Sequential(self.stem, self.stages), channels, image_size)
        self.classifier = nn.Sequential(
            nn.Linear(flat, 16 * width),
            nn.ReLU(inplace=True),
            nn.Linear(16 * width, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        features = self.stages(self.stem(images))
        logits: Tensor = self.classifier(features.flatten(1))
        return logits
