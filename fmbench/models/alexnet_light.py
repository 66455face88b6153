"""AlexNet with 3 x 3 convolutions and without its norm, narrowed for small images."""

from torch import nn

from fmbench.models.blocks import FlatClassifier, conv_relu, flat_size, linear_relu_dropout
from fmbench.models.checks import require_dropout, require_multiple, require_positive


class AlexNetLight(FlatClassifier):
    """Five convolutions and three linear layers: 5,945,290 parameters.

    Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural
    networks", section 3.5, as built in "CNN Implementation for Fashion-MNIST". Differences from
    the paper: images of 28 x 28 with one channel for 224 x 224 in colour; the first two
    convolutions are 3 x 3 of stride 1 for 11 x 11 of stride 4 and 5 x 5; the first pooling is
    2 x 2, without overlap; no local response normalisation; no groups; hidden linear layers of
    1024 and 256 for 4096 and 4096.

    Weights start as PyTorch draws them by default, uniform(+-1 / sqrt(inputs)), weights and biases
    alike; the paper has a normal distribution of standard deviation 0.01 and biases of 0 or 1, and
    the published code's choice is not known.

    Args:
        width: Channels of the first convolution; all other layers keep their ratio to it.
        dropout: Probability of dropping an output of the hidden linear layers.

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
            *conv_relu(channels, width, 3),
            nn.MaxPool2d(2),
            *conv_relu(width, middle, 3, padding=2),
            nn.MaxPool2d(3, stride=2),
            *conv_relu(middle, wide, 3, padding=1),
            *conv_relu(wide, wide, 3, padding=1),
            *conv_relu(wide, middle, 3, padding=1),
            nn.MaxPool2d(3, stride=2),
        )
        flat = flat_size(self.features, channels, image_size)
        self.classifier = nn.Sequential(
            *linear_relu_dropout(flat, 4 * middle, dropout),
            *linear_relu_dropout(4 * middle, middle, dropout),
            nn.Linear(middle, classes),
        )
