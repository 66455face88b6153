"""Pre-activation ResNet in the thin form for images of about 32 x 32."""

from torch import nn

from fmbench.models.blocks import PreActClassifier, init_he_fan_out, preact_head, preact_stages
from fmbench.models.checks import divide_depth, require_positive


class PreActResNet20(PreActClassifier):
    """Three stages of pre-activation blocks: 271,994 parameters, 0.27 million in the literature.

    He, Zhang, Ren and Sun 2016, "Identity mappings in deep residual networks" (arXiv:1603.05027),
    section 4 and appendix, as built in "PyTorch Image Classification" (hysts). Differences from
    the paper: images of 28 x 28 with one channel, so that the stages see 28, 14 and 7 pixels a
    side; 20 layers, where the paper's tables start at 110. The first block of each stage takes its
    shortcut after its first BN-ReLU, as the appendix says of the model's first block and the
    published code has for all three; where the width changes it is a 1 x 1 convolution.

    Weights start as `init_he_fan_out` draws them, as in the authors' code and
    in the published one.

    Args:
        depth: Layers with weights: the stem, two a block, the classifier.
        width: Channels of the stem and of the first stage; each next stage has twice as many.

    Raises:
        ConfigError: If `depth` does not divide into three stages, or an argument is out of range.
    """

    def __init__(
        self, *, depth: int = 20, width: int = 16, channels: int = 1, classes: int = 10
    ) -> None:
        super().__init__()
        require_positive(width=width, channels=channels, classes=classes)
        blocks = divide_depth(depth, outside=2)
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.blocks = preact_stages(blocks, width, width, activated=True)
        self.head = preact_head(4 * width)
        self.classifier = nn.Linear(4 * width, classes)
        init_he_fan_out(self)
