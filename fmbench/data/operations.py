"""Operations on the pixels of a batch, each image with numbers of its own.

Geometry is a table of matrices, one an image, applied by one call. The operations of TrivialAugment
are those of `torchvision.transforms.v2.functional` for uint8 tensors, for whole batches. What an
image becomes does not depend on what else is in its batch: sums that a processor may order
otherwise are of whole numbers.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

#: Images warped at once by a processor, so that what it computes stays in its cache.
IN_CACHE = 256

#: Height and width of an image.
Size = tuple[int, int]


def inverse_affine(
    angle: Tensor,
    translate: tuple[Tensor, Tensor],
    scale: Tensor,
    shear: tuple[Tensor, Tensor],
    center: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Where each pixel of a transformed image comes from.

    The image is sheared, scaled and rotated about its centre, then shifted, as by
    `torchvision.transforms.functional.affine`.

    Args:
        angle: (N,) degrees, clockwise.
        translate: (N,) pixels to the right, and down.
        scale: (N,) factors.
        shear: (N,) degrees, along x and along y.
        center: x and y of the point that stays, in pixels from the image's middle.

    Returns:
        (N, 6) float32: a, b, c, d, e, f of x' = ax + by + c, y' = dx + ey + f, in pixels from the
        image's middle.
    """
    angle, shear_x, shear_y = (torch.deg2rad(one.double()) for one in (angle, *shear))
    # The forward map: rotation, scale, shear along y, shear along x (which takes y with it).
    a = torch.cos(angle - shear_y) / torch.cos(shear_y)
    c = torch.sin(angle - shear_y) / torch.cos(shear_y)
    b = -(a * torch.tan(shear_x) + torch.sin(angle))
    d = torch.cos(angle) - c * torch.tan(shear_x)
    # Its determinant without the scale is 1.
    rows = ((d / scale, -b / scale), (-c / scale, a / scale))
    to_x, to_y = (middle + shift for middle, shift in zip(center, translate, strict=True))
    shifts = (
        middle - one * to_x - other * to_y
        for middle, (one, other) in zip(center, rows, strict=True)
    )
    numbers = [one for row, shift in zip(rows, shifts, strict=True) for one in (*row, shift)]
    return torch.stack([number.expand(len(angle)) for number in numbers], dim=1).float()


def warp(pixels: Tensor, matrices: Tensor, mode: str) -> Tensor:
    """Transform (B, C, H, W) uint8 images by (B, 6) matrices of `inverse_affine`; black comes in.

    The mode of interpolation is bilinear or nearest.
    """
    if pixels.device.type == "cpu" and len(pixels) > IN_CACHE:
        groups = zip(torch.split(pixels, IN_CACHE), torch.split(matrices, IN_CACHE), strict=True)
        return torch.cat([warp(some, of, mode) for some, of in groups])
    height, width = pixels.shape[2:]
    x, y = (torch.arange(side, device=pixels.device) - (side - 1) / 2 for side in (width, height))
    # Shares of the half width and height, as grid_sample counts. What a column and what a row add
    # is worked out apart; all x before all y, so that the processor adds several at once.
    part = 2 / torch.stack([torch.full_like(x[0], width), torch.full_like(x[0], height)])
    of_x, of_y, shift = (matrices.view(-1, 2, 3) * part[:, None])[..., None, None].unbind(2)
    grid = (of_x * x + shift) + of_y * y[:, None]
    moved = F.grid_sample(pixels.float(), grid.movedim(1, 3), mode, "zeros", align_corners=False)
    return moved.round_().byte()


# TrivialAugment


def _blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """`other` at a factor of 0, the image at 1, and beyond it above."""
    blended = pixels * factor[:, None, None, None]
    return blended.add_(other * (1 - factor)[:, None, None, None]).clamp_(0, 255).byte()


