"""The picture: sharp squares in their own grey, at the size it says, whatever the user has set."""

import io
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from commands import python
from PIL import Image

from fmbench.grid import DENSITY, GAP, MARGIN, PIXEL, Grid, draw

#: Pixels of the PNG to one of an image, and to an image.
SQUARE = PIXEL * DENSITY
SIDE = 28 * SQUARE


def grid(rows=2, columns=3):
    shape = (rows, columns, 28, 28)
    return Grid(
        title="augmentation=none",
        subtitle="numbers\nmore",
        rows=tuple(f"row {row}" for row in range(rows)),
        columns=tuple(f"column {column}" for column in range(columns)),
        images=np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8),
    )


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def places(shown, images):
    """Where each image lies in the picture, found by its pixels: (rows, columns, 2), y and x."""
    found = []
    for image in images.reshape(-1, 28, 28):
        large = np.kron(image, np.ones((SQUARE, SQUARE), dtype=np.uint8))
        # A look at the four corners first, which leaves few places to compare whole.
        windows = np.lib.stride_tricks.sliding_window_view(shown, large.shape)
        corners = np.s_[..., :: SIDE - 1, :: SIDE - 1]
        likely = np.argwhere((windows[corners] == large[corners]).all(axis=(2, 3)))
        (place,) = [place for place in likely if np.array_equal(windows[tuple(place)], large)]
        found.append(place)
    return np.array(found).reshape(*images.shape[:2], 2)


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (3, 4)])
def test_every_pixel_is_a_sharp_square_of_its_own_grey_and_the_grid_is_even(rows, columns):
    given = grid(rows, columns)
    shown = pixels(draw(given))
    found = places(shown, given.images)
    gap = GAP * DENSITY
    assert (np.diff(found[..., 0], axis=0) == SIDE + gap).all()
    assert (np.diff(found[:, 1:, 1], axis=1) == SIDE + gap).all()
    assert (np.diff(found[:, :2, 1], axis=1) > SIDE + 2 * gap).all()
    margin = MARGIN * DENSITY
    assert found[-1, -1, 0] + SIDE + margin == shown.shape[0]
    assert (shown[-margin:] == 255).all()
    assert (shown[:, :margin] == 255).all()
    if columns > 3:
        assert found[0, -1, 1] + SIDE + margin == shown.shape[1]


def test_names_are_drawn_beside_their_images():
    plain = replace(grid(), rows=("", ""), columns=("", "", ""), title="", subtitle="")
    before = pixels(draw(plain))
    top, left = places(before, plain.images)[1, 2]

    def changed(**names):
        after = pixels(draw(replace(plain, **names)))
        assert after.shape == before.shape
        where = np.argwhere(after != before)
        return where.min(axis=0).tolist(), where.max(axis=0).tolist()

    (y0, x0), (y1, x1) = changed(rows=("", "Bag"))
    assert top < y0 < y1 < top + SIDE
    assert MARGIN * DENSITY <= x0 < x1 < left
    (y0, x0), (y1, x1) = changed(columns=("", "", "epoch 2"))
    assert y1 < top - SIDE
    assert left < x0 < x1 < left + SIDE
    (y0, x0), (y1, x1) = changed(title=r"augmentation=$\nothing$")
    assert y0 >= 0.8 * MARGIN * DENSITY
    assert x0 >= MARGIN * DENSITY - 2


def test_a_long_subtitle_is_wrapped_inside_the_margins():
    shown = pixels(draw(replace(grid(1, 2), subtitle="probability 0.123456, " * 20)))
    margin = (MARGIN - 2) * DENSITY
    assert (shown[:, :margin] == 255).all()
    assert (shown[:, -margin:] == 255).all()


def test_the_user_s_settings_for_figures_change_nothing():
    expected = draw(grid())
    with mpl.rc_context({"font.size": 30, "figure.facecolor": "red", "savefig.dpi": 10}):
        assert draw(grid()) == expected
        assert mpl.rcParams["font.size"] == 30


#: Draws what each kind of picture needs first, then says what backend the program has.
DRAWS = """
import logging, os, numpy as np
from fmbench.grid import Grid, draw
from fmbench.report.figures.sheet import drawing, width_of

assert width_of("a", 12) > 0
with drawing("name", 100) as sheet:
    assert sheet.saved("title")[0][:4] == draw(
        Grid("a", "b", ("c",), ("d",), np.zeros((1, 1, 28, 28), np.uint8)))[:4]
import matplotlib
assert logging.getLogger("matplotlib").level == logging.NOTSET
print(os.environ["MPLBACKEND"], matplotlib.get_backend())
"""


@pytest.mark.parametrize(("asked", "there"), [("not-there", "agg"), ("svg", "svg")])
def test_a_backend_that_jupyter_names_neither_stops_a_picture_nor_is_changed(
    asked, there, tmp_path
):
    done = python("-c", DRAWS, cwd=tmp_path, environment={"MPLBACKEND": asked})
    assert (done.stdout.lower(), done.stderr) == (f"{asked} {there}\n", "")


def test_the_same_grid_gives_the_same_bytes_without_a_word_of_their_maker():
    png = draw(grid())
    assert png == draw(grid())
    assert b"Software" not in png
