"""Blocks that more than one model is built of, and how their weights start."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fmbench.models.checks import PARTS


def meta_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy whose parameters and buffers are shapes on the meta device.

    The weights are never copied, so a model that fills half the memory can still be copied.
    """
    # deepcopy takes what the memo holds for an object's id in place of copying that object.
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        shadow = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(shadow, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)


def flat_size(features: nn.Module, channels: int, image_size: Sequence[int]) -> int:
    """The numbers that convolutions give for one image, as a linear layer takes them.

    Worked out from shapes alone.

    Raises:
        RuntimeError: The image is too small for them.
    """
    image = torch.empty(1, channels, *image_size, device="meta")
    with torch.no_grad():
        return int(meta_copy(features).eval()(image).numel())


class FlatClassifier(nn.Module):
    """Convolutions, and linear layers over all the numbers that they give."""

    features: nn.Module
    classifier: nn.Module

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def conv_relu(
    in_channels: int, out_channels: int, kernel_size: int, padding: int = 0
) -> tuple[nn.Conv2d, nn.ReLU]:
    """Return a convolution with bias and its ReLU, for the plain models.

    They map (N, in_channels, H, W) to (N, out_channels, H', W') with
    H' = H + 2 padding - kernel_size + 1.
    """
    return (
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding),
        nn.ReLU(inplace=True),
    )


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, padding: int = 0, *, bias: bool = True
) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.ReLU]:
    """Return a convolution, its batch norm and its ReLU, which map as `conv_relu`'s."""
    return (
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def linear_relu_dropout(
    in_features: int, out_features: int, dropout: float
) -> tuple[nn.Linear, nn.ReLU, nn.Dropout]:
    """Return a hidden linear layer whose outputs are dropped (Krizhevsky et al. 2012, section 4.2).

    They map (N, in_features) to (N, out_features).
    """
    return nn.Linear(in_features, out_features), nn.ReLU(inplace=True), nn.Dropout(dropout)


def residual_branch(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Return 3x3-BN-ReLU-3x3-BN, of which the first convolution is strided."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016, figure 2 and section 3.3).

    The shortcut is the identity, or a strided 1 x 1 convolution with batch norm (the paper's
    option B) where the block changes the shape. Maps (N, in_channels, H, W) to
    (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.residual = residual_branch(in_channels, out_channels, stride)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the shortcut, then apply ReLU."""
        out: Tensor = self.relu(self.residual(x) + self.shortcut(x))
        return out


def basic_stages(depths: Sequence[int], width: int) -> nn.Sequential:
    """Return stages of basic blocks; each after the first halves the image, doubles the width.

    They map (N, width, H, W) to (N, width 2^(s-1), H', W') for s stages, H' being H halved s - 1
    times and rounded up each time.
    """
    stages = nn.Sequential()
    in_channels = width
    for stage, depth in enumerate(depths):
        out_channels = width * 2**stage
        blocks = nn.Sequential()
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            blocks.append(BasicBlock(in_channels, out_channels, stride))
            in_channels = out_channels
        stages.append(blocks)
    return stages


class PreActBlock(nn.Module):
    """BN-ReLU-3x3-BN-ReLU-3x3 and a shortcut (He et al. 2016, arXiv:1603.05027, figure 4e).

    The shortcut is the identity, or, where the block changes the shape, a strided 1 x 1 convolution
    without norm that starts after the first BN-ReLU. Maps (N, in_channels, H, W) to
    (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Of the first convolution and of the shortcut.
        activated_identity: Whether an identity shortcut starts there too, rather than at the
            block's input (appendix of the paper, for a block that follows a bare convolution).
        dropout: Probability of dropping a value between the convolutions (Zagoruyko and Komodakis
            2016, arXiv:1605.07146, section 2.4), after the ReLU as in their code.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        activated_identity: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True))
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        )
        self.shortcut: nn.Module = nn.Identity()
        self.activated_shortcut = activated_identity
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.activated_shortcut = True

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the shortcut; no activation follows."""
        activated = self.activation(x)
        shortcut = self.shortcut(activated if self.activated_shortcut else x)
        out: Tensor = self.residual(activated) + shortcut
        return out


def preact_stages(
    blocks: int, in_channels: int, width: int, *, activated: bool = False, dropout: float = 0.0
) -> nn.Sequential:
    """Return three stages of so many pre-activation blocks; `width` is that of the first.

    Each after the first halves the image and doubles the width. With `activated` the first block
    of each stage takes its shortcut after its first BN-ReLU, also where that is the identity. They
    map (N, in_channels, H, W) to (N, 4 width, H', W'), H' being H halved twice and rounded up.
    """
    stages = nn.Sequential()
    for stage in range(PARTS):
        for block in range(blocks):
            stages.append(
                PreActBlock(
                    in_channels,
                    width * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    activated_identity=activated and block == 0,
                    dropout=dropout,
                )
            )
            in_channels = width * 2**stage
    return stages


def preact_head(channels: int) -> nn.Sequential:
    """Return the BN-ReLU that the last pre-activation block lacks, and global average pooling.

    They map (N, channels, H, W) to (N, channels).
    """
    return nn.Sequential(
        nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


class PreActClassifier(nn.Module):
    """A stem, pre-activation blocks, `preact_head`, and a linear layer."""

    stem: nn.Module
    blocks: nn.Module
    head: nn.Module
    classifier: nn.Module

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        logits: Tensor = self.classifier(self.head(self.blocks(self.stem(images))))
        return logits


def init_he_fan_out(model: nn.Module) -> None:
    """Draw a model's weights anew as the Torch code of ResNet and of DenseNet does.

    Convolution weights are normal with variance 2 / (kernel height x kernel width x output
    channels), the form of He et al. 2015 (arXiv:1502.01852, section 2.2) that keeps the variance
    of gradients going backward; batch norms start as the identity; linear biases start at zero
    and linear weights keep PyTorch's uniform(+-1 / sqrt(inputs)), which is also Torch's.

    Args:
        model: Changed in place; its convolutions have no bias.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
