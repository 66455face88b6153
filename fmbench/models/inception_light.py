"""Two Inception modules with batch norm and a very large linear layer."""

import torch
from torch import Tensor, nn

from fmbench.models.blocks import FlatClassifier, conv_bn_relu, linear_relu_dropout
from fmbench.models.checks import require_dropout, require_multiple, require_positive


class InceptionModule(nn.Module):
    """Four branches of equal width side by side (Szegedy et al. 2015, section 4, figure 2b).

    1 x 1; 3 x 3 then 1 x 1; 1 x 1 then 5 x 5; 3 x 3 max-pooling then 1 x 1. Differences from the
    figure: the 3 x 3 stands before its 1 x 1, at full width; the third branch pads its 1 x 1, so
    that the border of what the 5 x 5 sees is learned; all branches have one width. Maps
    (N, in_channels, H, W) to (N, 4 width, H, W).
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                nn.Sequential(*conv_bn_relu(in_channels, width, 1)),
                nn.Sequential(
                    *conv_bn_relu(in_channels, width, 3, padding=1),
                    *conv_bn_relu(width, width, 1),
                ),
                nn.Sequential(
                    *conv_bn_relu(in_channels, width, 1, padding=2),
                    *conv_bn_relu(width, width, 5),
                ),
                nn.Sequential(
                    nn.MaxPool2d(3, stride=1, padding=1),
                    *conv_bn_relu(in_channels, width, 1),
                ),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate what the branches give."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class InceptionLight(FlatClassifier):
    """A stem, two Inception modules and three linear layers: 218,366,666 parameters.

    Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke and Rabinovich 2015, "Going deeper
    with convolutions" (arXiv:1409.4842), section 5, as built in "CNN Implementation for
    Fashion-MNIST". Differences from the paper: images of 28 x 28 with one channel for 224 x 224 in
    colour; a stem of one 3 x 3 convolution; two modules, see `InceptionModule`, for nine; batch
    norm after every convolution; adaptive average pooling after each module, to 16 and to 10 pixels
    a side; no auxiliary classifiers; three linear layers, of which the first has 209,716,224
    parameters, for one behind global average pooling.

    On a GPU PyTorch has no deterministic backward pass through adaptive pooling from 26 to 16 and
    from 16 to 10 pixels: with `deterministic=true` training is refused there.

    Weights start as PyTorch draws them by default, uniform(+-1 / sqrt(inputs)), weights and biases
    alike, batch norms as the identity, as in the published code; the paper says nothing about it.

    Args:
        width: Channels of each branch of the first module; those of the second have eight times as
            many, the stem a quarter, and the linear layers keep their ratio to it too.
        dropout: Probability of dropping an output of the hidden linear layers.

    Raises:
        ConfigError: If `width` is no multiple of 4, or an argument is out of range.
    """

    def __init__(
        self, *, width: int = 64, dropout: float = 0.5, channels: int = 1, classes: int = 10
    ) -> None:
        super().__init__()
        require_multiple(4, width=width)  # the stem has a quarter of it
        require_positive(channels=channels, classes=classes)
        require_dropout(dropout)
        self.features = nn.Sequential(
            *conv_bn_relu(channels, width // 4, 3),
            InceptionModule(width // 4, width),
            nn.AdaptiveAvgPool2d(16),
            InceptionModule(4 * width, 8 * width),
            nn.AdaptiveAvgPool2d(10),
        )
        self.classifier = nn.Sequential(
            *linear_relu_dropout(4 * 8 * width * 10 * 10, 16 * width, dropout),
            *linear_relu_dropout(16 * width, 2 * width, dropout),
            nn.Linear(2 * width, classes),
        )
