"""Photographs to what a net of Fashion-MNIST sees: 28 x 28 grey pixels, the clothing on black.

A picture goes the way that the images of the data set went (Xiao, Rasul and Vollgraf 2017,
arXiv:1708.07747, section 2): edges close to the colour of the corners are trimmed, the longest edge
becomes 28 pixels, outlines are sharpened, the shortest edge is extended to 28 around the picture,
intensities are negated, colours become grey. Differences, since the authors had small pictures of
one shop, all on white:

- Pixels are averaged, where the paper skips rows and columns: large pictures have noise.
- The background may change evenly over the picture, as light from one side leaves it.
- A picture on a dark background is not negated; any background becomes black.
"""

import io
import logging
import math
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np
from PIL import ExifTags, Image, ImageFilter, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from fmbench.errors import DataError, UserError
from fmbench.storage import open_regular

SIDE = 28

#: What is read. Not all that Pillow knows: some of its formats start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")

BACKGROUNDS = ("auto", "light", "dark")

#: In the sheets that are made here, so that a picture of the user's is not taken for one.
SHEET_MARK = ("Software", "fmbench.predict --seen")

#: How far from a colour still counts as close to it: 5 % of the way from black to white.
CLOSE = 0.05 * 255 * math.sqrt(3)

#: Larger pictures are made smaller first: it averages noise out, and 28 pixels need no more.
MOST_SIDE = 512

# Of a segment of a JPEG: within a scan the byte 255 is followed by 0, or by one of these eight.
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")

#: Bytes of a file; bytes that it may take to decode it; scans of a JPEG, usually 10.
MOST_BYTES, MOST_MEMORY, MOST_SCANS = 2**28, 2**29, 40

#: What each of red, green and blue adds to grey (ITU-R BT.601), as Pillow has it.
GREY = np.array([0.299, 0.587, 0.114])

# Without a handler of its own, Python prints what Pillow says about odd files.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def read(path: Path, background: str = "auto") -> np.ndarray:
    """Read a picture as a net sees it.

    A grey picture of 28 x 28 is taken as it is, apart from being negated where its background is
    light: an image of Fashion-MNIST stays what it was.

    Args:
        path: Of a picture of any size, mode and orientation. Of several frames the first counts.
        background: "light", "dark", or "auto": by the colour of the corners.

    Returns:
        uint8 (28, 28), the background 0.

    Raises:
        DataError: There is no such file, it is no picture that can be read, it is too large, or
            there is nothing on it but one colour.
    """
    image = _decode(path, background)
    pixels = np.asarray(image, dtype=np.float32)
    ground = _ground(pixels)
    light = background == "light" or (background == "auto" and float(ground @ GREY) > 127)
    if image.size == (SIDE, SIDE) and bool((pixels == pixels[..., :1]).all()):
        grey = np.asarray(image)[..., 0]
        _require_any(grey != grey[0, 0], path)
        return 255 - grey if light else grey.copy()

    surface = _surface(pixels, ground)
    seen = np.linalg.norm(pixels - surface, axis=2) > CLOSE
    _require_any(seen, path)
    grey, level = pixels @ GREY, surface @ GREY
    if light:
        grey, level = 255 - grey, 255 - level
    if level.mean() <= 127:  # else what was called the background is not what the border shows
        level = level.clip(0, 200)
        grey = (grey - level) * (255 / (255 - level))
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    grey = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    grey = _sharpen(_fit(Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))))
    height, width = grey.shape
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    canvas = np.zeros((SIDE, SIDE), dtype=np.uint8)
    canvas[top : top + height, left : left + width] = grey.clip(0, 255).round()
    return canvas


def _require_any(seen: np.ndarray, path: Path) -> None:
    if not seen.any():
        raise DataError(f"{path}: there is nothing to see, it is all of one colour")


