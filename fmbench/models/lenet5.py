"""LeNet-5 with tanh and average pooling, closer to the paper than `lenet`."""

from torch import nn

from fmbench.models.blocks import FlatClassifier, flat_size
from fmbench.models.checks import require_positive


class LeNet5(FlatClassifier):
    """Three convolutions and two linear layers: 44,426 parameters.

    LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document
    recognition", section II.B, as built in "FashionMNIST_CNN". Differences from the paper: plain
    tanh for 1.7159 tanh(2x / 3); average pooling without trainable gain and bias; every map of the
    second convolution sees all six maps of the first; a linear output for the radial basis
    functions; images of 28 x 28 without padding, so that the third convolution is 4 x 4, not 5 x 5.

    Weights start as PyTorch draws them by default, uniform(+-1 / sqrt(inputs)), weights and biases
    alike, as in the published code; the paper has uniform(+-2.4 / inputs).

    Raises:
        ConfigError: If an argument is not a positive whole number.
    """

    def __init__(
        self, *, channels: int = 1, classes: int = 10, image_size: tuple[int, int] = (28, 28)
    ) -> None:
        super().__init__()
        require_positive(channels=channels, classes=classes)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, kernel_size=5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 120, kernel_size=4),
            nn.Tanh(),
        )
        flat = flat_size(self.features, channels, image_size)
        self.classifier = nn.Sequential(nn.Linear(flat, 84), nn.Tanh(), nn.Linear(84, classes))
