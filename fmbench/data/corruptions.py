"""`fmbench corruptions v1`: test images made worse, in 14 ways and 5 severities.

The families are those of MNIST-C (Mu and Gilmer 2019), Fashion-MNIST-C (Weiss and Tonella 2022) and
ImageNet-C (Hendrycks and Dietterich 2019). The definitions and numbers here are our own: accuracies
do not compare with those on the published files.

A corrupted image is a pure function of the image, the seed, the corruption and its severity. Random
numbers are hashes in 64-bit whole numbers, which all devices compute alike; what is drawn is the
same at every severity, so that a higher one is more of the same. Results on a CPU and a GPU differ
by one grey level at most, where a float is rounded otherwise.

Lengths are pixels of an image whose shorter side has 28, and grow with it. Outside of an image that
is moved there is black.
"""

import math
import zlib
from dataclasses import replace
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from fmbench.data.loader import EvaluationLoader

#: Of the definitions: another one changes figures.
VERSION = 1

SEVERITIES = (1, 2, 3, 4, 5)

#: Pixels that are worked on at once; random numbers have 8 bytes each.
_AT_ONCE = 2**22

#: Random bits of a number from 0 to 1: as many as a float32 holds.
_BITS = 24


#: The strength of each corruption at severities 1 to 5.
CORRUPTIONS: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.04, 0.08, 0.12, 0.18, 0.26),
    "shot_noise": (60, 30, 15, 8, 4),
    "impulse_noise": (0.01, 0.03, 0.06, 0.12, 0.2),
    "gaussian_blur": (0.5, 0.8, 1.1, 1.5, 2.0),
    "glass_blur": (1, 1.6, 2, 2.6, 3),
    "motion_blur": (2, 4, 6, 8, 10),
    "shear": (0.1, 0.2, 0.3, 0.4, 0.5),
    "scale": (1.1, 1.2, 1.3, 1.45, 1.6),
    "rotate": (6, 12, 20, 30, 45),
    "translate": (1, 2, 3, 4, 6),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.75, 0.5, 0.35, 0.25, 0.15),
    "pixelate": (0.75, 0.6, 0.45, 0.35, 0.25),
    "stripe": (0.06, 0.12, 0.2, 0.3, 0.4),
}


