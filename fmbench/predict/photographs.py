"""How a picture becomes 28 x 28 grey pixels on black, as a model of Fashion-MNIST takes them.

1. It is made grey and upright. A transparent background counts as white, or as black if the
   background is said to be dark.
2. It is inverted if its border is light on average. A picture of 28 x 28 is ready then.
3. The background, which is the median of the border, is subtracted, and what differs from it is
   cut out.
4. The longer edge is resized to 28 pixels, with antialiasing, and the result centred on black.

The images of the data set were made in a similar way (Xiao, Rasul and Vollgraf 2017,
arXiv:1708.07747, section 2).
"""

import io
import logging
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fmbench.core.errors import DataError, UserError, described
from fmbench.core.files import open_regular

SIDE = 28

#: What is read. Not every format that Pillow knows: some start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")

BACKGROUNDS = ("auto", "light", "dark")

#: Bytes of a file; its pixels are bounded by Pillow.
MAX_BYTES = 2**28

#: Pictures are first reduced to this many pixels a side, which averages noise out.
_WORKING_SIDE = 128

#: Clothing is what differs from the background by 5 % of black to white, and by this share of the
#: largest difference: light from one side makes a background uneven.
_LEAST, _SHARE = 0.05 * 255, 0.2

# Without a handler Python prints what Pillow logs about odd files.
logging.getLogger("PIL").addHandler(logging.NullHandler())


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
    # Opening a pipe would wait for ever. Not by Path, which raises on a long name.
    if not os.path.isfile(path):  # noqa: PTH113
        what = "is a folder" if os.path.isdir(path) else "no such file"  # noqa: PTH112
        raise DataError(f"{path}: {what}; give pictures")
    try:
        with warnings.catch_warnings(), open_regular(path, MAX_BYTES) as content:
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(content, formats=FORMATS) as file:
                ImageOps.exif_transpose(file, in_place=True)
                return _grey(file, dark=dark)
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: larger than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: no picture; allowed are {', '.join(FORMATS)}") from error
    # No contract says what a damaged file makes a decoder raise.
    except Exception as error:
        said = described(error, 100)
        raise DataError(f"{path}: a damaged picture, or an unusual one ({said})") from error


def _grey(image: Image.Image, *, dark: bool) -> Image.Image:
    if image.mode in {"1", "P", "PA"}:  # which cannot be averaged
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    # Without `reducing_gap`, which Pillow lacks for 16 bits.
    image.thumbnail((_WORKING_SIDE, _WORKING_SIDE), Image.Resampling.BOX, reducing_gap=None)
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        # Floats have no agreed white: the lightest pixel is taken for it.
        low, high = (values.min(), values.max()) if image.mode == "F" else (0, 65535)
        scaled = (values - low) * (255 / max(high - low, 1e-9))
        image = Image.fromarray(scaled.clip(0, 255).round().astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("L")
    canvas = Image.new("RGBA", image.size, "black" if dark else "white")
    return Image.alpha_composite(canvas, image.convert("RGBA")).convert("L")


def sheet(images: Sequence[np.ndarray]) -> bytes:
    """Draw images (28, 28) uint8 as one PNG, enlarged six times, row by row in their order."""
    columns = min(len(images), max(10, math.isqrt(len(images))))
    # A frame keeps black backgrounds apart; the last row may have places left.
    missing = -len(images) % columns
    framed = np.pad(images, ((0, missing), (1, 1), (1, 1)), constant_values=96)
    tiles = framed.reshape(-1, columns, SIDE + 2, SIDE + 2).swapaxes(1, 2)
    mosaic = tiles.reshape(-1, columns * (SIDE + 2))
    file = io.BytesIO()
    Image.fromarray(mosaic.repeat(6, axis=0).repeat(6, axis=1)).save(file, "PNG")
    return file.getvalue()