def sheet(images: Sequence[np.ndarray]) -> bytes:
    """One PNG of images (28, 28) uint8, enlarged, row by row in their order."""
    columns = min(len(images), max(10, math.isqrt(len(images))))
    rows = math.ceil(len(images) / columns)
    tile = SIDE + 2  # a frame keeps black backgrounds apart
    canvas = np.full((rows * tile, columns * tile), 96, dtype=np.uint8)
    for place, image in enumerate(images):
        top, left = (tile * number + 1 for number in divmod(place, columns))
        canvas[top : top + SIDE, left : left + SIDE] = image
    size = (canvas.shape[1] * 6, canvas.shape[0] * 6)
    file = io.BytesIO()
    mark = PngInfo()
    mark.add_text(*SHEET_MARK)
    enlarged = Image.fromarray(canvas).resize(size, Image.Resampling.NEAREST)
    enlarged.save(file, "PNG", pnginfo=mark)
    return file.getvalue()


def may_write_sheet(path: Path) -> bool:
    """Whether a sheet may be written there: a PNG, and not in place of a picture of the user's."""
    if path.suffix.lower() != ".png":
        return False
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises on too long a name
        return True
    try:
        with (
            open_regular(path, MOST_BYTES) as content,
            Image.open(content, formats=("PNG",)) as file,
        ):
            return file.info.get(SHEET_MARK[0]) == SHEET_MARK[1]
    except OSError:
        return False


def _decode(path: Path, background: str) -> Image.Image:
    """The picture upright, in RGB, not larger than it needs to be."""
    # A pipe is no file: opening it would wait for ever. Not by Path, which raises on long names.
    if not os.path.isfile(path):  # noqa: PTH113
        what = "is a folder" if os.path.isdir(path) else "no such file"  # noqa: PTH112
        raise DataError(f"{path}: {what}; give pictures")
    try:
        with warnings.catch_warnings(), open_regular(path, MOST_BYTES) as content:
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(content, formats=FORMATS) as file:
                _refuse_costly(path, file, content)
                file.load()  # all of it: a JPEG would come smaller, and with other pixels
                if file.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                    _refuse_memory(path, file, 2 * _BYTES.get(file.mode, 8))
                    ImageOps.exif_transpose(file, in_place=True)
                return _rgb(file, background)
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: larger than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: no picture; allowed are {', '.join(FORMATS)}") from error
    # What a damaged file makes a decoder raise is in no contract.
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: a damaged picture, or an unusual one ({text[:100]})") from error


#: Bytes a pixel: as Pillow holds it, 4 unless it says otherwise, and with what it is turned into.
_BYTES = {"1": 1, "L": 1, "P": 5, "I;16": 3, "I": 5, "F": 5, "RGB": 4, "RGBA": 4}

#: Of formats whose decoders keep copies.
_COPIES = {"WEBP": 12, "AVIF": 12}


def _refuse_costly(path: Path, image: Image.Image, content: IO[bytes]) -> None:
    """Refuse what takes far more memory or time than its file is large, before it is decoded."""
    scans = _scans(content) if image.format in {"JPEG", "MPO"} else 1
    if scans > MOST_SCANS:
        raise DataError(f"{path}: a JPEG of over {MOST_SCANS} scans, each as large as the picture")
    each = _BYTES.get(image.mode, 8) + _COPIES.get(image.format or "", 0)
    _refuse_memory(path, image, each + 2 * len(image.getbands()) * (scans > 1))


def _refuse_memory(path: Path, image: Image.Image, each: int) -> None:
    needed = image.width * image.height * each
    if needed > MOST_MEMORY:
        raise DataError(
            f"{path}: {image.width:,} x {image.height:,} pixels of its kind take "
            f"{needed / 1e6:,.0f} MB to read; at most {MOST_MEMORY / 1e6:,.0f} MB are taken"
        )


def _scans(content: IO[bytes]) -> int:
    """How many scans a JPEG has, counted up to one more than are read."""
    before = content.tell()
    content.seek(0)
    data = content.read()
    content.seek(before)
    scans, place = 0, 2
    while scans <= MOST_SCANS and (found := _MARKER.search(data, place)):
        place = found.end()
        if found[1] == b"\xd9":  # the end; another picture may follow
            break
        scans += found[1] == b"\xda"
        place += int.from_bytes(data[place : place + 2])  # what a segment says of its length
    return scans