def corrupt(images: Tensor, name: str, severity: int, seed: int = 0) -> Tensor:
    """Corrupt images, on any device, as the same seed always does.

    Args:
        images: (B, C, H, W) uint8, 0 black to 255 white.
        name: One of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: Of the random numbers.

    Returns:
        The same shape and type, on the same device.
    """
    strength = CORRUPTIONS[name][severity - 1]
    key = int(_mix(torch.tensor(_signed(seed)))) ^ zlib.crc32(name.encode())
    parts = []
    for part in torch.split(images, max(1, _AT_ONCE // images[0].numel())):
        made = getattr(_Corruptor(part, key), name)(strength)
        if made.dtype != torch.uint8:
            made = made.round().clamp(0, 255).to(torch.uint8)
        parts.append(made)
    return torch.cat(parts)


def corrupted(plain: EvaluationLoader, name: str, severity: int) -> EvaluationLoader:
    """The images of an evaluation, corrupted batch by batch."""

    def normalized(pixels: Tensor) -> Tensor:
        return plain.normalization(corrupt(pixels, name, severity))

    return replace(plain, normalization=normalized)


_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of SplitMix64 (Steele et al. 2014)
_GOLDEN = 0x9E3779B97F4A7C15


def _signed(value: int) -> int:
    """The 64 bits of a whole number as PyTorch's int64 has them."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shifted to the right, with zeros from the left."""
    shifted: Tensor = (values >> bits) & (2 ** (64 - bits) - 1)
    return shifted


def _mix(values: Tensor) -> Tensor:
    """SplitMix64's finalizer of int64 numbers: each bit depends on all; products wrap around."""
    values = (values ^ _shifted(values, 30)) * _signed(_MULTIPLIERS[0])
    values = (values ^ _shifted(values, 27)) * _signed(_MULTIPLIERS[1])
    mixed: Tensor = values ^ _shifted(values, 31)
    return mixed


class _Corruptor:
    """Images to be corrupted, and random numbers that depend on each of them and a seed alone.

    Each corruption is a method: of a strength, to (B, C, H, W) values that are not rounded yet.
    """

    def __init__(self, images: Tensor, seed: int) -> None:
        self.images = images
        self.unit = min(images.shape[2:]) / 28  # pixels
        count = images[0].numel()
        places = torch.arange(count, device=images.device)
        weights = _mix((places + 1) * _signed(_GOLDEN)) | 1
        # Of whole numbers, so that the order in which a device adds them up changes nothing.
        sums = ((images.flatten(1).long() + 1) * weights).sum(1)
        self.keys = _mix(sums + _signed(seed))  # (B,)

    def whole(self, stream: int, *shape: int) -> Tensor:
        """(B, *shape) int64, from 0 to 2^24 - 1."""
        count = math.prod(shape)
        places = torch.arange(count, device=self.keys.device) + stream * 2**32
        counters = self.keys[:, None] + places * _signed(_GOLDEN)
        return _shifted(_mix(counters), 64 - _BITS).view(-1, *shape)

    def below(self, end: int, *shape: int) -> Tensor:
        """(B, *shape) int64, from 0 to `end` - 1."""
        return (self.whole(0, *shape) * end) >> _BITS

    def uniform(self, stream: int, *shape: int) -> Tensor:
        """(B, *shape) float32 from 0, below 1."""
        made: Tensor = self.whole(stream, *shape).float() / 2**_BITS
        return made

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) float32 by Box and Muller (1958)."""
        radius = ((self.whole(0, *shape) + 1).float() / 2**_BITS).log_().mul_(-2).sqrt_()
        made: Tensor = radius * (2 * math.pi * self.uniform(1, *shape)).cos_()
        return made

    def sign(self, stream: int) -> Tensor:
        """(B,) float32: -1 or 1."""
        return (self.whole(stream, 1)[:, 0] % 2 * 2 - 1).float()

    def gaussian_noise(self, deviation: float) -> Tensor:
        """A normal number is added to each value; the strength is its standard deviation."""
        return self.images.float() + 255 * deviation * self.normal(*self.images.shape[1:])

    def shot_noise(self, photons: float) -> Tensor:
        """Each value is a count of photons by Poisson; the strength is how many make white."""
        table = _arrivals(photons).to(self.images.device)
        levels = self.images.long()
        wanted = levels * 2**_BITS + self.whole(0, *self.images.shape[1:])
        found = torch.searchsorted(table.flatten(), wanted, right=True) - levels * table.shape[1]
        return found.float() * (255 / photons)

    def impulse_noise(self, share: float) -> Tensor:
        """A share of the pixels is black or white, half of each."""
        drawn = self.whole(0, 1, *self.images.shape[2:])
        half = round(share / 2 * 2**_BITS)
        made = self.images.masked_fill(drawn < half, 0)
        return made.masked_fill(drawn >= 2**_BITS - half, 255)

    def gaussian_blur(self, sigma: float) -> Tensor:
        """Each value is a mean of its surroundings; the strength is the standard deviation."""
        return _blurred(self.images.float(), sigma * self.unit)

    def glass_blur(self, reach: float) -> Tensor:
        """Each pixel is one up to the strength away in row and column; then a light blur."""
        _, channels, height, width = self.images.shape
        far = max(1, round(reach * self.unit))
        moves = self.below(2 * far + 1, 2, height, width) - far
        rows, columns = (torch.arange(size, device=moves.device) for size in (height, width))
        rows = (rows[:, None] + moves[:, 0]).clamp(0, height - 1)
        columns = (columns + moves[:, 1]).clamp(0, width - 1)
        places = (rows * width + columns).flatten(1)[:, None].expand(-1, channels, -1)
        moved = self.images.flatten(2).gather(2, places).view_as(self.images)
        return _blurred(moved.float(), 0.4 * self.unit)

    def motion_blur(self, length: float) -> Tensor:
        """Each value is the mean along a line through it, of a random direction for each image."""
        angles = math.pi * self.uniform(0, 1)[:, 0]
        steps = max(3, math.ceil(length * self.unit) + 1)
        total = torch.zeros(self.images.shape, device=self.images.device)
        for step in range(steps):
            away = length * self.unit * (step / (steps - 1) - 0.5)
            down, right = away * angles.sin(), away * angles.cos()
            total += _moved(self.images.float(), down, right, border=True)
        return total / steps

    def shear(self, amount: float) -> Tensor:
        """Rows are moved sideways, by the strength for each row from the middle; to either side."""
        sign = self.sign(0)
        one = torch.ones_like(sign)
        return _warped(self.images, [[one, 0 * one], [amount * sign, one]])

    def scale(self, factor: float) -> Tensor:
        """Smaller by the factor, with black around, or larger by it."""
        factors = torch.where(self.sign(0) > 0, factor, 1 / factor)
        return _warped(self.images, [[factors, 0 * factors], [0 * factors, factors]])

    def rotate(self, degrees: float) -> Tensor:
        """Turned about the middle, in either direction."""
        sign, angle = self.sign(0), math.radians(degrees)
        cos, sin = torch.full_like(sign, math.cos(angle)), math.sin(angle) * sign
        return _warped(self.images, [[cos, sin], [-sin, cos]])

    def translate(self, distance: float) -> Tensor:
        """Moved by as many pixels, in a random direction."""
        angles = 2 * math.pi * self.uniform(0, 1)[:, 0]
        away = distance * self.unit
        return _moved(self.images.float(), away * angles.sin(), away * angles.cos())

    def brightness(self, amount: float) -> Tensor:
        """A share of white is added."""
        return self.images.float() + 255 * amount

    def contrast(self, factor: float) -> Tensor:
        """Values come nearer to the mean of their image."""
        sums = self.images.flatten(1).sum(1, dtype=torch.int64)
        means = (sums.float() / self.images[0].numel())[:, None, None, None]
        return (self.images.float() - means) * factor + means

    def pixelate(self, factor: float) -> Tensor:
        """Means of larger squares, of which a side has the factor times as many."""
        height, width = self.images.shape[2:]
        few = max(1, round(height * factor)), max(1, round(width * factor))
        squares = F.adaptive_avg_pool2d(self.images.float(), few)
        rows, columns = (
            torch.arange(size, device=self.images.device) * small // size
            for size, small in zip((height, width), few, strict=True)
        )
        return squares[:, :, rows][..., columns]

    def stripe(self, share: float) -> Tensor:
        """A vertical stripe at a random place is inverted; the strength is its share."""
        width = self.images.shape[3]
        wide = max(1, round(share * width))
        left = self.below(width - wide + 1, 1)
        columns = torch.arange(width, device=self.images.device)
        inside = ((columns >= left) & (columns < left + wide))[:, None, None, :]
        return torch.where(inside, 255 - self.images, self.images)


@cache
def _arrivals(photons: float) -> Tensor:
    """The Poisson distributions of all 256 grey levels, as whole numbers, one behind the other."""
    most = int(photons + 8 * math.sqrt(photons) + 10)
    rows = []
    for level in range(256):
        mean, below = photons * level / 255, 0.0
        term = math.exp(-mean)
        row = []
        for count in range(most):
            below += term
            row.append(level * 2**_BITS + min(round(below * 2**_BITS), 2**_BITS))
            term *= mean / (count + 1)
        rows.append(row)
    return torch.tensor(rows)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Float images through a Gaussian filter; border pixels are repeated outside."""
    reach = max(1, math.ceil(3 * sigma))
    weights = [math.exp(-0.5 * (place / sigma) ** 2) for place in range(-reach, reach + 1)]
    weights = [weight / sum(weights) for weight in weights]
    return _along(_along(images, weights, 2), weights, 3)


def _along(images: Tensor, weights: list[float], dim: int) -> Tensor:
    """A symmetric filter along a dimension; border pixels are repeated outside."""
    reach, size = len(weights) // 2, images.shape[dim]
    places = torch.arange(size, device=images.device)
    total = torch.zeros_like(images)
    for offset, weight in zip(range(-reach, reach + 1), weights, strict=True):
        total += weight * images.index_select(dim, (places + offset).clamp(0, size - 1))
    return total


def _sampled(images: Tensor, rows: Tensor, columns: Tensor, *, border: bool = False) -> Tensor:
    """Bilinear samples of float images at (B, H, W) places in pixels; outside is black.

    Written out, so that a place between pixels is the same on every device.
    """
    _, channels, height, width = images.shape
    top, left = rows.floor(), columns.floor()
    total = torch.zeros_like(images)
    for down in (0, 1):
        for right in (0, 1):
            row, column = top + down, left + right
            weights = (1 - (rows - row).abs()) * (1 - (columns - column).abs())
            if not border:
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                weights = weights * inside
            places = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            places = places.flatten(1)[:, None].expand(-1, channels, -1)
            total += weights[:, None] * images.flatten(2).gather(2, places).view_as(images)
    return total


def _warped(images: Tensor, matrix: list[list[Tensor]]) -> Tensor:
    """An image whose pixel at x shows what was at `matrix` times x; entries are (B,)."""
    middle = [(size - 1) / 2 for size in images.shape[2:]]
    rows, columns = (
        torch.arange(size, device=images.device, dtype=torch.float32) - half
        for size, half in zip(images.shape[2:], middle, strict=True)
    )
    (a, b), (c, d) = ((left[:, None, None], right[:, None, None]) for left, right in matrix)
    of_rows = a * rows[:, None] + b * columns + middle[0]
    of_columns = c * rows[:, None] + d * columns + middle[1]
    return _sampled(images.float(), of_rows, of_columns)


def _moved(images: Tensor, down: Tensor, right: Tensor, *, border: bool = False) -> Tensor:
    """Float images moved by (B,) pixels."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device)[:, None] - down[:, None, None]
    columns = torch.arange(width, device=images.device)[None, :] - right[:, None, None]
    size = max(len(rows), len(columns)), height, width
    return _sampled(images, rows.expand(size), columns.expand(size), border=border)
