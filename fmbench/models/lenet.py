"""LeNet with ReLU and max-pooling, the form that most tutorials mean today."""

from torch import nn

from fmbench.models.blocks import FlatClassifier, flat_size
from fmbench.models.checks import require_positive


class LeNet(FlatClassifier):
    """Two convolutions and three linear layers: 61,706 parameters.

    LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document
    recognition", section II.B, as built in "CNN Implementation for Fashion-MNIST". Differences
    from the paper: ReLU for the scaled tanh; max-pooling for the trainable subsampling; every map
    of the second convolution sees all six maps of the first; a linear output for the radial basis
    functions; images of 28 x 28 padded by 2 for the paper's 32 x 32 (the same maps result).

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
            nn.Conv2d(channels, 6, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(flat_size(self.features, channels, image_size), 120),
            nn.ReLU(inplace=True),
            nn.Linear(120, 84),
            nn.ReLU(inplace=True),
            nn.Linear(84, classes),
        )