def _grey(pixels: Tensor) -> Tensor:
    """(B, C, H, W) uint8 -> (B, 1, H, W) float32 whole numbers, the brightness of colours."""
    if pixels.shape[1] != 3:
        return pixels.float()
    red, green, blue = pixels[:, :, None].float().unbind(1)
    return (red * 0.2989 + green * 0.587 + blue * 0.114).floor_()


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Towards black below a factor of 1, away from it above."""
    return _blend(pixels, torch.zeros((), device=pixels.device), factor)


def color(pixels: Tensor, factor: Tensor) -> Tensor:
    """Towards grey, or away from it; a grey image stays."""
    return _blend(pixels, _grey(pixels), factor) if pixels.shape[1] == 3 else pixels


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Towards the mean brightness of the image, or away from it."""
    grey = _grey(pixels)
    total = grey.long().sum((1, 2, 3), keepdim=True)
    return _blend(pixels, total / grey[0].numel(), factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Towards the image smoothed by a 3 x 3 filter, or away from it; its border stays."""
    if min(pixels.shape[2:]) <= 2:
        return pixels
    whole = pixels.float()
    inner = whole[:, :, 1:-1, 1:-1]
    rows = whole[:, :, :-2] + whole[:, :, 1:-1] + whole[:, :, 2:]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = ((around + 4 * inner) / 13).round_()
    other = whole.clone()
    other[:, :, 1:-1, 1:-1] = smooth
    return _blend(whole, other, factor)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep so many of the highest bits of each pixel."""
    mask = 256 - 2 ** (8 - bits.long())
    return pixels & mask.to(torch.uint8)[:, None, None, None]


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert the pixels from a threshold on."""
    return torch.where(pixels >= threshold[:, None, None, None], 255 - pixels, pixels)


def autocontrast(pixels: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel to all of black to white; one of a single value stays."""
    whole = pixels.float()
    least, most = whole.amin((2, 3), keepdim=True), whole.amax((2, 3), keepdim=True)
    flat = least == most
    step = torch.where(flat, 1.0, (most - least) * (1 / 255))
    return (whole - torch.where(flat, 0.0, least)).div_(step).clamp_(0, 255).byte()


def equalize(pixels: Tensor, _: Tensor) -> Tensor:
    """Give each channel a flat histogram, by Pillow's formula (`ImageOps.equalize`)."""
    flat = pixels.flatten(2).long()
    histogram = torch.zeros(*flat.shape[:2], 256, dtype=torch.int64, device=pixels.device)
    histogram.scatter_add_(2, flat, torch.ones_like(flat))
    below = histogram.cumsum(2)
    last = histogram.gather(2, flat.amax(2, keepdim=True))  # pixels of the brightest value
    step = (flat.shape[2] - last) // 255
    table = (below - histogram + step // 2) // step.clamp(min=1)
    equal = table.clamp_(0, 255).gather(2, flat).byte().view_as(pixels)
    return torch.where(step[..., None] > 0, equal, pixels)


#: A batch of (B, C, H, W) uint8 images, each with a strength, (B,) float32, to such a batch.
Operation = Callable[[Tensor, Tensor], Tensor]

#: The operations of TrivialAugment by their place in `DRAWN`, but for geometry and identity.
POINTWISE: dict[str, Operation] = {
    "brightness": brightness,
    "color": color,
    "contrast": contrast,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
}

#: The geometric ones, of which a matrix says which and how much.
GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")

#: All, in the order of the numbers that are drawn; the last leaves the image as it is.
DRAWN = (*GEOMETRIC, *POINTWISE, "identity")


def strengths(bins: int, translate: float) -> Tensor:
    """The strengths of the "wide" space, by operation and bin; 0 where one has none.

    Returns:
        (14, bins) float32: shears as tangents, shifts in pixels, rotations in degrees, changes of a
        factor of 1, bits, a threshold of 255 to 0.
    """

    def up_to(most: float) -> Tensor:
        return torch.linspace(0, most, bins)

    of = {
        **dict.fromkeys(("shear_x", "shear_y"), up_to(0.99)),
        **dict.fromkeys(("translate_x", "translate_y"), up_to(translate).trunc()),
        "rotate": up_to(135),
        **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), up_to(0.99)),
        "posterize": 8 - (torch.arange(bins) / ((bins - 1) / 6)).round(),
        "solarize": 255 * torch.linspace(1, 0, bins),
    }
    return torch.stack([of.get(name, torch.zeros(bins)) for name in DRAWN])


#: Those whose strength is drawn with a sign.
SIGNED = tuple(name not in ("posterize", "solarize") for name in DRAWN)

#: Those whose strength changes a factor of 1.
FACTORS = tuple(name in ("brightness", "color", "contrast", "sharpness") for name in DRAWN)


def trivial_matrices(operation: Tensor, strength: Tensor, size: Size) -> Tensor:
    """The matrices of the geometric operations, (N, 6) float32; those of others move nothing.

    Shears are about the upper left corner, as in Pillow and torchvision.
    """
    none = torch.zeros_like(strength)

    def of(name: str) -> Tensor:
        return torch.where(operation == DRAWN.index(name), strength, none)

    shear_x, shear_y = (torch.rad2deg(torch.atan(of(f"shear_{axis}"))) for axis in "xy")
    shift = of("translate_x"), of("translate_y")
    one = torch.ones_like(strength)
    corner = -size[1] / 2, -size[0] / 2
    sheared = inverse_affine(none, (none, none), one, (shear_x, shear_y), corner)
    moved = inverse_affine(-of("rotate"), shift, one, (none, none))
    shears = (operation == DRAWN.index("shear_x")) | (operation == DRAWN.index("shear_y"))
    return torch.where(shears[:, None], sheared, moved)


def trivial(pixels: Tensor, operation: Tensor, strength: Tensor, matrices: Tensor) -> Tensor:
    """Apply to each image, (B, C, H, W) uint8, the operation drawn for it.

    Args:
        pixels: the images.
        operation: (B,) int64, a place in `DRAWN`.
        strength: (B,) float32.
        matrices: (B, 6) float32, of `trivial_matrices`.
    """
    if pixels.device.type != "cpu":
        return _of_all(pixels, operation, strength, matrices)
    order = operation.argsort()
    counts = operation.bincount(minlength=len(DRAWN)).tolist()
    sizes = [sum(counts[: len(GEOMETRIC)]), *counts[len(GEOMETRIC) :]]
    parts = torch.split(pixels.index_select(0, order), sizes)
    each = torch.split(strength[order], sizes)
    done = [warp(parts[0], matrices[order[: sizes[0]]], "nearest")]
    for function, some, numbers in zip(POINTWISE.values(), parts[1:], each[1:], strict=False):
        done.append(function(some, numbers) if len(some) else some)
    return torch.cat([*done, parts[-1]]).index_select(0, order.argsort())


def _of_all(pixels: Tensor, operation: Tensor, strength: Tensor, matrices: Tensor) -> Tensor:
    """The same by doing each to all images, which a GPU does sooner than the host hears of any."""
    found = torch.where(
        _each(operation < len(GEOMETRIC)), warp(pixels, matrices, "nearest"), pixels
    )
    for place, function in enumerate(POINTWISE.values(), len(GEOMETRIC)):
        chosen = operation == place
        changed = function(pixels, torch.where(chosen, strength, 1.0))
        found = torch.where(_each(chosen), changed, found)
    return found


def _each(chosen: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1)."""
    return chosen[:, None, None, None]
