"""A synthetic twin of Fashion-MNIST: ten garments drawn by rule, for where the real files are not.

It has the shapes, sizes and class names of the original and its one real difficulty: T-shirt,
pullover, coat and shirt differ in little but sleeves, collar and front. It stands in for the
original in tests, demos and machines without a network; a figure measured on it says nothing about
Fashion-MNIST.

Every image is a silhouette given by inequalities, seen in a random pose. Only operations that
IEEE 754 rounds exactly are used (no sine, no matrix product, no sum), so a seed gives the same bits
on every machine.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from fmbench.core.errors import ConfigError
from fmbench.data.dataset import Dataset, combined, joined

# fmt: off
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
           "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
# fmt: on

#: They take 784 MB.
MOST_IMAGES = 1_000_000

_SIDE = 28
_CHUNK = 500  # images drawn at a time: what they need stays within a few megabytes

Ranges = Mapping[str, list[tuple[float, float]]]
Measures = Mapping[str, np.ndarray]  # what is drawn from ranges: float32 (N, 1, 1) each
Drawn = tuple[np.ndarray, np.ndarray]  # cover and tone, float32 (N, 28, 28) each

# What varies within a class: (low, high), uniform in between, in label order where a shape serves
# several classes. Lengths are in half image sides, x to the right, y down, from the middle.
_TOP_RANGES: Ranges = {
    # T-shirt/top   Pullover      Dress         Coat          Shirt
    "shoulder": [(0.40, 0.54), (0.40, 0.54), (0.22, 0.40), (0.40, 0.54), (0.40, 0.54)],
    "top": [(-0.85, -0.70), (-0.85, -0.70), (-0.95, -0.80), (-0.90, -0.75), (-0.85, -0.70)],
    "bottom": [(0.60, 0.85), (0.55, 0.85), (0.75, 0.95), (0.70, 0.92), (0.60, 0.88)],
    "taper": [(-0.08, 0.08), (-0.08, 0.08), (-0.10, 0.02), (-0.05, 0.12), (-0.08, 0.08)],
    "flare": [(0.00, 0.05), (0.00, 0.05), (0.10, 0.50), (0.00, 0.10), (0.00, 0.05)],
    "sleeve_x": [(0.15, 0.35), (0.15, 0.40), (0.00, 0.15), (0.15, 0.40), (0.15, 0.40)],
    "sleeve_y": [(0.20, 0.65), (0.80, 1.35), (0.00, 0.50), (0.95, 1.40), (0.40, 1.35)],
    "sleeve_width": [(0.12, 0.18), (0.11, 0.17), (0.06, 0.12), (0.11, 0.18), (0.10, 0.17)],
    "neck": [(0.12, 0.28), (0.12, 0.24), (0.10, 0.26), (0.10, 0.22), (0.10, 0.20)],
    "neck_depth": [(0.10, 0.30), (0.06, 0.20), (0.10, 0.45), (0.10, 0.50), (0.10, 0.30)],
    "collar": [(-0.15, 0.15), (-0.15, 0.15), (-0.15, 0.15), (-0.35, 0.35), (-0.40, 0.40)],
    "front": [(0.00, 0.10), (0.00, 0.15), (0.00, 0.15), (0.20, 0.80), (0.05, 0.45)],
}
_TROUSER_RANGES: Ranges = {
    "hip": [(0.22, 0.42)],
    "spread": [(0.00, 0.25)],
    "leg": [(0.10, 0.19)],
    "crotch": [(-0.50, -0.10)],
    "top": [(-0.95, -0.80)],
    "bottom": [(0.70, 0.95)],
}
_SHOE_RANGES: Ranges = {
    # Sandal        Sneaker       Ankle boot
    "length": [(0.75, 0.92), (0.78, 0.92), (0.68, 0.90)],
    "bottom": [(0.25, 0.55), (0.25, 0.50), (0.55, 0.85)],
    "toe": [(0.12, 0.30), (0.18, 0.35), (0.20, 0.40)],
    "instep": [(-0.60, 0.20), (-0.60, 0.00), (-0.50, 0.10)],
    "slope": [(0.30, 1.20), (0.40, 1.30), (1.20, 5.00)],
    "height": [(0.35, 1.00), (0.45, 0.85), (0.75, 1.45)],
    "sole": [(0.06, 0.16), (0.08, 0.18), (0.06, 0.16)],
    "wedge": [(0.00, 0.50), (0.00, 0.06), (0.00, 0.20)],
    "sole_tone": [(-0.50, 0.50), (-0.40, 0.60), (-0.60, 0.30)],
    "arch": [(0.00, 0.25), (0.00, 0.03), (0.00, 0.15)],
    "strap": [(0.15, 0.45), (0.15, 0.45), (0.15, 0.45)],
    "gap": [(0.25, 0.65), (-0.40, 0.10), (-0.40, 0.05)],
}
_BAG_RANGES: Ranges = {
    "width": [(0.55, 0.88)],
    "taper": [(-0.15, 0.15)],
    "top": [(-0.50, 0.05)],
    "bottom": [(0.55, 0.85)],
    "handle": [(0.25, 0.50)],
    "handle_height": [(0.00, 0.75)],
    "strap": [(0.12, 0.30)],
    "flap": [(0.15, 0.60)],
    "flap_tone": [(-0.40, 0.40)],
}
_LOOK_RANGES: Ranges = {
    "shift_x": [(-0.16, 0.16)],
    "shift_y": [(-0.12, 0.12)],
    "zoom_x": [(0.95, 1.20)],
    "zoom_y": [(0.95, 1.20)],
    "half_turn": [(-0.08, 0.08)],  # tan of half the angle: 9 degrees either way
    "shear": [(-0.15, 0.15)],
    "brightness": [(0.30, 1.00)],
    "light": [(-0.25, 0.25)],
    "period": [(0.16, 0.60)],
    "phase": [(0.00, 1.00)],
    "weave": [(0.00, 0.50)],
    "stripes_x": [(-1.50, 1.00)],  # drawn on where positive: two in five
    "stripes_y": [(-1.50, 1.00)],
    "grain": [(0.02, 0.25)],
    "patch_x": [(-1.00, 1.00)],
    "patch_y": [(-1.00, 1.00)],
    "patch_width": [(-0.40, 0.30)],  # no patch where negative
    "patch_height": [(0.10, 0.50)],
    "patch_tone": [(0.00, 1.00)],
}


def load(config: Mapping[str, Any]) -> Dataset:
    """The data set that a `data` group asks for: `train_size`, `test_size`, `seed`.

    Raises:
        ConfigError: A size or the seed is out of range.
    """
    return _load(config["train_size"], config["test_size"], config["seed"])


@lru_cache(maxsize=3)
def _load(train_size: int, test_size: int, seed: int) -> Dataset:
    arrays = draw(train_size, test_size, seed)
    digest = combined(hashlib.sha256(array.data).hexdigest() for array in arrays)
    return joined("synthetic", CLASSES, {"train": arrays[:2], "test": arrays[2:]}, digest)


def draw(
    train_size: int, test_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draws a training set and a test set that share no random number.

    Image i of either set depends on the seed and on i alone, not on the size of the set. Every ten
    images in a row are one of each class, in shuffled order, so any first part is balanced too.

    Returns:
        Training images, training labels, test images, test labels: uint8 (N, 28, 28) with
        0 black, and uint8 (N,) with 0 to 9 as in `CLASSES`.

    Raises:
        ConfigError: A size is below 10 or above `MOST_IMAGES`, or the seed is negative.
    """
    for name, size in (("train_size", train_size), ("test_size", test_size)):
        if not len(CLASSES) <= size <= MOST_IMAGES:
            raise ConfigError(f"data.{name}={size}: allowed are 10 to {MOST_IMAGES:,}")
    if seed < 0:
        raise ConfigError(f"data.seed={seed}: negative; allowed are 0 and above")
    return *_draw_set(train_size, seed, stream=0), *_draw_set(test_size, seed, stream=1)


