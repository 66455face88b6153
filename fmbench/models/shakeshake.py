"""Shake-Shake networks: two residual branches, mixed at random in both directions."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from fmbench.core.errors import ConfigError
from fmbench.models.blocks import conv_bn_relu, init_he_fan_out, residual_branch
from fmbench.models.checks import PARTS, divide_depth, require_choice, require_positive


class _Mix(torch.autograd.Function):
    """a x1 + (1 - a) x2, whose gradients are mixed by b and 1 - b.

    The same can be said by detached tensors, as mix_b + (mix_a - mix_b).detach(), but not exactly:
    the sum is rounded, in bfloat16 to 8 bits. mix_a.detach() + (mix_b - mix_b.detach()) is exact,
    and passes over the maps four times where this does once.
    """

    @staticmethod
    def forward(x1: Tensor, x2: Tensor, a: Tensor, b: Tensor) -> Tensor:  # noqa: ARG004
        return torch.lerp(x2, x1, a)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(inputs[3])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (b,) = ctx.saved_tensors
        return gradient * b, gradient * (1 - b), None, None


class Shake(nn.Module):
    """Mix two branches, a x1 + (1 - a) x2, and their gradients by b and 1 - b (section 1.3).

    The random coefficients come from PyTorch's generator of the device that the images are on. Maps
    two tensors (N, C, H, W) to one.

    Args:
        forward: Where a comes from in training: "shake", uniform in [0, 1); "even", 0.5.
        backward: Where b comes from: "shake" and "even" likewise; "keep", b is a.
        evaluation: Where a comes from in evaluation, where gradients are those of the mixture:
            "even" or "shake".
        per: Whether each "image" has coefficients of its own, or a "batch" shares them.
    """

    def __init__(self, *, forward: str, backward: str, evaluation: str, per: str) -> None:
        super().__init__()
        # Even both ways is the plain mean, whose gradients are right as they are.
        even = forward == backward == "even"
        self.modes = (forward, "keep" if even else backward, evaluation)
        self.per_image = per == "image"

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Mix the branches."""
        forward, backward, evaluation = self.modes
        if not self.training:
            return torch.lerp(x2, x1, *self._coefficients(x1, evaluation))
        if backward == "keep":
            return torch.lerp(x2, x1, *self._coefficients(x1, forward))
        mixed: Tensor = _Mix.apply(x1, x2, *self._coefficients(x1, forward, backward))
        return mixed

    def _coefficients(self, like: Tensor, *modes: str) -> list[Tensor]:
        """Return for each mode a tensor that broadcasts over (N, C, H, W)."""
        # One draw for both passes: a compiler moves one that only the backward pass needs there,
        # and a seed would mean other numbers. In float32, so that it means the same in every
        # precision.
        shape = (modes.count("shake"), len(like) if self.per_image else 1, 1, 1, 1)
        drawn = iter(torch.rand(shape, device=like.device).to(like.dtype))
        half = like.new_full((1, 1, 1, 1), 0.5)
        return [next(drawn) if mode == "shake" else half for mode in modes]


class Subsampling(nn.Module):
    """Halve the sides and double the channels, seeing half of the pixels (section 2.1).

    Two 1 x 1 convolutions, one of the pixels in even rows and columns, one of those in odd rows and
    columns; batch norm over both. Maps (N, C, H, W) with even H and W to (N, 2 C, H / 2, W / 2).
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(in_channels, in_channels, 1, bias=False)
        self.odd = nn.Conv2d(in_channels, in_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(2 * in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate what both convolutions give, and normalise it."""
        even, odd = self.even(x[:, :, ::2, ::2]), self.odd(x[:, :, 1::2, 1::2])
        out: Tensor = self.norm(torch.cat((even, odd), dim=1))
        return out


