"""How a picture becomes what a model takes.

A model of Fashion-MNIST, or of another set of 28 x 28 grey images on black, gets one like those:

1. It is made grey and upright. A transparent background counts as white, or as black if the
   background is said to be dark.
2. It is inverted if its border is light on average. A picture of 28 x 28 is ready then.
3. The background, which is the median of the border, is subtracted, and what differs from it is
   cut out.
4. The longer edge is resized to 28 pixels, with antialiasing, and the result centred on black.

The images of the data set were made in a similar way (Xiao, Rasul and Vollgraf 2017,
arXiv:1708.07747, section 2).

A model of your own pictures gets them as in training: upright, transparency on white, resized by
data.size and data.fit.
"""

import contextlib
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fmbench.core.errors import DataError
from fmbench.core.files import open_regular
from fmbench.data.pictures import FORMATS, MAX_BYTES, fitted, opened, plain, quiet

__all__ = ["BACKGROUNDS", "FORMATS", "prepared", "read", "sheet"]

SIDE = 28

#: Sets whose images are things on black, in the middle.
_ON_BLACK = ("fashion_mnist", "synthetic", "mnist", "kmnist", "qmnist", "emnist")

BACKGROUNDS = ("auto", "light", "dark")

#: Pictures are first reduced to this many pixels a side, which averages noise out.
_WORKING_SIDE = 128

#: Clothing is what differs from the background by 5 % of black to white, and by this share of the
#: largest difference: light from one side makes a background uneven.
_LEAST, _SHARE = 0.05 * 255, 0.2


def prepared(
    path: Path, config: Mapping[str, Any], shape: tuple[int, ...], background: str = "auto"
) -> np.ndarray:
    """Read a picture as the model of a run takes it.

    Args:
        path: A picture of any size, mode and orientation. Of several frames the first counts.
        config: The `data` group of the run.
        shape: Channels, height and width of an image.
        background: See `read`.

    Returns:
        uint8 of that shape.

    Raises:
        DataError: See `read`.
    """
    if config.get("name") in _ON_BLACK:
        return read(path, background)[None]
    with _picture(path) as picture:
        image = plain(picture).convert("L" if shape[0] == 1 else "RGB")
        pixels = fitted(image, shape[1:], config.get("fit", "crop"))
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def read(path: Path, background: str = "auto") -> np.ndarray:
    """Read a picture as a model takes it.

    A grey picture of 28 x 28 is only inverted if its border is light: an exported image of
    Fashion-MNIST stays what it was.

    Args:
        path: A picture of any size, mode and orientation. Of several frames the first counts.
        background: `light`, `dark`, or `auto` to decide by the mean of the border.

    Returns:
        uint8 (28, 28), the background black.

    Raises:
        DataError: The file is missing, cannot be read as a picture, is too large, or shows a
            single colour.
    """
    pixels = np.asarray(_decode(path, dark=background == "dark"), dtype=np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    if background == "light" or (background == "auto" and border.mean() > 127):
        pixels, border = 255 - pixels, 255 - border
    level = np.median(border)
    distance = np.abs(pixels - level)
    as_stored = pixels.shape == (SIDE, SIDE)
    if distance.max() <= (0 if as_stored else _LEAST):
        raise DataError(f"{path}: shows nothing, all of it has one colour")
    if as_stored:
        return pixels.astype(np.uint8)

    clothing = distance > max(_LEAST, _SHARE * distance.max())
    rows, columns = np.flatnonzero(clothing.any(1)), np.flatnonzero(clothing.any(0))
    pixels = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if level <= 127:  # otherwise `background` contradicts the picture
        pixels = (pixels - level) * (255 / (255 - level))
    image = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
    width, height = (max(1, round(edge * SIDE / max(image.size))) for edge in image.size)
    canvas = Image.new("L", (SIDE, SIDE))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    canvas.paste(resized, ((SIDE - width) // 2, (SIDE - height) // 2))
    return np.array(canvas)


def _decode(path: Path, *, dark: bool) -> Image.Image:
    """Decode within the bounds; returns grey (L), upright, at most `_WORKING_SIDE` a side.

    Raises:
        DataError: as `read`.
    """
    with _picture(path) as picture:
        grey = plain(picture, "black" if dark else "white").convert("L")
        grey.thumbnail((_WORKING_SIDE, _WORKING_SIDE), Image.Resampling.BOX, reducing_gap=None)
        return grey


@contextlib.contextmanager
def _picture(path: Path) -> Iterator[Image.Image]:
    """A picture as `fmbench.data.pictures.opened` gives it; an error names its file."""
    # Opening a pipe would wait for ever. Not by Path, which raises on a long name.
    if not os.path.isfile(path):  # noqa: PTH113
        what = "is a folder" if os.path.isdir(path) else "no such file"  # noqa: PTH112
        raise DataError(f"{path}: {what}; give pictures")
    try:
        with quiet(), open_regular(path, MAX_BYTES) as content, opened(content) as picture:
            yield picture
    except (DataError, OSError) as error:
        raise DataError(f"{path}: {error}") from error


def sheet(images: Sequence[np.ndarray]) -> bytes:
    """Draw images (C, H, W) uint8 as one PNG, enlarged six times, row by row in their order."""
    columns = min(len(images), max(10, math.isqrt(len(images))))
    # A frame keeps black backgrounds apart; the last row may have places left.
    missing, frame = -len(images) % columns, ((1, 1), (1, 1))
    framed = np.pad(images, ((0, missing), (0, 0), *frame), constant_values=96)
    channels, height, width = framed.shape[1:]
    tiles = framed.reshape(-1, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    mosaic = tiles.reshape(-1, columns * width, channels).repeat(6, axis=0).repeat(6, axis=1)
    file = io.BytesIO()
    Image.fromarray(mosaic[..., 0] if channels == 1 else mosaic).save(file, "PNG")
    return file.getvalue()
