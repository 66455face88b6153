"""Pictures of any format become arrays: decoded, upright, on white, resized."""

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import IO, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fmbench.core.errors import DataError, UserError, described

#: What is read. Not every format that Pillow knows: some start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")

#: Bytes of a file; its pixels are bounded by Pillow.
MAX_BYTES = 2**28

#: How a picture that is not square becomes it.
FITS = ("crop", "pad", "stretch")

# Without a handler Python prints what Pillow logs about odd files.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing that Pillow warns of is shown; around all threads, which share the filters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def opened(content: IO[bytes]) -> Iterator[Image.Image]:
    """A picture, upright; of several frames the first.

    Raises:
        DataError: It cannot be decoded, or is too large; without its name.
    """
    try:
        with Image.open(content, formats=FORMATS) as file:
            _refuse_large(file)
            ImageOps.exif_transpose(file, in_place=True)
            yield file
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"larger than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise DataError(f"no picture; allowed are {', '.join(FORMATS)}") from error
    # No contract says what a damaged file makes a decoder raise.
    except Exception as error:
        said = described(error, 100)
        raise DataError(f"a damaged picture, or an unusual one ({said})") from error


def _refuse_large(image: Image.Image) -> None:
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError


def plain(image: Image.Image, background: Literal["white", "black"] = "white") -> Image.Image:
    """A picture of any mode in grey (L) or in colour (RGB), without transparency."""
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        # Floats have no agreed white: the lightest pixel is taken for it.
        low, high = (values.min(), values.max()) if image.mode == "F" else (0, 65535)
        scaled = (values - low) * (255 / max(high - low, 1e-9))
        return Image.fromarray(scaled.clip(0, 255).round().astype(np.uint8))
    mode = "L" if image.mode in {"1", "L", "LA", "La"} else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode)
    canvas = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(canvas, image.convert("RGBA")).convert(mode)


def fitted(image: Image.Image, size: Sequence[int] | None, fit: str) -> np.ndarray:
    """The pixels of a picture of mode L or RGB in a size (height, width), with antialiasing.

    Of `fit`, `crop` takes the middle, `pad` adds black, `stretch` changes the proportions. Returns
    uint8 (H, W) or (H, W, 3).
    """
    if size is not None and image.size != (wanted := (size[1], size[0])):
        method = Image.Resampling.BILINEAR
        if fit == "crop":
            image = ImageOps.fit(image, wanted, method)
        elif fit == "pad":
            image = ImageOps.pad(image, wanted, method, color=0)
        else:
            image = image.resize(wanted, method)
    return np.asarray(image)