def _draw_set(size: int, seed: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((size, _SIDE, _SIDE), dtype=np.uint8)
    labels = np.empty(size, dtype=np.uint8)
    for start in range(0, size, _CHUNK):
        some_images, some_labels = _draw_chunk(np.random.default_rng([seed, stream, start]))
        images[start : start + _CHUNK] = some_images[: size - start]
        labels[start : start + _CHUNK] = some_labels[: size - start]
    return images, labels


def _draw_chunk(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    labels = np.argsort(rng.random((_CHUNK // len(CLASSES), len(CLASSES))), axis=1).ravel()
    shape_draws = rng.random((_CHUNK, 12))
    look = _between(_LOOK_RANGES, rng.random((_CHUNK, len(_LOOK_RANGES))))
    noise = rng.random((_CHUNK, _SIDE, _SIDE), dtype=np.float32) - 0.5

    x, y = _pose(look)
    cover, tone = np.empty_like(noise), np.empty_like(noise)
    for group, ranges, shape in (
        ((0, 2, 3, 4, 6), _TOP_RANGES, _top),
        ((1,), _TROUSER_RANGES, _trousers),
        ((5, 7, 9), _SHOE_RANGES, _shoe),
        ((8,), _BAG_RANGES, _bag),
    ):
        mine = np.flatnonzero(np.isin(labels, group))
        measures = _between(ranges, shape_draws[mine], np.searchsorted(group, labels[mine]))
        cover[mine], tone[mine] = shape(x[mine], y[mine], measures)
    grey = _finish(cover * tone, x, y, noise, look)
    return np.floor(grey * 255 + 0.5).astype(np.uint8), labels.astype(np.uint8)


def _between(ranges: Ranges, draws: np.ndarray, column: np.ndarray | int = 0) -> Measures:
    """Turns uniform draws (N, K) into measures within the given column of the ranges."""
    measures = {}
    for draw, (name, pairs) in zip(draws.T, ranges.items(), strict=False):
        low, high = np.array(pairs)[column].T
        measures[name] = (low + (high - low) * draw).astype(np.float32)[:, None, None]
    return measures


def _pose(look: Measures) -> tuple[np.ndarray, np.ndarray]:
    """Returns where each pixel of each image lies on the garment, float32 (N, 28, 28) twice."""
    axis = (np.arange(_SIDE, dtype=np.float32) - 13.5) / 14
    x = axis[None, None, :] - look["shift_x"]
    y = axis[None, :, None] - look["shift_y"]
    half = look["half_turn"]
    cosine, sine = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    turned_x, turned_y = cosine * x + sine * y, cosine * y - sine * x
    return (turned_x + look["shear"] * turned_y) * look["zoom_x"], turned_y * look["zoom_y"]


def _inside(distance: np.ndarray) -> np.ndarray:
    """Turns a signed distance, negative inside, into the share of a pixel that is covered."""
    share: np.ndarray = np.clip(0.5 - 14 * distance, 0, 1)
    return share


def _wave(phase: np.ndarray) -> np.ndarray:
    """A triangle wave of period 1 between 0 and 1."""
    height: np.ndarray = np.abs(phase - np.floor(phase) - 0.5) * 2
    return height


def _top(x: np.ndarray, y: np.ndarray, m: Measures) -> Drawn:
    across = np.abs(x)
    width = m["shoulder"] + m["taper"] * (y - m["top"]) + m["flare"] * np.maximum(y + 0.2, 0)
    body = np.maximum(across - width, np.maximum(m["top"] - y, y - m["bottom"]))
    # A sleeve is all that lies within its width of the line from shoulder to cuff.
    from_x = across - (m["shoulder"] - m["sleeve_width"])
    from_y = y - (m["top"] + m["sleeve_width"])
    reach = m["sleeve_x"] * m["sleeve_x"] + m["sleeve_y"] * m["sleeve_y"] + 1e-6
    along = np.clip((from_x * m["sleeve_x"] + from_y * m["sleeve_y"]) / reach, 0, 1)
    off_x, off_y = from_x - along * m["sleeve_x"], from_y - along * m["sleeve_y"]
    sleeve = np.sqrt(off_x * off_x + off_y * off_y) - m["sleeve_width"]
    neck = across / m["neck"] + (y - m["top"]) / m["neck_depth"]  # the bare neck is below 1
    cover = _inside(np.maximum(np.minimum(body, sleeve), (1 - neck) * m["neck"]))
    seam = _inside(np.abs(across - width) - 0.02) * _inside(sleeve)
    front = _inside(across - 0.03)
    collar = _inside((neck - 1.7) * m["neck"])
    return cover, (1 - 0.4 * seam) * (1 - m["front"] * front) + m["collar"] * collar


def _trousers(x: np.ndarray, y: np.ndarray, m: Measures) -> Drawn:
    across = np.abs(x)
    outer = m["hip"] + m["spread"] * (y - m["top"]) / 2
    between = np.minimum(np.maximum(outer - 2 * m["leg"], 0) - across, y - m["crotch"])
    ends = np.maximum(m["top"] - y, y - m["bottom"])
    shape = np.maximum(np.maximum(across - outer, between), ends)
    inseam = _inside(across - 0.02) * _inside(m["crotch"] - y)
    return _inside(shape), 1 - 0.4 * inseam


def _shoe(x: np.ndarray, y: np.ndarray, m: Measures) -> Drawn:
    """Seen from the side, the toe on the left, as in the original."""
    rise = np.clip((x - m["instep"]) * m["slope"], 0, m["height"] - m["toe"])
    shape = np.maximum(np.abs(x) - m["length"], y - m["bottom"])
    shape = np.maximum(shape, m["bottom"] - m["toe"] - rise - y)
    above_sole = m["bottom"] - m["sole"] - m["wedge"] * np.maximum(x, 0) - y
    gap = (m["gap"] - _wave((x + y / 2) / m["strap"] / 2)) * m["strap"]
    arch = np.minimum(y - m["bottom"] + m["arch"], 0.3 - np.abs(x - 0.2))
    shape = np.maximum(shape, np.maximum(np.minimum(gap, above_sole), arch))
    return _inside(shape), 1 + m["sole_tone"] * _inside(above_sole)


def _bag(x: np.ndarray, y: np.ndarray, m: Measures) -> Drawn:
    ends = np.maximum(m["top"] - y, y - m["bottom"])
    box = np.maximum(np.abs(x) - m["width"] - m["taper"] * y, ends)
    ring_x, ring_y = x / m["handle"], (y - m["top"]) / (m["handle_height"] + 0.05)
    ring = np.abs(np.sqrt(ring_x * ring_x + ring_y * ring_y) - 1) - m["strap"]
    handle = np.maximum(ring * m["handle"], y - m["top"])
    flap = _inside(y - m["top"] - m["flap"])
    return _inside(np.minimum(box, handle)), 1 + m["flap_tone"] * flap


def _finish(
    grey: np.ndarray, x: np.ndarray, y: np.ndarray, noise: np.ndarray, look: Measures
) -> np.ndarray:
    """Lays cloth, light, grain and at times a patch in the way over the silhouette; 0 to 1."""
    cloth = np.maximum(look["stripes_x"], 0) * _wave(x / look["period"] + look["phase"])
    cloth += np.maximum(look["stripes_y"], 0) * _wave(y / look["period"] + look["phase"])
    cloth = 1 - np.minimum(cloth, 1) * look["weave"]
    grey = grey * cloth * look["brightness"] * (1 + look["light"] * (x - y))
    patch = np.maximum(
        np.abs(x - look["patch_x"]) - look["patch_width"],
        np.abs(y - look["patch_y"]) - look["patch_height"],
    )
    seen: np.ndarray = np.where(patch < 0, look["patch_tone"], grey) + noise * look["grain"]
    return seen.clip(0, 1)
