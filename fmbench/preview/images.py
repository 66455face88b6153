"""Collect images as a run sees them, before and after its augmentation, and draw them.

They come from the loader that the run trains from: what the picture shows under `epoch 3` is what
the model of such a run gets in its third epoch.
"""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from fmbench.data.loader import TrainLoader
from fmbench.report.figures.style import matplotlib_alone
from fmbench.runs.prepare import make_train_loader, read_inputs

# Of the PNG, in pixels; it is shown at half its size, so that text is sharp on a dense screen.
SQUARE, GAP = 6, 8  # for a pixel of an image; between images
MARGIN, LEFT, ABOVE = 40, 190, 140  # around everything; names of rows; title and names of columns
LINE, LETTER, LEAST_WIDTH = 36, 12, 840  # height and width of text; a title needs it
DENSITY = 144  # an inch


class Grid(NamedTuple):
    """Images in rows and columns, which have names."""

    title: str
    subtitle: str  # several lines; long ones are wrapped
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    images: np.ndarray  # (rows, columns, C, H, W) uint8, 0 black to 255 white


def collect(config: Mapping[str, Any], option: str, *, images: int, draws: int) -> Grid:
    """Collect the first image of some classes, as it is and as augmented in each epoch.

    Args:
        config: Resolved.
        option: The name of the augmentation.
        images: Their number, of classes spread evenly over all.
        draws: The number of epochs.

    Raises:
        UserError: The config is wrong, or the data are missing or damaged.
    """
    inputs = read_inputs(config)
    loader = make_train_loader(config, inputs, inputs.device.torch)
    dataset, names = inputs.dataset, inputs.dataset.classes
    classes = np.linspace(0, len(names) - 1, images).round().astype(int)
    labels = loader.labels.cpu().numpy()
    first = [int(np.argmax(labels == label)) for label in classes]
    plain = dataset.images[inputs.split.train[first]]
    return Grid(
        title=f"augmentation={option}",
        subtitle=_describe(config, inputs.normalization.mean),
        rows=tuple(names[label] for label in classes),
        columns=("as it is", *(f"epoch {epoch + 1}" for epoch in range(draws))),
        images=np.concatenate([plain[:, None], _seen(loader, first, draws)], axis=1),
    )


def _seen(loader: TrainLoader, wanted: Sequence[int], epochs: int) -> np.ndarray:
    """Return the images at the wanted indices in each epoch: (wanted, epochs, C, H, W) uint8."""
    indices = torch.tensor(wanted, device=loader.labels.device)
    seen = np.empty((len(wanted), epochs, *loader.shape), dtype=np.uint8)
    for epoch in range(epochs):
        for ids, images, _ in loader.chunks(epoch):  # shuffled
            for row, column in (indices[:, None] == ids).nonzero().tolist():
                seen[row, epoch] = loader.normalization.undo(images[column]).cpu().numpy()
    return seen


def _describe(config: Mapping[str, Any], mean: Sequence[float]) -> str:
    """Give every part as it stands in a config, and what else decides how the images look."""
    given = config["augmentation"].items()
    parts = {name: numbers for name, numbers in given if numbers is not None}
    text = yaml.safe_dump(parts, default_flow_style=True, sort_keys=False, width=math.inf)
    images = f"{config['data']['name']}, seed {config['seed']}"
    if parts.keys() & {"mixup", "cutmix"}:
        images += "; mixed with another image each, whose class has its share in the target"
    if parts.keys() & {"cutout", "erasing"}:
        images += f"; blanked pixels have the mean, {', '.join(f'{one:.3g}' for one in mean)}"
    return f"{text[1:-2] or 'no part: every epoch sees the images as they are'}\n{images}"


@matplotlib_alone()
def draw(grid: Grid) -> bytes:
    """Draw a grid as a PNG; every pixel of an image is a sharp square of its own colour."""
    import matplotlib.style
    from matplotlib.figure import Figure

    rows, columns, channels, *sides = grid.images.shape
    down, across = (side * SQUARE + GAP for side in sides)
    large = grid.images.repeat(SQUARE, axis=3).repeat(SQUARE, axis=4)
    tiles = np.pad(large, ((0, 0),) * 3 + ((0, GAP), (0, GAP)), constant_values=255)
    mosaic = tiles.transpose(0, 3, 1, 4, 2).reshape(rows * down, columns * across, channels)
    height, width, _ = mosaic.shape
    whole = max(LEFT + width + MARGIN, LEAST_WIDTH)
    letters = int((whole - 2 * MARGIN) / LETTER)
    lines = [part for line in grid.subtitle.splitlines() for part in textwrap.wrap(line, letters)]
    top = ABOVE + LINE * len(lines) + height + MARGIN

    # Whatever the user has set for figures changes nothing; a name may have dollar signs.
    with matplotlib.style.context(["default", {"text.parse_math": False, "font.size": 11}]):
        figure = Figure((whole / DENSITY, top / DENSITY), DENSITY)
        pixels: dict[str, Any] = {"transform": None, "va": "top", "color": "#1a1a1a"}
        figure.text(MARGIN, top - MARGIN, grid.title, **pixels, fontsize=16, fontweight="bold")
        figure.text(MARGIN, top - MARGIN - 2 * LINE, "\n".join(lines), **pixels, linespacing=1.4)
        box = (LEFT / whole, MARGIN / top, width / whole, height / top)
        axes = figure.add_axes(box, frame_on=False)
        # As RGB: matplotlib's grey scale is off by one at every fourth grey.
        axes.imshow(mosaic.repeat(3 // channels, axis=-1), interpolation="none")
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.set_xticks([across * (n + 0.5) - GAP / 2 for n in range(columns)], grid.columns)
        axes.set_yticks([down * (n + 0.5) - GAP / 2 for n in range(rows)], grid.rows)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
