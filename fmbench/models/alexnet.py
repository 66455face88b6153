"""AlexNet with its local response normalisation, for small images."""

import torch
from torch import Tensor, nn

from fmbench.models.blocks import FlatClassifier, conv_relu, flat_size, linear_relu_dropout
from fmbench.models.checks import require_dropout, require_multiple, require_positive


class LocalResponseNorm(nn.LocalResponseNorm):
    """Divide each value by (k + alpha x mean of 5 neighbouring channels' squares)^beta.

    Krizhevsky et al. 2012, section 3.3, with its constants, but for alpha: PyTorch takes the mean
    of the squares where the paper takes their sum. Maps (N, C, H, W) to the same shape.
    """

    def __init__(self) -> None:
        super().__init__(size=5, alpha=1e-4, beta=0.75, k=2.0)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise across channels."""
        # In bfloat16, 2 + 1e-4 x mean is 2.
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        # With the pixels in one dimension PyTorch pools in two; on a GPU the backward pass of its
        # pooling in three differs in its bits from call to call.
        return super().forward(precise.flatten(2)).view_as(x).to(x.dtype)


class AlexNet(FlatClassifier):
    """Five convolutions and two linear layers: 7,954,122 parameters.

    Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural
    networks", section 3.5, as built in "FashionMNIST_CNN". Differences from the paper: images of
    28 x 28 with one channel for 224 x 224 in colour; a first convolution of 5 x 5 with stride 1 for
    11 x 11 with stride 4; normalisation after the pooling, not before; no groups; one hidden linear
    layer for two.

    Weights start as PyTorch draws them by default, uniform(+-1 / sqrt(inputs)), weights and biases
    alike, as in the published code; the paper has a normal distribution of standard deviation 0.01
    and biases of 0 or 1.

    Args:
        width: Channels of the first convolution; all other layers keep their ratio to it.
        dropout: Probability of dropping an output of the hidden linear layer.

    Raises:
        ConfigError: If `width` is no multiple of 3, or an argument is out of range.
    """

    def __init__(
        self,
        *,
        width: int = 96,
        dropout: float = 0.5,
        channels: int = 1,
        classes: int = 10,
        image_size: tuple[int, int] = (28, 28),
    ) -> None:
        super().__init__()
        require_multiple(3, width=width)  # the second convolution has 8/3 of it
        require_positive(channels=channels, classes=classes)
        require_dropout(dropout)
        middle, wide = 8 * width // 3, 4 * width
        self.features = nn.Sequential(
            *conv_relu(channels, width, 5, padding=2),
            nn.MaxPool2d(3, stride=2),
            LocalResponseNorm(),
            *conv_relu(width, middle, 5, padding=2),
            nn.MaxPool2d(3, stride=2),
            LocalResponseNorm(),
            *conv_relu(middle, wide, 3, padding=1),
            *conv_relu(wide, wide, 3, padding=1),
            *conv_relu(wide, middle, 3, padding=1),
            nn.MaxPool2d(3, stride=2),
        )
        flat = flat_size(self.features, channels, image_size)
        self.classifier = nn.Sequential(
            *linear_relu_dropout(flat, 16 * middle, dropout),
            nn.Linear(16 * middle, classes),
        )
