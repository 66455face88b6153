"""Wide residual networks: pre-activation blocks, few and wide."""

from torch import nn

from fmbench.models.blocks import PreActClassifier, init_he_fan_out, preact_head, preact_stages
from fmbench.models.checks import divide_depth, require_dropout, require_positive

STEM = 16  # channels, whatever the widening


class WideResNet(PreActClassifier):
    """WRN of three stages; the defaults, WRN-28-10, have 36,478,906 parameters.

    Zagoruyko and Komodakis 2016, "Wide residual networks" (arXiv:1605.07146), section 2 and
    table 1, as built in "PyTorch Image Classification on CUSTOM Fashion MNIST". Difference from the
    paper: images of 28 x 28 with one channel, so that the stages see 28, 14 and 7 pixels a side.
    As in the authors' code, a block that changes the width takes its shortcut, a 1 x 1 convolution,
    after the first BN-ReLU, and the stem has no norm.

    Weights start as `init_he_fan_out` draws them, as in the authors' code and
    in the published one.

    Args:
        depth: Layers with weights: the stem, two a block, the three 1 x 1 shortcuts.
        widen_factor: Width of the stages in multiples of 16, 32 and 64, k in the paper.
        dropout: Probability of dropping a value between the convolutions of a block; the paper has
            0 or 0.3 for CIFAR.

    Raises:
        ConfigError: If `depth` does not divide into three stages, or an argument is out of range.
    """

    def __init__(
        self,
        *,
        depth: int = 28,
        widen_factor: int = 10,
        dropout: float = 0.0,
        channels: int = 1,
        classes: int = 10,
    ) -> None:
        super().__init__()
        require_positive(widen_factor=widen_factor, channels=channels, classes=classes)
        require_dropout(dropout)
        blocks = divide_depth(depth, outside=4)
        self.stem = nn.Conv2d(channels, STEM, 3, padding=1, bias=False)
        width = STEM * widen_factor
        self.blocks = preact_stages(blocks, STEM, width, dropout=dropout)
        self.head = preact_head(4 * width)
        self.classifier = nn.Linear(4 * width, classes)
        init_he_fan_out(self)
