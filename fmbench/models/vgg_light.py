"""The first three blocks of VGG-16, narrowed behind them."""

from torch import nn

from fmbench.models.blocks import FlatClassifier, conv_relu, flat_size, linear_relu_dropout
from fmbench.models.checks import require_dropout, require_positive


class VGGLight(FlatClassifier):
    """Seven convolutions and three linear layers: 2,981,450 parameters.

    Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image
    recognition" (arXiv:1409.1556), table 1, column D, as built in "CNN Implementation for
    Fashion-MNIST". Differences from the paper: images of 28 x 28 with one channel for 224 x 224 in
    colour, so that the blocks see 28, 14 and 7 pixels a side; the last two blocks, of 512 channels,
    are left out; hidden linear layers of 512 and 128 for 4096 and 4096.

    Weights start as PyTorch draws them by default, uniform(+-1 / sqrt(inputs)), weights and biases
    alike, as in the published code; the paper has a normal distribution of variance 0.01, biases of
    0, and starts deep models from shallow ones.

    Args:
        width: Channels of the first block; all other layers keep their ratio to it.
        dropout: Probability of dropping an output of the hidden linear layers.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        dropout: float = 0.5,
        channels: int = 1,
        classes: int = 10,
        image_size: tuple[int, int] = (28, 28),
    ) -> None:
        super().__init__()
        require_positive(width=width, channels=channels, classes=classes)
        require_dropout(dropout)
        self.features = nn.Sequential(
            *conv_relu(channels, width, 3, padding=1),
            *conv_relu(width, width, 3, padding=1),
            nn.MaxPool2d(2),
            *conv_relu(width, 2 * width, 3, padding=1),
            *conv_relu(2 * width, 2 * width, 3, padding=1),
            nn.MaxPool2d(2),
            *conv_relu(2 * width, 4 * width, 3, padding=1),
            *conv_relu(4 * width, 4 * width, 3, padding=1),
            *conv_relu(4 * width, 4 * width, 3, padding=1),
            nn.MaxPool2d(2),
        )
        flat = flat_size(self.features, channels, image_size)
        self.classifier = nn.Sequential(
            *linear_relu_dropout(flat, 8 * width, dropout),
            *linear_relu_dropout(8 * width, 2 * width, dropout),
            nn.Linear(2 * width, classes),
        )