class ShakeBlock(nn.Module):
    """Two branches ReLU-3x3-BN-ReLU-3x3-BN, mixed, and a shortcut (section 2.1).

    The ReLU in front is one for both branches. The shortcut is the identity; the first block of a
    stage that halves the image has ReLU-`Subsampling`. Maps (N, C, H, W) to the same shape, or to
    (N, 2 C, H / 2, W / 2).
    """

    def __init__(self, in_channels: int, shake: Shake, *, halve: bool) -> None:
        super().__init__()
        out_channels, stride = (2 * in_channels, 2) if halve else (in_channels, 1)
        self.branch1 = residual_branch(in_channels, out_channels, stride)
        self.branch2 = residual_branch(in_channels, out_channels, stride)
        self.shake = shake
        self.shortcut = Subsampling(in_channels) if halve else None

    def forward(self, x: Tensor) -> Tensor:
        """Add the mixed branches to the shortcut; no activation follows."""
        activated = F.relu(x)
        mixed: Tensor = self.shake(self.branch1(activated), self.branch2(activated))
        return mixed + (x if self.shortcut is None else self.shortcut(activated))


class ShakeShake(nn.Module):
    """Shake-Shake 26 2x96d: 26,330,026 parameters; with `base_channels=64` 11,708,362.

    Gastaldi 2017, "Shake-Shake regularization" (arXiv:1705.07485), sections 1.2, 1.3 and 2.1, as
    built in "PyTorch Image Classification on CUSTOM Fashion MNIST". The paper's names S-S-I, S-E-B
    and so on give the modes `forward`, `backward` and `per`. Differences from the paper's code:
    images of 28 x 28 with one channel, so that the stages see 28, 14 and 7 pixels a side; a stem of
    `base_channels` with ReLU for one of 16 without, so that the first stage has identity shortcuts
    only; no ReLU before the average pooling; the second path of a shortcut starts at row and column
    1, where the code shifts the image the other way.

    Weights start as `init_he_fan_out` draws them, as in the paper's code.

    Args:
        depth: Layers with weights along one branch: the stem, two a block, the classifier.
        base_channels: Channels of the stem and of each branch of the first stage; each next stage
            has twice as many.
        forward: In training the branches are mixed by "shake", coefficients drawn anew, or "even",
            halves.
        backward: Their gradients are mixed by "shake", "even", or "keep", the coefficients that the
            forward pass had (after an even one, even).
        evaluation: As `forward`, for evaluation; the paper has "even".
        per: Coefficients are drawn for each "image", or once for a "batch".

    Raises:
        ConfigError: If `depth` does not divide into three stages, a mode is none of these, or a
            number is not whole and positive.
    """

    def __init__(
        self,
        *,
        depth: int = 26,
        base_channels: int = 96,
        forward: str = "shake",
        backward: str = "shake",
        evaluation: str = "even",
        per: str = "image",
        channels: int = 1,
        classes: int = 10,
    ) -> None:
        super().__init__()
        require_positive(base_channels=base_channels, channels=channels, classes=classes)
        for name, mode in (("forward", forward), ("evaluation", evaluation)):
            if mode == "keep":
                raise ConfigError(
                    f"model.{name}=keep is not allowed: shake or even; only backward has "
                    "coefficients to keep, those of the forward pass"
                )
        require_choice(("shake", "even"), forward=forward, evaluation=evaluation)
        require_choice(("shake", "even", "keep"), backward=backward)
        require_choice(("image", "batch"), per=per)
        blocks = divide_depth(depth, outside=2)
        self.stem = nn.Sequential(*conv_bn_relu(channels, base_channels, 3, padding=1, bias=False))
        self.blocks = nn.Sequential()
        width = base_channels
        for stage in range(PARTS):
            for block in range(blocks):
                shake = Shake(forward=forward, backward=backward, evaluation=evaluation, per=per)
                halve = stage > 0 and block == 0
                self.blocks.append(ShakeBlock(width, shake, halve=halve))
                width *= 2 if halve else 1
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, classes)
        init_he_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        features = self.blocks(self.stem(images))
        logits: Tensor = self.classifier(self.pool(features).flatten(1))
        return logits