def _grey(image: Image.Image) -> Image.Image:
    """A picture of more than 256 greys in 256, some rows at a time: all of it takes gigabytes."""
    # Pillow cuts these off at 255. Floats have no agreed white: the lightest is taken for it.
    low, high = cast("tuple[float, float]", image.getextrema() if image.mode == "F" else (0, 65535))
    grey = np.empty((image.height, image.width), dtype=np.uint8)
    for top in range(0, image.height, rows := max(1, 2**20 // image.width)):
        part = image.crop((0, top, image.width, min(top + rows, image.height)))
        values = np.asarray(part).astype(np.float64)
        values = (values - low) * (255 / max(high - low, 1e-9))
        grey[top : top + rows] = values.clip(0, 255).round()
    return Image.fromarray(grey)


def _rgb(image: Image.Image, background: str) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = _grey(image)
    mode = "RGBA" if image.has_transparency_data else "RGB"
    # Grey is made smaller as it is, which gives the same and takes a fourth.
    if image.mode != mode and (image.mode, mode) != ("L", "RGB"):
        image = image.convert(mode)
    image.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.BOX)
    image = image if image.mode == mode else image.convert(mode)
    if image.mode == "RGB":
        return image
    dark = background == "dark" or (background == "auto" and _lost_on_white(image))
    canvas = Image.new("RGBA", image.size, "black" if dark else "white")
    return Image.alpha_composite(canvas, image).convert("RGB")


def _lost_on_white(image: Image.Image) -> bool:
    """Whether what is not transparent would be lost on white."""
    alpha = np.asarray(image.getchannel("A"), dtype=np.float32)
    grey = np.asarray(image.convert("RGB").convert("L"), dtype=np.float32)
    return bool((alpha * grey).sum() > 230 * alpha.sum())


def _ground(pixels: np.ndarray) -> np.ndarray:
    """The background's colour, (3,): that of the corner which most of the border is close to.

    Measured: it takes none of the 70,000 images of Fashion-MNIST, all on black, for light.
    """
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    close = np.linalg.norm(border - corners[:, None], axis=2) <= CLOSE
    ground: np.ndarray = corners[close.sum(1).argmax()]
    return ground


def _surface(pixels: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """The background's colour everywhere, (H, W, 3), as light that falls unevenly leaves it.

    For each colour a plane over the picture: through the pixels of the border that are close to
    `ground`, then, since they give it a slope, through all that are close to the plane.
    """
    height, width = pixels.shape[:2]
    down, across = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    places = np.stack([np.ones_like(down), down, across], axis=2)
    border = np.ones((height, width), dtype=bool)
    border[1:-1, 1:-1] = False
    found, colours = places[border], pixels[border].astype(np.float64)
    plane = np.stack([ground, 0 * ground, 0 * ground]).astype(np.float64)
    for _ in range(10):
        close = np.linalg.norm(found @ plane - colours, axis=1) <= CLOSE
        if not close.any():
            break
        some = found[close]
        # Pixels that all lie on one edge say nothing of the slope across it: it is then 0.
        flat = np.diag([0, 0.001, 0.001]) * len(some)
        plane = np.linalg.solve(some.T @ some + flat, some.T @ colours[close])
    surface: np.ndarray = places @ plane
    return surface


def _fit(image: Image.Image) -> Image.Image:
    """The longest edge 28, the other in proportion, at least 1."""
    longest = max(image.size)
    width, height = (max(1, round(edge * SIDE / longest)) for edge in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def _sharpen(image: Image.Image) -> np.ndarray:
    """Add what a Gaussian of standard deviation 1 takes away, the more the closer to outlines."""
    grey = np.asarray(image, dtype=np.float32)
    smooth = np.asarray(image.filter(ImageFilter.GaussianBlur(1)), dtype=np.float32)
    around = np.pad(smooth, 1, mode="edge")
    slope = np.hypot(around[1:-1, 2:] - around[1:-1, :-2], around[2:, 1:-1] - around[:-2, 1:-1])
    weight = slope / max(slope.max(), 1e-9)
    sharp: np.ndarray = grey + weight * (grey - smooth)
    return sharp.clip(0, 255)
